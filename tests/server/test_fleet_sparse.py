"""Async jobs with a sparse table in simulation: rows count once like the pushes that they belong to, commits too."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from simulated_fleet import Fleet, acknowledged, die
from simulated_worker import Counting, SparseCounting

from tfleet.spec.layout import CHUNK
from tfleet.wire.frames import Kind, Order, unpack_take
from tfleet.wire.rows import Rows, pack_rows

STEPS = 24
TASK = SparseCounting(items=50, batch=4)

seeds = st.integers(0, 2**32)
deaths = st.lists(st.integers(0, 900), max_size=4, unique=True)


def killed(fleet):
    return sum(worker.ended == "killed" for worker in fleet.workers)


def check_commit(fleet, manifest, deaths):
    """Table, vector and ledger hold the same pushes, but for one partial update a death."""
    table, rest = TASK.split(fleet.committed(manifest))
    counts = TASK.counts(rest)
    expected = np.zeros(CHUNK, int)
    expected[list(acknowledged(manifest.ledger, TASK.batches))] = 1
    allowed = deaths if fleet.spec.ps > 1 else 0
    assert (counts != expected).any(0).sum() <= allowed
    assert (table != expected[: TASK.third, None]).any((0, 2)).sum() <= allowed
    for low, high in fleet.job.plan.layout.bounds(fleet.spec.ps):
        (part,) = [part for part in manifest.parts if part.low == low]
        assert part.high == high


@given(
    seeds,
    st.integers(1, 3),
    st.integers(1, 4),
    st.sampled_from([0, 1, 3]),
    deaths,
    st.sampled_from(["async", "bounded"]),
)
@settings(max_examples=60, deadline=None, derandomize=True)
def test_rows_are_applied_once_whoever_dies_anywhere(tmp_path_factory, seed, ps, workers, every, deaths, strategy):
    checkpoint = {"every_seconds": 0, "every_steps": every, "keep": 100}
    folder = tmp_path_factory.mktemp("run")
    spec = {"ps": ps, "workers": workers, "steps": STEPS, "checkpoint": checkpoint, "strategy": strategy}
    with Fleet(folder, TASK, seed, **spec) as fleet:
        fleet.start_all()
        fleet.run(at=dict.fromkeys(deaths, die))
        assert fleet.job.phase == "done"
        assert fleet.job.ledger.step == STEPS
        assert fleet.job.partial_updates <= (killed(fleet) if ps > 1 else 0)
        manifest = fleet.store.get(fleet.store.numbers()[-1])
        table, rest = TASK.split(fleet.committed(manifest))
        wrong = (TASK.counts(rest)[:, :STEPS] != 1).any(0) | (table[:, :STEPS] != 1).any((0, 2))
        assert wrong.sum() <= fleet.job.partial_updates
        assert not table[:, STEPS:].any()
        for number in fleet.store.numbers():
            check_commit(fleet, fleet.store.get(number), killed(fleet))
        assert not any(ps._rows._senders or ps._rows._come or ps._receiving for ps in fleet.ps)


def between(fleet, worker):
    """The worker has sent rows to ps 1, and not the push."""
    if worker.sequence != 3:
        return False
    pipe = worker.lines[1].sock.outgoing.bytes
    return len(pipe) > 3 and pipe[3] == Kind.ROWS


def test_rows_whose_push_never_comes_are_dropped(tmp_path):
    with Fleet(tmp_path, TASK, ps=3, workers=2, steps=STEPS) as fleet:
        victim, _ = fleet.start_all()
        fleet.run(until=lambda: between(fleet, victim))
        member = victim.member
        fleet.settle_reads(victim.lines[1])
        assert member in fleet.ps[1]._rows._come
        victim.end("killed")
        fleet.settle_links(victim)
        assert member not in fleet.ps[1]._rows._come
        fleet.run()
        assert (fleet.job.phase, fleet.job.ledger.step, fleet.job.partial_updates) == ("done", STEPS, 0)
        table, _ = TASK.split(fleet.committed(fleet.store.get(fleet.store.numbers()[-1])))
        assert (table[:, :STEPS] == 1).all()


def test_a_fenced_worker_gets_no_rows_and_brings_none(tmp_path):
    with Fleet(tmp_path, TASK, ps=3, workers=2, steps=STEPS) as fleet:
        slow, _ = fleet.start_all()
        fleet.run(until=lambda: between(fleet, slow))
        slow.stopped = True
        held = bytes(slow.lines[1].sock.outgoing.bytes)
        slow.lines[1].sock.outgoing.bytes.clear()
        fleet.job.remove(fleet.job.members.living[slow.member], "lost", "worker 0 is dropped: silent")
        while slow.member not in fleet.ps[1]._fenced:
            fleet.step(only_reads=True)
        line = slow.lines[1]
        line.sock.outgoing.bytes += held
        line.send(Kind.FETCH, pack_rows(Rows(slow.generation, slow.member, 0, (1,))), np.zeros(1, np.int64).tobytes())
        fleet.settle_reads(line)
        assert not fleet.ps[1]._rows._come
        assert unpack_take(line.take().meta).order is Order.REJOIN
        slow.end("killed")
        fleet.run()
        assert fleet.job.ledger.step == STEPS


@pytest.mark.parametrize("every", [1, 5])
def test_goes_on_from_a_commit_with_another_number_of_ps_and_dense(tmp_path, every):
    checkpoint = {"every_seconds": 0, "every_steps": every, "keep": 100}
    with Fleet(tmp_path, TASK, ps=3, workers=2, steps=STEPS // 2, checkpoint=checkpoint) as fleet:
        fleet.start_all()
        fleet.run()
        assert fleet.job.phase == "done"
    with Fleet(tmp_path, TASK, resume=True, ps=2, workers=1, steps=STEPS, checkpoint=checkpoint) as fleet:
        fleet.start_all()
        fleet.run()
        assert (fleet.job.phase, fleet.job.ledger.step) == ("done", STEPS)
        manifest = fleet.store.get(fleet.store.numbers()[-1])
        table, rest = TASK.split(fleet.committed(manifest))
        assert (table[:, :STEPS] == 1).all()
        assert (TASK.counts(rest)[:, :STEPS] == 1).all()


def test_workers_that_disagree_on_what_is_sparse_are_refused(tmp_path):
    class Dense(SparseCounting):
        @property
        def plan(self):
            plan = super().plan
            plan.layout.__dict__["sparse"] = ()
            return plan

    dense = Dense(items=50, batch=4)
    with Fleet(
        tmp_path, TASK, ps=1, workers=2, steps=STEPS, task_of=lambda worker: dense if worker.index else TASK
    ) as fleet:
        fleet.start_all()
        fleet.run()
        assert fleet.job.phase == "failed"
        assert "only touched rows travel are" in fleet.job.ending.reason


def test_a_table_alone_leaves_other_tasks_as_they_are():
    assert Counting(items=50, batch=4).plan.layout.tables == ()
