"""Sync jobs in simulation: a step is a fixed set of batches, whoever computes them."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from simulated_fleet import Fleet, die
from simulated_worker import Counting, Linear

from tfleet.spec.layout import CHUNK

STEPS = 12
ITEMS, BATCH = 50, 4
TASK = Counting(ITEMS, BATCH)

seeds = st.integers(0, 2**32)
deaths = st.lists(st.integers(0, 700), max_size=4, unique=True)


def applied(steps, aggregate):
    """Returns the weight with which each batch counts after so many steps."""
    weights = np.zeros(CHUNK)
    in_epoch = -(-TASK.batches // aggregate)
    for step in range(steps):
        epoch, number = divmod(step, in_epoch)
        batches = range(number * aggregate, min((number + 1) * aggregate, TASK.batches))
        samples = np.array([len(TASK.rows(epoch, batch)) for batch in batches], float)
        weights[[epoch * TASK.batches + batch for batch in batches]] = samples / samples.sum()
    return weights


def serial(aggregate, folder, steps=STEPS):
    """Returns what one worker with `aggregate` times the batch comes to."""
    with Fleet(folder, Linear(ITEMS, BATCH * aggregate), ps=1, workers=1, strategy="sync", steps=steps) as fleet:
        fleet.start_all()
        return fleet.run().parameters()


@given(seeds, st.integers(1, 3), st.integers(1, 4), st.integers(0, 4), deaths)
@settings(max_examples=40, deadline=None, derandomize=True)
def test_every_batch_of_a_step_counts_once_with_its_weight(tmp_path_factory, seed, ps, workers, aggregate, deaths):
    checkpoint = {"every_seconds": 0, "every_steps": 2, "keep": 100}
    spec = {"ps": ps, "workers": workers, "replicas_to_aggregate": aggregate, "steps": STEPS, "checkpoint": checkpoint}
    with Fleet(tmp_path_factory.mktemp("run"), TASK, seed, strategy="sync", **spec) as fleet:
        fleet.start_all()
        fleet.run(at=dict.fromkeys(deaths, die))
        assert fleet.job.phase == "done"
        aggregate = aggregate or workers
        np.testing.assert_allclose(
            fleet.parameters().reshape(-1, CHUNK), [applied(STEPS, aggregate)] * 3, rtol=0, atol=1e-6
        )
        assert {ps.partition.iteration for ps in fleet.ps} == {fleet.job.ledger.step} == {STEPS}
        for number in fleet.store.numbers():
            manifest = fleet.store.get(number)
            expected = [applied(manifest.step, aggregate)] * 3
            np.testing.assert_allclose(fleet.committed(manifest).reshape(-1, CHUNK), expected, rtol=0, atol=1e-6)
            np.testing.assert_allclose(fleet.store.read_state(manifest)[0], manifest.step, rtol=1e-6)


@given(seeds, st.integers(1, 3), st.integers(1, 4), st.integers(1, 4))
@settings(max_examples=25, deadline=None, derandomize=True)
def test_many_workers_equal_one_with_a_larger_batch(tmp_path_factory, seed, ps, workers, aggregate):
    spec = {"ps": ps, "workers": workers, "replicas_to_aggregate": aggregate, "steps": STEPS}
    with Fleet(tmp_path_factory.mktemp("run"), Linear(ITEMS, BATCH), seed, strategy="sync", **spec) as fleet:
        fleet.start_all()
        parameters = fleet.run().parameters()
    alone = serial(aggregate, tmp_path_factory.mktemp("serial"))
    assert (np.abs(parameters - alone) <= 1e-5 * np.abs(alone) + 1e-6).all()
    assert np.abs(alone).max() > 0.1


@given(seeds, st.integers(1, 3), st.integers(1, 4), deaths)
@settings(max_examples=60, deadline=None, derandomize=True)
def test_so_do_workers_that_die_and_others_that_join(tmp_path_factory, seed, ps, workers, deaths):
    spec = {"ps": ps, "workers": workers, "steps": STEPS, "checkpoint": {"every_seconds": 0, "every_steps": 3}}
    with Fleet(tmp_path_factory.mktemp("run"), Linear(ITEMS, BATCH), seed, strategy="sync", **spec) as fleet:
        fleet.start_all()
        parameters = fleet.run(at=dict.fromkeys(deaths, die)).parameters()
    alone = serial(workers, tmp_path_factory.mktemp("serial"))
    assert (np.abs(parameters - alone) <= 1e-5 * np.abs(alone) + 1e-6).all()


def test_a_copy_of_an_overdue_batch_lets_the_job_go_on(tmp_path):
    with Fleet(tmp_path, Linear(ITEMS, BATCH), ps=2, workers=2, strategy="sync", steps=STEPS) as fleet:
        slow, _ = fleet.start_all()
        fleet.run(until=lambda: slow.sequence == 2)
        slow.stopped = True
        fleet.run(until=lambda: fleet.job.ledger.copies == 1 and fleet.job.step >= 4)
        assert fleet.job.ledger.copies >= 1
        slow.stopped = False  # it wakes up: its late batch is refused, and it goes on
        fleet.run()
        assert fleet.job.phase == "done"
        assert fleet.job.ledger.duplicates >= 1
        assert slow.ended == "over"
        alone = serial(2, tmp_path / "serial")
        assert (np.abs(fleet.parameters() - alone) <= 1e-5 * np.abs(alone) + 1e-6).all()


@pytest.mark.parametrize(("workers", "aggregate"), [(1, 3), (4, 2), (2, 5)])
def test_fewer_or_more_workers_than_batches_in_a_step(tmp_path, workers, aggregate):
    spec = {"workers": workers, "replicas_to_aggregate": aggregate, "epochs": 2, "steps": -1}
    with Fleet(tmp_path, TASK, ps=2, strategy="sync", **spec) as fleet:
        fleet.start_all()
        fleet.run()
        steps = 2 * -(-TASK.batches // aggregate)
        assert fleet.job.ledger.counts() == {"epoch": 2, "acknowledged": 26, "leased": 0, "returned": 0}
        assert fleet.job.ledger.step == steps
        np.testing.assert_allclose(fleet.parameters()[:CHUNK], applied(steps, aggregate), rtol=0, atol=1e-6)


@pytest.mark.parametrize("how", ["stop", "interrupt"])
@pytest.mark.parametrize("seed", range(5))
def test_a_step_that_has_begun_is_finished_before_the_end(tmp_path, seed, how):
    with Fleet(tmp_path, TASK, seed, ps=2, workers=3, strategy="sync", steps=0) as fleet:
        fleet.start_all()
        fleet.run(until=lambda: fleet.job.step >= 5 and not fleet.job.ledger.at_boundary)
        step = fleet.job.step
        fleet.client("end", how=how, reason="")
        fleet.run()
        assert fleet.job.step == step + 1
        assert fleet.job.checkpointing.commits.last["step"] == step + 1
        np.testing.assert_allclose(fleet.parameters()[:CHUNK], applied(step + 1, 3), rtol=0, atol=1e-6)
