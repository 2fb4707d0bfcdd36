"""A push counts once every ps has it, in whatever order the news comes."""

import itertools
from unittest.mock import sentinel

import pytest

from tfleet.server.arrivals import Arrivals
from tfleet.wire.frames import Have, Push


def push(member=1, sequence=1):
    return Push(1, member, sequence, 0.1, 8, 0, 0, 0, 1, 1, 0)


@pytest.mark.parametrize("order", list(itertools.permutations(["own", 1, 2])), ids=str)
def test_the_last_of_all_makes_it_count(order):
    arrivals, counted = Arrivals(2), []
    for number, who in enumerate(order):
        if who != "own":
            held = arrivals.note(who, Have(1, 1))
            counted += [number] if held else []
        elif arrivals.complete(1, 1):
            counted.append(number)
        else:
            arrivals.hold(sentinel.connection, push(), sentinel.metrics)
    assert counted == [2]


def test_what_was_held_comes_back_once():
    arrivals = Arrivals(1)
    arrivals.hold(sentinel.connection, push(), sentinel.metrics)
    assert arrivals.note(1, Have(1, 1)) == (sentinel.connection, push(), sentinel.metrics)
    assert arrivals.note(1, Have(1, 1)) is None


def test_an_earlier_push_is_not_this_one():
    arrivals = Arrivals(1)
    arrivals.note(1, Have(1, 1))
    assert not arrivals.complete(1, 2)
    arrivals.hold(sentinel.connection, push(sequence=2), sentinel.metrics)
    assert arrivals.note(1, Have(2, 2)) is None
    assert arrivals.note(1, Have(1, 2))


def test_a_worker_that_is_gone_counts_no_more():
    arrivals = Arrivals(1)
    arrivals.hold(sentinel.connection, push(), sentinel.metrics)
    arrivals.forget(1)
    assert arrivals.note(1, Have(1, 1)) is None


def test_with_one_ps_every_push_counts_at_once():
    assert Arrivals(0).complete(1, 1)
