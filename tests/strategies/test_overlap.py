"""A worker that computes while its last push is under way: what it computes with, and when it waits."""

from collections import deque
from types import SimpleNamespace

import numpy as np
import pytest

from tfleet.optimizers import OptimizerSpec
from tfleet.spec.job import JobSpec
from tfleet.spec.layout import Layout, Variable
from tfleet.strategies import strategy
from tfleet.strategies.exchange import Step
from tfleet.wire.frames import Kind, Lease, Order, Take, pack_take, unpack_push

LAYOUT = Layout((Variable("w", (8,)),), (), ())


class Ps:
    """The connection to a ps that answers what the test has put ready."""

    local = False

    def __init__(self):
        self.asked = []
        self.answers = deque()

    def send(self, kind, meta, *payload):
        self.asked.append((kind, unpack_push(meta), [np.frombuffer(p, np.float32).copy() for p in payload]))

    def receive(self, view):
        value, take = self.answers.popleft()
        view[:] = np.full(len(view) // 4, value, np.float32).tobytes()
        return SimpleNamespace(kind=Kind.TAKE, meta=pack_take(take))

    def will_answer(self, value, *batches, step=0, order=Order.NONE):
        leases = tuple(Lease(0, batch, 1) for batch in batches)
        self.answers.append((value, Take(1, step, order, leases)))


def exchange_with(overlap):
    first = Ps()
    peers = SimpleNamespace(member=3, generation=1, first=first, others=[])
    spec = JobSpec(ps=1, overlap=overlap)
    return first, strategy("async").exchange(peers, LAYOUT, spec, OptimizerSpec("sgd", {}))


def push(exchange, batch, held):
    step = Step(np.full(8, batch, np.float32), np.zeros(0, np.float32), 0.0, np.zeros(2, np.float32), True)
    return exchange.push(step, 0.1, 20, 0, batch, 1, held)


def test_each_batch_is_computed_without_the_update_of_the_one_before():
    ps, exchange = exchange_with("always")
    ps.will_answer(10, 0, 1)
    assert len(exchange.pull().leases) == 2
    assert ps.asked[-1][1].want == 2
    used = []
    for batch in range(5):
        used.append(exchange.parameters[0])
        before = exchange.parameters.copy()
        if batch:
            ps.will_answer(10 + batch, batch + 1, step=batch)
        take = push(exchange, batch, held=1 if not batch else 0)
        assert [x.batch for x in take.leases] == ([batch + 1] if batch else [])
        assert np.all(before == used[-1]), "the parameters of a batch changed while it was computed"
    assert used == [10, 10, 11, 12, 13]
    assert [asked.step for _, asked, _ in ps.asked[1:]] == [0, 0, 1, 2, 3]  # of the parameters it was computed from
    assert [asked.sequence for _, asked, _ in ps.asked[1:]] == [1, 2, 3, 4, 5]


def test_without_another_lease_it_waits_for_its_own_answer():
    ps, exchange = exchange_with("always")
    ps.will_answer(10, 0)
    exchange.pull()
    ps.will_answer(11, 1, 2, step=1)
    take = push(exchange, 0, held=0)
    assert ps.asked[-1][1].want == 2
    assert ps.asked[-1][1].held == 0
    assert [x.batch for x in take.leases] == [1, 2]
    assert exchange.parameters[0] == 11
    assert exchange.step == 1


def test_an_order_ends_the_overlap():
    ps, exchange = exchange_with("always")
    ps.will_answer(10, 0, 1)
    exchange.pull()
    push(exchange, 0, held=1)
    ps.will_answer(11, order=Order.EVALUATE, step=1)
    ps.will_answer(12, step=2)
    take = push(exchange, 1, held=0)
    assert take.order is Order.EVALUATE
    assert ps.asked[-1][1].want == 0
    assert not take.leases
    assert exchange.parameters[0] == 12


def test_the_end_of_the_job_is_told_at_once():
    ps, exchange = exchange_with("always")
    ps.will_answer(10, 0, 1)
    exchange.pull()
    push(exchange, 0, held=1)
    ps.will_answer(11, order=Order.OVER)
    asked = len(ps.asked)
    assert push(exchange, 1, held=0).order is Order.OVER
    assert len(ps.asked) == asked


def test_who_leaves_wants_nothing():
    ps, exchange = exchange_with("always")
    ps.will_answer(10, 0, 1)
    exchange.pull()
    exchange.want = False
    ps.will_answer(11, step=1)
    assert not push(exchange, 0, held=1).leases
    assert ps.asked[-1][1].want == 0


def test_without_overlap_each_batch_has_the_update_of_the_one_before():
    ps, exchange = exchange_with("never")
    ps.will_answer(10, 0)
    exchange.pull()
    for batch in range(3):
        assert exchange.parameters[0] == 10 + batch
        ps.will_answer(11 + batch, batch + 1, step=batch + 1)
        assert [x.batch for x in push(exchange, batch, held=0).leases] == [batch + 1]


@pytest.mark.parametrize(
    ("given", "overlaps"),
    [
        ({}, True),
        ({"workers": 1}, False),
        ({"strategy": "sync"}, False),
        ({"strategy": "bounded"}, True),
        ({"overlap": "never"}, False),
        ({"overlap": "always", "workers": 1}, True),
    ],
)
def test_which_jobs_overlap(given, overlaps):
    assert JobSpec(**given).overlaps is overlaps
