"""Async jobs in simulation: each batch counts once on every partition, whoever dies and whenever, commits too."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from simulated_fleet import Fleet, acknowledged, die
from simulated_worker import Counting

from tfleet.spec.layout import CHUNK

STEPS = 24
TASK = Counting(items=50, batch=4)

seeds = st.integers(0, 2**32)
deaths = st.lists(st.integers(0, 900), max_size=4, unique=True)


def killed(fleet):
    return sum(worker.ended == "killed" for worker in fleet.workers)


def check_commit(fleet, manifest, deaths):
    """Every partition, the state and the ledger hold the same pushes, but for one partial update a death."""
    counts = TASK.counts(fleet.committed(manifest))
    expected = np.zeros(CHUNK, int)
    expected[list(acknowledged(manifest.ledger, TASK.batches))] = 1
    assert expected.sum() == manifest.step
    assert (counts != expected).any(0).sum() <= (deaths if fleet.spec.ps > 1 else 0)
    state, frozen = fleet.store.read_state(manifest)
    assert state.tolist() == [counts[0].sum()] * 2
    assert frozen.tolist() == [3, 4]


@given(seeds, st.integers(1, 3), st.integers(1, 4), st.sampled_from([0, 1, 3]))
@settings(max_examples=30, deadline=None, derandomize=True)
def test_every_batch_is_applied_once_by_every_partition(tmp_path_factory, seed, ps, workers, every):
    checkpoint = {"every_seconds": 0, "every_steps": every, "keep": 100}
    folder = tmp_path_factory.mktemp("run")
    with Fleet(folder, TASK, seed, ps=ps, workers=workers, steps=STEPS, checkpoint=checkpoint) as fleet:
        fleet.start_all()
        fleet.run()
        assert fleet.job.phase == "done"
        assert {worker.ended for worker in fleet.workers} == {"over"}
        assert fleet.job.ledger.counts() == {"epoch": 1, "acknowledged": STEPS, "leased": 0, "returned": 0}
        assert sum(row["steps"] for row in fleet.job.members.describe()) == STEPS
        counts = TASK.counts(fleet.parameters())
        assert (counts[:, :STEPS] == 1).all()
        assert counts.sum() == 3 * STEPS
        assert fleet.job.state.tolist() == [STEPS, STEPS]
        assert {ps.partition.iteration for ps in fleet.ps} == {STEPS}
        for number in fleet.store.numbers():
            check_commit(fleet, fleet.store.get(number), deaths=0)
        assert fleet.job.checkpointing.commits.last["step"] == STEPS


@given(seeds, st.integers(1, 3), st.integers(1, 4), st.sampled_from([1, 3]), deaths)
@settings(max_examples=60, deadline=None, derandomize=True)
def test_workers_that_die_anywhere_cost_no_batch(tmp_path_factory, seed, ps, workers, every, deaths):
    checkpoint = {"every_seconds": 0, "every_steps": every, "keep": 100}
    folder = tmp_path_factory.mktemp("run")
    with Fleet(folder, TASK, seed, ps=ps, workers=workers, steps=STEPS, checkpoint=checkpoint) as fleet:
        fleet.start_all()
        fleet.run(at=dict.fromkeys(deaths, die))
        assert fleet.job.phase == "done"
        assert fleet.job.ledger.step == STEPS
        wrong = (TASK.counts(fleet.parameters())[:, :STEPS] != 1).any(0).sum()
        assert wrong <= fleet.job.partial_updates <= (killed(fleet) if ps > 1 else 0)
        assert TASK.counts(fleet.parameters())[:, STEPS:].sum() == 0
        for number in fleet.store.numbers():
            check_commit(fleet, fleet.store.get(number), killed(fleet))


def test_a_worker_that_dies_between_its_pushes_leaves_one_counted_partial_update(tmp_path):
    with Fleet(tmp_path, TASK, ps=2, workers=2, steps=STEPS) as fleet:
        victim, _ = fleet.start_all()
        fleet.run(until=lambda: victim.sequence == 3 and victim.lines[1].sock.outgoing.bytes)
        assert not victim.lines[0].sock.outgoing.bytes  # it has pushed to ps 1, not to ps 0
        fleet.settle_reads(victim.lines[1])
        victim.end("killed")
        fleet.run()
        assert (fleet.job.phase, fleet.job.partial_updates) == ("done", 1)
        assert fleet.job.ledger.step == STEPS
        counts = TASK.counts(fleet.parameters())
        assert (counts[0, :STEPS] == 1).all()  # ps 0, which counts
        assert sorted(counts[1, :STEPS]) == [1] * (STEPS - 1) + [2]  # ps 1 has one batch of the dead worker too
        row = next(row for row in fleet.job.members.describe() if row["index"] == victim.index)
        assert (row["state"], row["steps"]) == ("lost", 2)
        assert any("worker 0 is lost" in note for note in fleet.job.notes)
    with Fleet(tmp_path, TASK, ps=2, workers=1, steps=STEPS + 1, resume=True) as fleet:
        assert fleet.job.partial_updates == 1  # the parameters have it still


def test_a_late_push_of_a_fenced_worker_is_refused(tmp_path):
    with Fleet(tmp_path, TASK, ps=2, workers=2, steps=STEPS) as fleet:
        slow, _ = fleet.start_all()
        fleet.run(until=lambda: slow.pushing and slow.sequence == 2 and slow.lines[1].sock.outgoing.bytes)
        held = bytes(slow.lines[1].sock.outgoing.bytes)
        slow.lines[1].sock.outgoing.bytes.clear()
        fleet.job.remove(fleet.job.members.living[slow.member], "lost", "worker 0 is dropped: silent")
        while slow.member not in fleet.ps[1]._fenced:
            fleet.step(only_reads=True)
        before = fleet.ps[1].partition.iteration
        slow.lines[1].sock.outgoing.bytes += held
        fleet.settle_reads(slow.lines[1])
        assert fleet.ps[1].partition.iteration == before
        assert slow.lines[1].ready  # the answer, which tells it to join again
        assert [ps.late for ps in fleet.ps] == [0, 1]
        fleet.run()
        assert len({worker.member for worker in fleet.workers}) == 2
        assert fleet.job.ledger.step == STEPS
        counts = TASK.counts(fleet.parameters())
        assert (counts[1, :STEPS] == 1).all()


def test_a_push_that_comes_twice_is_applied_once(tmp_path):
    with Fleet(tmp_path, TASK, ps=2, workers=1, steps=STEPS) as fleet:
        (worker,) = fleet.start_all()
        fleet.run(until=lambda: worker.sequence == 3 and worker.lines[1].sock.outgoing.bytes)
        push = bytes(worker.lines[1].sock.outgoing.bytes)
        fleet.settle_reads(worker.lines[1])
        before = fleet.ps[1].partition.iteration
        worker.lines[1].sock.outgoing.bytes += push
        fleet.settle_reads(worker.lines[1])
        assert fleet.ps[1].partition.iteration == before
        worker.lines[1].take()  # one answer for each
        fleet.run()
        assert (TASK.counts(fleet.parameters())[:, :STEPS] == 1).all()


def test_frames_of_another_generation_are_refused(tmp_path):
    with Fleet(tmp_path, TASK, ps=2, workers=1, steps=STEPS) as fleet:
        (worker,) = fleet.start_all()
        fleet.run(until=lambda: worker.sequence == 3)
        worker.generation -= 1
        first = worker.member
        fleet.run()
        assert fleet.job.phase == "done"
        assert worker.member > first  # it was told to join again
        assert (TASK.counts(fleet.parameters())[:, :STEPS] == 1).all()


def test_a_silent_worker_in_the_middle_of_a_push_does_not_keep_its_buffer(tmp_path):
    with Fleet(tmp_path, TASK, ps=2, workers=5, steps=STEPS) as fleet:
        fleet.start_all()
        # Five workers stop in the middle of a frame to ps 1, which has four buffers.
        fleet.run(until=lambda: fleet.job.phase == "training" and fleet.job.step >= 1)
        stopped = fleet.workers[:4]
        for worker in stopped:
            fleet.run(until=lambda worker=worker: len(worker.lines[1].sock.outgoing.bytes) > 4000, tick=0)
            del worker.lines[1].sock.outgoing.bytes[-100:]
            worker.stopped = True
            fleet.settle_reads(worker.lines[1])
        assert len(fleet.ps[1]._receiving) == 4
        for worker in stopped:
            fleet.job.remove(fleet.job.members.living[worker.member], "lost", "silent")
        fleet.run(until=lambda: fleet.job.phase == "done")
        assert fleet.job.ledger.step == STEPS


@pytest.mark.parametrize("ps", [1, 2])
def test_a_job_without_end_is_stopped_after_the_leased_batches(tmp_path, ps):
    with Fleet(tmp_path, TASK, ps=ps, workers=3, steps=0) as fleet:
        fleet.start_all()
        fleet.run(until=lambda: fleet.job.step >= 30)
        kind, _ = fleet.client("end", how="stop", reason="")
        assert kind.name == "RESULT"
        fleet.run()
        assert fleet.job.ending.over == {"phase": "stopped", "exit_code": 0, "reason": ""}
        assert fleet.job.step <= 30 + 2 * 3
        done = acknowledged(fleet.job.ledger.to_json(), TASK.batches)
        assert len(done) == fleet.job.step
        assert (TASK.counts(fleet.parameters())[:, list(done)] == 1).all()
        assert fleet.job.checkpointing.commits.last["step"] == fleet.job.step
