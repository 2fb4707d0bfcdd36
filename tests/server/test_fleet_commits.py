"""Commits in simulation: one cut through all partitions while pushes go on, full disks, resuming elsewhere."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from simulated_fleet import Fleet, acknowledged, die
from simulated_worker import Counting, Linear

from tfleet.spec.layout import CHUNK

TASK = Counting(items=50, batch=4)
STEPS = 24
EACH = {"every_seconds": 0, "every_steps": 2, "keep": 100}


def counted(fleet, manifest):
    """Returns whether every partition holds just what the ledger counts as done."""
    expected = np.zeros(CHUNK, int)
    expected[list(acknowledged(manifest.ledger, TASK.batches))] = 1
    return (TASK.counts(fleet.committed(manifest)) == expected).all()


def test_pushes_go_on_while_a_commit_is_written(tmp_path):
    with Fleet(tmp_path, TASK, ps=3, workers=3, steps=0) as fleet:
        fleet.start_all()
        fleet.run(until=lambda: fleet.job.step >= 10)
        finish, fleet._finish_thread = fleet._finish_thread, lambda work: None  # a disk that does not answer
        fleet.job.checkpointing.want()
        fleet.run(until=lambda: len(fleet.loop.threads) == 3)
        before = fleet.job.step
        fleet.run(until=lambda: fleet.job.step >= before + 20)
        assert fleet.job.checkpointing.commits.last["number"] == 0
        fleet._finish_thread = finish
        fleet.run(until=lambda: fleet.job.checkpointing.commits.last["number"] == 1)
        manifest = fleet.store.get(1)
        assert before - 3 <= manifest.step <= before
        assert counted(fleet, manifest)


@given(st.integers(0, 2**32), st.integers(2, 3), st.integers(2, 4), st.integers(0, 60))
@settings(max_examples=30, deadline=None, derandomize=True)
def test_a_worker_that_dies_while_a_cut_is_sought_does_not_hold_it_up(tmp_path_factory, seed, ps, workers, after):
    with Fleet(tmp_path_factory.mktemp("run"), TASK, seed, ps=ps, workers=workers, steps=0) as fleet:
        fleet.start_all()
        fleet.run(until=lambda: fleet.job.step >= 5)
        fleet.job.checkpointing.want()
        for _ in range(after):
            fleet.step()
        die(fleet)
        fleet.run(until=lambda: fleet.job.checkpointing.commits.last["number"] == 1)
        manifest = fleet.store.get(1)
        expected = np.zeros(CHUNK, int)
        expected[list(acknowledged(manifest.ledger, TASK.batches))] = 1
        wrong = (TASK.counts(fleet.committed(manifest)) != expected).any(0).sum()
        assert wrong <= 1
        before = fleet.job.step
        fleet.run(until=lambda: fleet.job.step >= before + 10)  # nothing is held any more


@pytest.mark.parametrize("strategy", ["async", "sync"])
@pytest.mark.parametrize("full", [0, 1, 2])
def test_a_full_disk_is_noted_and_training_goes_on(tmp_path, strategy, full):
    with Fleet(tmp_path, TASK, ps=3, workers=2, steps=STEPS, strategy=strategy, checkpoint=EACH) as fleet:
        fleet.start_all()
        fleet.run(until=lambda: fleet.job.step >= 5)
        fleet.disks[full].full = True
        noted = len(fleet.job.notes)
        fleet.run(until=lambda: len(fleet.job.notes) > noted)
        failed = fleet.job.step
        fleet.run(until=lambda: fleet.job.step >= failed + 10)
        (note,) = fleet.job.notes[noted:]  # once, though other commits have failed since
        assert "No space left on device; make room or repair the disk" in note
        assert "training goes on, the commit is tried again" in note
        good = fleet.job.checkpointing.commits.last["number"]
        assert fleet.store.newest()[0].number == good
        fleet.disks[full].full = False
        fleet.run()
        assert fleet.job.phase == "done"
        assert fleet.job.notes[noted + 1].startswith("commits are made again, since commit ")
        last = fleet.store.newest()[0]
        assert (last.step, last.number > good) == (STEPS, True)


@pytest.mark.parametrize("where", ["copy", "write_part"])
@pytest.mark.parametrize("index", [0, 1])
def test_a_ps_without_memory_for_a_copy_is_noted_and_training_goes_on(tmp_path, monkeypatch, index, where):
    def short(*_, **__):
        raise MemoryError("Unable to allocate 3.00 GiB")

    with Fleet(tmp_path, TASK, ps=2, workers=2, steps=STEPS, checkpoint=EACH) as fleet:
        fleet.start_all()
        fleet.run(until=lambda: fleet.job.step >= 5)
        process = fleet.processes[index]
        target = process.replica.partition if where == "copy" else process.store
        with monkeypatch.context() as patch:
            patch.setattr(target, where, short)
            noted = len(fleet.job.notes)
            fleet.run(until=lambda: len(fleet.job.notes) > noted)
        why = f"ps {index}: this ps is out of memory: Unable to allocate 3.00 GiB; give more ps, or more memory"
        assert fleet.job.notes[noted].startswith(why)
        assert fleet.job.notes[noted].endswith("training goes on, the commit is tried again")
        fleet.run()
        assert fleet.job.notes[noted + 1].startswith("commits are made again, since commit ")
        assert (fleet.job.phase, fleet.store.newest()[0].step) == ("done", STEPS)


@pytest.mark.parametrize("full", [0, 1])
def test_a_disk_that_is_full_at_the_end_fails_the_job(tmp_path, full):
    with Fleet(tmp_path, TASK, ps=2, workers=2, steps=STEPS) as fleet:
        fleet.start_all()
        fleet.run(until=lambda: fleet.job.step >= 5)
        fleet.disks[full].full = True
        fleet.run()
        assert (fleet.job.phase, fleet.job.ending.over["exit_code"]) == ("failed", 1)
        assert "No space left on device" in fleet.job.ending.reason
        assert fleet.store.newest()[0].number == 0


@pytest.mark.parametrize("full", [0, 1])
def test_a_disk_that_has_room_again_soon_after_the_end_is_waited_for(tmp_path, full):
    with Fleet(tmp_path, TASK, ps=2, workers=2, steps=STEPS) as fleet:
        fleet.start_all()
        fleet.run(until=lambda: fleet.job.step >= 5)
        fleet.disks[full].full = True
        fleet.run(until=lambda: fleet.job.notes)
        (note,) = fleet.job.notes
        assert "No space left on device" in note
        assert note.endswith("; the final commit is tried again for 60 s")
        again = fleet.loop.now() + 30
        fleet.run(until=lambda: fleet.loop.now() > again)
        assert fleet.job.phase == "finalising"
        fleet.disks[full].full = False
        fleet.run()
        assert fleet.job.ending.over == {"phase": "done", "exit_code": 0, "reason": ""}
        assert fleet.job.notes == [note]
        assert fleet.store.newest()[0].step == STEPS


def test_a_disk_that_is_full_at_the_start_fails_the_job(tmp_path):
    with Fleet(tmp_path, TASK, ps=2, workers=2, steps=STEPS) as fleet:
        fleet.start_all()
        fleet.disks[1].full = True
        fleet.run()
        assert (fleet.job.phase, fleet.job.ending.over["exit_code"]) == ("failed", 1)
        assert fleet.job.ending.reason.startswith("ps 1: commit 0 could not be written")
        assert all(worker.ended.startswith("1: ") for worker in fleet.workers)


@given(
    st.integers(0, 2**32), st.integers(1, 3), st.integers(1, 3), st.integers(1, 4), st.sampled_from(["async", "sync"])
)
@settings(max_examples=30, deadline=None, derandomize=True)
def test_a_job_goes_on_from_a_commit_with_another_number_of_ps(tmp_path_factory, seed, ps, then, workers, strategy):
    folder = tmp_path_factory.mktemp("run")
    spec = {"strategy": strategy, "steps": STEPS, "checkpoint": EACH}
    if strategy == "sync":
        spec["replicas_to_aggregate"] = 2
    with Fleet(folder, TASK, seed, ps=ps, workers=2, **spec) as fleet:
        fleet.start_all()
        fleet.run(until=lambda: fleet.job.step >= 13)
        first = fleet.job
    # All of it is killed here; what was committed is there.
    with Fleet(folder, TASK, seed + 1, resume=True, ps=then, workers=workers, **spec) as fleet:
        assert fleet.job.generation == first.generation + 1
        fleet.start_all()
        fleet.run()
        assert (fleet.job.phase, fleet.job.step) == ("done", STEPS)
        assert any(note.startswith("goes on from commit ") for note in fleet.job.notes)
        if strategy == "async":
            assert (TASK.counts(fleet.parameters())[:, :STEPS] == 1).all()
            assert fleet.job.state.tolist() == [STEPS, STEPS]
        assert {ps.partition.iteration for ps in fleet.ps} == {STEPS}
        assert fleet.store.newest()[0].step == STEPS


def test_a_sync_job_that_was_killed_comes_to_the_same_parameters(tmp_path):
    task = Linear(items=50, batch=4)
    spec = {"strategy": "sync", "steps": STEPS, "checkpoint": EACH}
    with Fleet(tmp_path / "whole", task, ps=2, workers=2, **spec) as fleet:
        fleet.start_all()
        whole = fleet.run().parameters()
    with Fleet(tmp_path / "halves", task, 1, ps=2, workers=2, **spec) as fleet:
        fleet.start_all()
        fleet.run(until=lambda: fleet.job.step >= 9)
    with Fleet(tmp_path / "halves", task, 2, resume=True, ps=3, workers=4, **spec) as fleet:
        fleet.start_all()
        halves = fleet.run().parameters()
        assert fleet.job.ledger.aggregate == 2
    assert (np.abs(whole - halves) <= 1e-5 * np.abs(whole) + 1e-6).all()


def test_a_finished_job_is_finalised_again_when_it_is_resumed(tmp_path):
    for resume in (False, True):
        with Fleet(tmp_path, TASK, resume=resume, ps=2, workers=1, steps=STEPS) as fleet:
            fleet.start_all()
            fleet.run()
            assert (fleet.job.phase, fleet.job.step) == ("done", STEPS)
            assert fleet.job.ending.export == str(fleet.store.newest()[0].number)


def test_resuming_with_other_steps_of_aggregation_is_refused(tmp_path):
    spec = {"ps": 1, "workers": 2, "strategy": "sync", "checkpoint": EACH}
    with Fleet(tmp_path, TASK, steps=6, **spec) as fleet:
        fleet.start_all()
        fleet.run()
    with Fleet(tmp_path, TASK, resume=True, steps=12, replicas_to_aggregate=3, **spec) as fleet:
        fleet.start_all()
        fleet.run()
        assert fleet.job.ending.over["exit_code"] == 2
        assert "was trained with replicas_to_aggregate 2, this job has 3" in fleet.job.ending.reason


def test_resuming_with_another_model_is_refused(tmp_path):
    with Fleet(tmp_path, TASK, ps=1, workers=1, steps=6) as fleet:
        fleet.start_all()
        fleet.run()
    with Fleet(tmp_path, Counting(50, 4, parameters=CHUNK), resume=True, ps=1, workers=2, steps=12) as fleet:
        fleet.start_all()
        fleet.run()
        assert fleet.job.ending.over["exit_code"] == 2
        assert "w has shape [1024] instead of [3072]" in fleet.job.ending.reason
        assert all(worker.ended.startswith("2: ") for worker in fleet.workers)


def test_a_damaged_newest_commit_falls_back_to_the_one_before(tmp_path):
    with Fleet(tmp_path, TASK, ps=2, workers=2, steps=STEPS, checkpoint=EACH) as fleet:
        fleet.start_all()
        fleet.run(until=lambda: fleet.job.checkpointing.commits.last and fleet.job.checkpointing.commits.busy < 0)
        fleet.run(until=lambda: fleet.job.step >= 15)
        fleet.run(until=lambda: fleet.job.checkpointing.commits.busy < 0)
        newest = fleet.store.newest()[0]
    path = fleet.store.directory / newest.parts[1].name
    path.write_bytes(path.read_bytes()[:-1])
    with Fleet(tmp_path, TASK, resume=True, ps=2, workers=2, steps=STEPS) as fleet:
        assert any(f"commit {newest.number}" in note for note in fleet.job.notes)
        fleet.start_all()
        fleet.run()
        assert (TASK.counts(fleet.parameters())[:, :STEPS] == 1).all()


def test_a_replaced_coordinator_cannot_commit_any_more(tmp_path):
    with Fleet(tmp_path, TASK, ps=1, workers=1, steps=STEPS) as old:
        old.start_all()
        old.run(until=lambda: old.job.step >= 5)
        with Fleet(tmp_path, TASK, resume=True, ps=1, workers=1, steps=STEPS):
            old.run()
        assert old.job.phase == "failed"
        assert "generation 2 of this job has begun" in old.job.ending.reason
