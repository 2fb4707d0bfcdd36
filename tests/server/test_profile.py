"""Where the time goes: what is told of it, and what it is called."""

import os

import pytest

from tfleet.server.memory import resident_bytes
from tfleet.server.profile import Profile, Staleness
from tfleet.spec.times import Times


def worker(rounds, data, gradient, exchange):
    return {"rounds": rounds, "data": data, "gradient": gradient, "exchange": exchange}


def ps(rounds, wall, cpu):
    return {"rounds": rounds, "queue": 0.1 * cpu, "update": 0.6 * cpu, "answer": 0.3 * cpu, "wall": wall, "cpu": cpu}


@pytest.mark.parametrize(
    ("times", "used", "told"),
    [
        ((0.1, 0.8, 0.1), 0.9, ""),
        ((0.5, 0.4, 0.1), 0.9, "workers wait for data: make reading cheaper, or read ahead"),
        ((0.0, 0.4, 0.6), 0.9, "workers wait for ps: add a ps"),
        ((0.0, 0.4, 0.6), 0.2, "workers wait for each other or for the network"),
    ],
)
def test_what_a_job_waits_for(times, used, told):
    profile = Profile()
    for second in range(3):
        profile.take("worker", 0, worker(100 * second, *(second * t for t in times)))
        profile.take("ps", 0, ps(100 * second, second, used * second))
    assert profile.bottleneck() == told


def test_nothing_is_told_before_there_are_two_samples():
    profile = Profile()
    assert profile.bottleneck() == ""
    profile.take("worker", 0, worker(10, 1, 0, 0))
    assert profile.bottleneck() == ""


def test_only_the_last_seconds_count():
    profile = Profile()
    for second in range(30):
        late = max(0, second - 15)
        profile.take("worker", 0, worker(second, second - late, late, 0))
    assert profile.bottleneck() == ""


def test_a_worker_that_starts_again_is_counted_anew():
    profile = Profile()
    profile.take("worker", 0, worker(1000, 500, 1, 1))
    profile.take("worker", 0, worker(1, 0, 1, 0))
    profile.take("worker", 0, worker(2, 0, 2, 0))
    assert profile.bottleneck() == ""


def test_the_table_holds_microseconds_a_step():
    profile = Profile()
    profile.take("worker", 1, worker(1000, 0.1, 0.2, 0.05))
    profile.take("ps", 0, ps(2000, 1, 0.4))
    rows = [line.split() for line in profile.table().splitlines()]
    assert ["worker", "1", "1,000", "100.0", "200.0", "50.0", "350.0"] in rows
    assert ["ps", "0", "2,000", "20.0", "120.0", "60.0", "200.0"] in rows


def test_times_of_a_round_are_summed():
    ticks = iter([0.0, 1.0, 3.0, 10.0, 14.0, 15.0])
    times = Times("a", "b", clock=lambda: next(ticks))
    for _ in range(2):
        times.begin()
        times.end("a")
        times.end("b")
    assert times.to_json() == {"rounds": 2, "a": 5.0, "b": 3.0}


def test_a_round_may_have_begun_earlier():
    times = Times("a", clock=lambda: 5.0)
    times.begin(since=2.0)
    times.end("a")
    assert times.to_json() == {"rounds": 1, "a": 3.0}


def test_staleness_has_a_mean_and_a_maximum():
    staleness = Staleness()
    assert staleness.to_json() == {"mean": 0.0, "max": 0}
    for updates in (1, 2, 6):
        staleness.add(updates)
    assert staleness.to_json() == {"mean": 3.0, "max": 6}


@pytest.mark.parametrize(
    "times",
    [
        {},
        {"rounds": 1},
        {**worker(1, 0, 0, 0), "data": None},
        worker("x", 0, 0, 0),
        worker(1, "nan", 0, 0),
        worker(1, 2**2000, 0, 0),
    ],
)
def test_times_that_are_none_are_refused_and_leave_nothing(times):
    profile = Profile()
    profile.take("worker", 0, worker(10, 1, 1, 1))
    with pytest.raises((LookupError, TypeError, ValueError, ArithmeticError)):
        profile.take("worker", 0, times)
    profile.take("worker", 0, worker(20, 2, 2, 2))
    assert profile.bottleneck() == "workers wait for data: make reading cheaper, or read ahead"
    assert "worker 0" in profile.table()


def test_the_newest_of_a_replica_is_what_it_told_last():
    profile = Profile()
    assert profile.newest("ps", 0) == {}
    for second in (1, 2):
        profile.take("ps", 0, {**ps(second, second, 0.1), "memory": 1000.0 * second})
    assert (profile.newest("ps", 0)["memory"], profile.newest("ps", 1)) == (2000, {})
    assert [len(kept) for kept in profile.of_workers([0]).values()] == [0]


def test_resident_memory_is_read_from_the_system(tmp_path):
    statm = tmp_path / "statm"
    statm.write_text("5000 1000 300 1 0 2000 0\n")
    assert resident_bytes(statm) == 1000 * os.sysconf("SC_PAGE_SIZE")
    assert resident_bytes(tmp_path / "none") == 0
    statm.write_text("no number")
    assert resident_bytes(statm) == 0
