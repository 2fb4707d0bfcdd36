"""Who is much slower than the others, and with what: from sums as beats bring them."""

import pytest

from tfleet.server.stragglers import slowest


def beats(data, gradient, exchange, steps=100, count=8):
    """Returns what a worker tells each second: seconds of each part of a step, `steps` of them between two beats."""
    return [
        {
            "rounds": n * steps,
            "data": n * steps * data,
            "gradient": n * steps * gradient,
            "exchange": n * steps * exchange,
        }
        for n in range(count)
    ]


USUAL = (0.001, 0.008, 0.001)


@pytest.mark.parametrize(
    ("slow", "part", "why"),
    [
        ((0.012, 0.008, 0.001), "data", "2.1x the median step, most of it waiting for data"),
        ((0.001, 0.019, 0.001), "gradient", "2.1x the median step, most of it computing the gradient"),
        ((0.001, 0.008, 0.031), "exchange", "4.0x the median step, most of it in the exchange with the ps (network)"),
        ((0.005, 0.012, 0.005), "", "2.2x the median step, in all its parts"),
        ((0.001, 0.013, 0.000), None, ""),  # 1.4x is nothing yet
        (USUAL, None, ""),
    ],
)
@pytest.mark.parametrize("others", [1, 3])
def test_the_slowest_and_why(slow, part, why, others):
    samples = {**{index: beats(*USUAL) for index in range(others)}, 7: beats(*slow)}
    found = slowest(samples, meet=False)
    if part is None:
        assert found is None
    else:
        assert (found.worker, found.part, found.text) == (7, part, f"worker 7 is slowest: {why}")


def test_where_workers_wait_for_each_other_the_fast_ones_do_so_in_the_exchange():
    samples = {0: beats(0.001, 0.008, 0.031), 1: beats(0.001, 0.008, 0.031), 2: beats(0.031, 0.008, 0.001)}
    assert slowest(samples, meet=False) is None
    found = slowest(samples, meet=True)
    assert (found.worker, found.part, found.ratio) == (2, "data", 4.33)


def test_one_slow_worker_of_many_does_not_hide_behind_another():
    samples = {index: beats(*USUAL) for index in range(5)}
    samples |= {5: beats(0.021, 0.008, 0.001), 6: beats(0.031, 0.008, 0.001)}
    assert slowest(samples, meet=False).worker == 6


def test_steps_that_take_longer_than_the_last_seconds_are_judged_by_more_of_them():
    steady, rare = beats(*USUAL), beats(4.0, 0.01, 0.0, steps=0.25, count=20)
    found = slowest({0: steady, 1: rare}, meet=False)
    assert (found.worker, found.part) == (1, "data")
    assert slowest({0: steady, 1: rare[:9]}, meet=False) is None  # two steps are too few to judge


@pytest.mark.parametrize(
    "samples", [{}, {0: []}, {0: beats(*USUAL)}, {0: beats(*USUAL), 1: beats(9, 9, 9)[:1]}, {0: [], 1: []}]
)
def test_nobody_is_slow_before_two_can_be_compared(samples):
    assert slowest(samples, meet=False) is None


def test_only_the_last_seconds_count():
    slow = beats(0.1, 0.008, 0.001, count=10)
    last = slow[-1]
    well = [{k: last[k] + b[k] for k in last} for b in beats(*USUAL, count=8)]
    assert slowest({0: beats(*USUAL, count=18), 1: slow}, meet=False)
    assert slowest({0: beats(*USUAL, count=18), 1: slow + well}, meet=False) is None
