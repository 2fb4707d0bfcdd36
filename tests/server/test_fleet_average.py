"""Average jobs in simulation: what a round comes to does not depend on who computed its runs."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from simulated_fleet import Fleet, die, die_ps
from simulated_worker import Counting, Linear

from tfleet.optimizers import OptimizerSpec, build
from tfleet.spec.layout import CHUNK

ITEMS, BATCH = 50, 4
COUNTING = Counting(ITEMS, BATCH)
BATCHES = COUNTING.batches
EACH = {"every_seconds": 0, "every_steps": 1, "keep": 100}

seeds = st.integers(0, 2**32)
deaths = st.lists(st.integers(0, 900), max_size=4, unique=True)


def rounds_of(rounds, runs, local_steps):
    """Returns for each round its runs, each a list of (epoch, batch)."""
    made, epoch, left = [], 0, list(range(BATCHES))
    for _ in range(rounds):
        size = min(len(left), runs * local_steps or len(left))
        part, left = left[:size], left[size:]
        count = min(runs, size)
        cuts = [size * number // count for number in range(count + 1)]
        made.append([[(epoch, b) for b in part[low:high]] for low, high in itertools.pairwise(cuts)])
        if not left:
            epoch, left = epoch + 1, list(range(BATCHES))
    return made


def samples_of(task, run):
    return sum(len(task.rows(*key)) for key in run)


def weights_after(made):
    """Returns with which weight each batch counts after these rounds, and what the state has come to."""
    weights, state = np.zeros(CHUNK), 0.0
    for runs in made:
        samples = np.array([samples_of(COUNTING, run) for run in runs], float)
        for run, share in zip(runs, samples / samples.sum(), strict=True):
            weights[[epoch * BATCHES + batch for epoch, batch in run]] = share
            state += share * len(run)
    return weights, state


def alone(task, made):
    """Returns parameters and slots that one process comes to which does all runs itself, in double sums."""
    parameters, updates = task.initial(), 0
    optimizer = build(task.optimizer)
    slots = {name: np.zeros(task.parameters, np.float32) for name in optimizer.slot_names}
    for runs in made:
        sums, total = None, 0
        for run in runs:
            p, s = parameters.copy(), {name: values.copy() for name, values in slots.items()}
            for number, key in enumerate(run):
                optimizer.apply(p, task.gradient(p, *key), s, updates + number, task.rate, [(0, task.parameters)])
            weight = samples_of(task, run)
            vectors = weight * np.array([p, *s.values()], np.float64)
            sums, total = vectors if sums is None else sums + vectors, total + weight
        parameters, *rest = (sums / total).astype(np.float32)
        slots = dict(zip(slots, rest, strict=True))
        updates += max(map(len, runs))
    return parameters, slots


def close(values, expected):
    return (np.abs(values - expected) <= 1e-5 * np.abs(expected) + 1e-6).all()


@given(seeds, st.integers(1, 3), st.integers(1, 4), st.sampled_from([0, 1, 2, 5]), deaths)
@settings(max_examples=60, deadline=None, derandomize=True)
def test_every_batch_counts_once_with_its_weight(tmp_path_factory, seed, ps, workers, local_steps, deaths):
    rounds = 2 if local_steps == 0 else 5
    spec = {"ps": ps, "workers": workers, "local_steps": local_steps, "rounds": rounds, "steps": -1}
    with Fleet(tmp_path_factory.mktemp("run"), COUNTING, seed, strategy="average", checkpoint=EACH, **spec) as fleet:
        fleet.start_all()
        fleet.run(at=dict.fromkeys(deaths, die))
        made = rounds_of(rounds, workers, local_steps)
        steps = np.cumsum([sum(map(len, runs)) for runs in made]).tolist()
        status = fleet.job.status()
        assert (fleet.job.phase, status["step"], status["steps"]) == ("done", steps[-1], steps[-1])
        assert status["ledger"]["acknowledged"] == steps[-1]
        assert status["ledger"]["leased"] == status["ledger"]["partial_updates"] == 0
        weights, _ = weights_after(made)
        np.testing.assert_allclose(fleet.parameters().reshape(-1, CHUNK), [weights] * 3, rtol=0, atol=1e-6)
        assert {ps.partition.iteration for ps in fleet.ps} == {steps[-1]}
        assert len(fleet.store.numbers()) >= 2
        for manifest in map(fleet.store.get, fleet.store.numbers()):  # at round ends only
            done = [0, *steps].index(manifest.step)
            weights, state = weights_after(made[:done])
            np.testing.assert_allclose(fleet.committed(manifest).reshape(-1, CHUNK), [weights] * 3, rtol=0, atol=1e-6)
            np.testing.assert_allclose(fleet.store.read_state(manifest)[0], state, rtol=1e-5)


@given(
    seeds,
    st.integers(1, 3),
    st.integers(1, 4),
    st.sampled_from([0, 1, 4]),
    st.sampled_from([OptimizerSpec("sgd", {"momentum": 0.9}, 0.1), OptimizerSpec("adam"), OptimizerSpec("sgd")]),
    deaths,
    st.lists(st.integers(0, 900), max_size=1),
)
@settings(max_examples=60, deadline=None, derandomize=True)
def test_the_result_is_that_of_one_process_whoever_dies(
    tmp_path_factory, seed, ps, workers, local_steps, optimizer, deaths, ps_deaths
):
    task, rounds = Linear(ITEMS, BATCH, optimizer=optimizer), 2 if local_steps == 0 else 5
    spec = {"ps": ps, "workers": workers, "local_steps": local_steps, "rounds": rounds, "steps": -1}
    with Fleet(tmp_path_factory.mktemp("run"), task, seed, strategy="average", checkpoint=EACH, **spec) as fleet:
        fleet.start_all()
        fleet.run(at={**dict.fromkeys(deaths, die), **dict.fromkeys(ps_deaths, die_ps)}, limit=60_000)
        assert fleet.job.phase == "done"
        parameters, slots = alone(task, rounds_of(rounds, workers, local_steps))
        assert close(fleet.parameters(), parameters)
        for name, expected in slots.items():
            assert close(np.concatenate([ps.partition.slots[name] for ps in fleet.ps]), expected)
        assert np.abs(parameters).max() > 0.1


@given(seeds, st.integers(1, 3), st.integers(1, 4))
@settings(max_examples=20, deadline=None, derandomize=True)
def test_one_local_step_of_sgd_is_a_step_of_sync(tmp_path_factory, seed, ps, workers):
    task, rounds, results = Linear(ITEMS, BATCH), 6, []
    for spec in (
        {"strategy": "average", "local_steps": 1, "rounds": rounds, "steps": -1},
        {"strategy": "sync", "steps": rounds},
    ):
        with Fleet(tmp_path_factory.mktemp("run"), task, seed, ps=ps, workers=workers, **spec) as fleet:
            fleet.start_all()
            results.append(fleet.run().parameters())
    assert close(*results)


def test_a_job_goes_on_at_a_round_with_other_workers_and_ps(tmp_path):
    task = Linear(ITEMS, BATCH, optimizer=OptimizerSpec("sgd", {"momentum": 0.9}))
    spec = {"strategy": "average", "local_steps": 3, "steps": -1, "checkpoint": EACH}
    with Fleet(tmp_path, task, ps=2, workers=2, rounds=6, **spec) as fleet:
        fleet.start_all()
        fleet.run(until=lambda: fleet.job.step >= 13 and not fleet.job.ledger.at_boundary)
    with Fleet(tmp_path, task, 1, resume=True, ps=3, workers=4, rounds=6, **spec) as fleet:
        fleet.start_all()
        fleet.run()
        assert fleet.job.ledger.aggregate == 2
        assert close(fleet.parameters(), alone(task, rounds_of(6, 2, 3))[0])
    with Fleet(tmp_path, task, 2, resume=True, ps=1, workers=1, rounds=8, **spec) as fleet:  # more rounds
        fleet.start_all()
        fleet.run()
        assert close(fleet.parameters(), alone(task, rounds_of(8, 2, 3))[0])


def test_other_local_steps_are_refused_when_resuming(tmp_path):
    spec = {"strategy": "average", "ps": 1, "workers": 2, "steps": -1, "checkpoint": EACH}
    with Fleet(tmp_path, COUNTING, local_steps=3, rounds=1, **spec) as fleet:
        fleet.start_all()
        fleet.run()
    with Fleet(tmp_path, COUNTING, resume=True, local_steps=2, rounds=4, **spec) as fleet:
        fleet.start_all()
        fleet.run()
        assert fleet.job.ending.over["exit_code"] == 2
        assert "was trained with local_steps 3, this job has 2" in fleet.job.ending.reason


def test_an_overdue_run_is_done_by_a_free_worker_and_its_own_stops(tmp_path):
    spec = {"strategy": "average", "local_steps": 6, "rounds": 4, "steps": -1}
    with Fleet(tmp_path, COUNTING, ps=2, workers=2, **spec) as fleet:
        slow, _ = fleet.start_all()

        def has_a_run():
            runs = fleet.job.ledger._leases.values() if fleet.job.ledger else ()
            return fleet.job.step >= 12 and not slow.pushing and any(slow.member in holders for holders in runs)

        fleet.run(until=has_a_run)
        slow.stopped = True
        fleet.start(2)  # more workers than runs
        fleet.run(until=lambda: fleet.job.ledger.copies and fleet.job.step > 13)
        slow.stopped = False
        fleet.run()
        assert (fleet.job.phase, slow.ended) == ("done", "over")
        made = rounds_of(4, 2, 6)
        np.testing.assert_allclose(fleet.parameters()[:CHUNK], weights_after(made)[0], rtol=0, atol=1e-6)


@pytest.mark.parametrize("how", ["stop", "interrupt"])
def test_a_round_that_has_begun_is_finished_before_the_end(tmp_path, how):
    spec = {"strategy": "average", "local_steps": 2, "rounds": 50, "steps": -1}
    with Fleet(tmp_path, COUNTING, ps=2, workers=2, **spec) as fleet:
        fleet.start_all()
        fleet.run(until=lambda: fleet.job.step >= 8 and not fleet.job.ledger.at_boundary)
        step = fleet.job.step
        fleet.client("end", how=how, reason="")
        fleet.run()
        assert fleet.job.step == step + 4
        assert fleet.job.checkpointing.commits.last["step"] == step + 4


def test_a_drained_worker_leaves_its_run_to_others(tmp_path):
    spec = {"strategy": "average", "local_steps": 6, "rounds": 3, "steps": -1}
    with Fleet(tmp_path, COUNTING, ps=2, workers=2, **spec) as fleet:
        leaving, _ = fleet.start_all()
        fleet.run(until=lambda: fleet.job.step >= 12 and fleet.job.local_steps.under_way)
        step = fleet.job.step
        fleet.drain(leaving)
        fleet.run(until=lambda: leaving.ended)
        assert (leaving.ended, fleet.job.step) == ("drained", step)
        fleet.run()
        np.testing.assert_allclose(fleet.parameters()[:CHUNK], weights_after(rounds_of(3, 2, 6))[0], rtol=0, atol=1e-6)


def test_steps_under_way_are_told_and_not_applied(tmp_path):
    with Fleet(tmp_path, COUNTING, ps=2, workers=1, strategy="average", rounds=2, steps=-1) as fleet:
        (worker,) = fleet.start_all()
        fleet.run(until=lambda: fleet.job.local_steps.under_way == 6)
        status = fleet.job.status()
        assert (status["step"], status["ledger"]["acknowledged"]) == (6, 0)
        assert status["members"][0]["steps"] == 6
        assert (status["loss"], fleet.parameters().any()) == (2.0, False)
        fleet.kill(worker)
        fleet.settle_links(worker)
        assert fleet.job.status()["step"] == 0
        fleet.start(0)
        fleet.run()
        assert fleet.job.status()["step"] == 2 * BATCHES


def test_metrics_of_another_length_are_refused(tmp_path):
    with Fleet(tmp_path, COUNTING, ps=1, workers=1, strategy="average", rounds=2, steps=-1) as fleet:
        (worker,) = fleet.start_all()
        fleet.run(until=lambda: fleet.job.local_steps.under_way)
        told = fleet.job.local_steps.under_way
        line = worker.lines[0]
        worker.stopped = True
        fleet.settle()
        line.send(5, b'{"call":"progress","step":0,"steps":1}', bytes(12))
        fleet.settle()
        assert fleet.job.local_steps.under_way in (0, told)
        assert not fleet.job.members.workers  # the connection was closed: that is no tfleet worker
