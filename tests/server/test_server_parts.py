"""Small parts of a ps: buffers, evaluations, members, background work, the plan."""

import threading
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tfleet.checkpoint.errors import CommitFailed
from tfleet.checkpoint.store import Store
from tfleet.server import background
from tfleet.server.buffers import BufferPool
from tfleet.server.evaluations import Evaluations, lower_is_better
from tfleet.server.members import Members
from tfleet.server.plan import TrainingPlan
from tfleet.server.progress import Rate
from tfleet.spec.errors import WrongInput
from tfleet.spec.job import EvaluationSpec, JobSpec
from tfleet.spec.layout import Layout, Variable
from tfleet.strategies.asynchronous import AsyncLedger
from tfleet.strategies.average import AverageLedger
from tfleet.strategies.synchronous import SyncLedger
from tfleet.testing.checkpoints import make_commit
from tfleet.wire.loop import Loop

# Buffers.


@given(st.lists(st.booleans(), max_size=60))
@settings(max_examples=50, deadline=None, derandomize=True)
def test_a_pool_never_lends_more_than_it_has(takes):
    pool, lent, ever = BufferPool(16, 3), [], set()
    for take in takes:
        if take:
            buffer = pool.take()
            assert (buffer is None) == (len(lent) == 3)
            if buffer is not None:
                assert (buffer.nbytes, buffer.readonly) == (16, False)
                assert all(buffer is not other for other in lent)
                lent.append(buffer)
                ever.add(id(buffer))
        elif lent:
            pool.give(lent.pop())
    assert len(ever) <= 3


def test_a_pool_leaves_alone_what_is_not_its_own():
    pool = BufferPool(16, 1)
    pool.give(memoryview(bytearray(16)))
    own = pool.take()
    pool.give(own)
    pool.give(own)  # twice
    assert pool.take() is own
    assert pool.take() is None


# Evaluations.


@pytest.mark.parametrize(
    ("metric", "lower"),
    [
        *[(name, True) for name in ("loss", "val_mae", "root_mean_squared_error", "binary_crossentropy", "perplexity")],
        *[(name, False) for name in ("accuracy", "auc", "precision", "top_5")],
    ],
)
def test_losses_and_errors_get_better_by_getting_smaller(metric, lower):
    assert lower_is_better(metric) is lower


def reported(spec, metric, values):
    evaluations = Evaluations(EvaluationSpec(every_steps=1, **spec))
    return evaluations, [evaluations.report(10 * n, n, {metric: value}) for n, value in enumerate(values)]


@pytest.mark.parametrize(
    ("metric", "values", "best"),
    [
        ("accuracy", [0.1, 0.5, 0.5, 0.4], 1),
        ("loss", [0.5, 0.1, 0.1, 0.4], 1),
        ("accuracy", [float("nan"), 0.2, 0.1], 1),
        ("loss", [0.3, float("nan")], 0),
    ],
)
def test_the_first_best_commit_is_kept(metric, values, best):
    evaluations, _ = reported({"keep_best": metric}, metric, values)
    assert evaluations.best == best
    assert evaluations.last["commit"] == len(values) - 1


def test_without_a_metric_to_keep_there_is_no_best():
    assert reported({}, "accuracy", [0.1, 0.5])[0].best == -1


@pytest.mark.parametrize(
    ("spec", "values", "stops"),
    [
        ({"stop_patience": 2}, [0.5, 0.6, 0.6, 0.5], [False, False, False, True]),
        ({"stop_patience": 1}, [0.5, 0.5], [False, True]),
        ({"stop_patience": 2}, [0.5, 0.4, 0.6, 0.5, 0.5], [False, False, False, False, True]),
        ({"stop_patience": 2, "stop_min_delta": 0.1}, [0.5, 0.55, 0.59, 0.7], [False, False, True, False]),
        ({"stop_patience": 2}, [float("nan")] * 2, [False, True]),
    ],
)
def test_training_stops_when_the_metric_is_no_longer_better(spec, values, stops):
    assert reported({"stop_metric": "accuracy", **spec}, "accuracy", values)[1] == stops


def test_a_loss_stops_by_not_falling():
    assert reported({"stop_metric": "loss", "stop_patience": 2}, "loss", [1, 0.5, 0.6, 0.7])[1][-1] is True


def test_a_metric_that_is_not_reported_is_an_error():
    with pytest.raises(KeyError, match="f1"):
        reported({"stop_metric": "f1"}, "loss", [1.0])


def test_evaluations_go_on_after_a_restore():
    spec = {"keep_best": "accuracy", "stop_metric": "accuracy", "stop_patience": 2}
    before, _ = reported(spec, "accuracy", [0.5, 0.4])
    after = Evaluations(EvaluationSpec(every_steps=1, **spec))
    after.restore(before.to_json())
    assert after.report(30, 3, {"accuracy": 0.5}) is True
    assert (after.best, after.to_json()["kept"]["metrics"]) == (0, {"accuracy": 0.5})


# Members.


class Line:
    owner = None


def test_members_come_and_go_under_new_numbers():
    members = Members()
    first = members.join("worker", 0, Line(), 0.0)
    evaluator = members.join("evaluator", 0, Line(), 0.0)
    assert (members.workers, members.find("worker", 0)) == ([first], first)
    members.remove(first, "lost")
    assert members.find("worker", 0) is None
    assert [row["state"] for row in members.describe()] == ["lost", "joined"]
    again = members.join("worker", 0, Line(), 5.0)
    assert again.number not in (first.number, evaluator.number)
    assert [(row["role"], row["state"]) for row in members.describe()] == [
        ("worker", "joined"),
        ("evaluator", "joined"),
    ]


def test_the_silent_are_those_not_heard_of_for_longer_than_the_limit():
    members = Members()
    old, new = members.join("worker", 0, Line(), 0.0), members.join("worker", 1, Line(), 5.0)
    assert members.silent(20.0, 20.0) == []
    assert members.silent(20.1, 20.0) == [old]
    assert members.silent(26.0, 20.0) == [old, new]


def test_a_rate_is_taken_over_the_last_seconds():
    rate = Rate()
    assert rate.update(0.0, 0) == 0.0
    assert rate.update(1.0, 10) == 10.0
    for second in range(2, 10):
        rate.update(float(second), 10)
    assert rate.update(10.0, 20) == 2.0  # 10 steps in the last 5 s


def test_members_have_rates_of_their_own():
    members = Members()
    fast, slow = members.join("worker", 0, Line(), 0.0), members.join("worker", 1, Line(), 0.0)
    members.tick(0.0)
    fast.steps, slow.steps = 30, 10
    members.tick(2.0)
    assert [row["steps_per_second"] for row in members.describe()] == [15.0, 5.0]


# Background work.


def test_work_that_blocks_runs_elsewhere_and_ends_in_the_loop():
    loop, seen = Loop(), []

    def done(result):
        seen.append((result, threading.get_ident()))
        loop.stop()

    background.run(loop, lambda: (threading.get_ident(), 7), done, seen.append)
    loop.run()
    ((there, value), here) = seen[0]
    assert (value, here) == (7, threading.get_ident())
    assert there != here
    loop.close()


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (CommitFailed("commit 3 could not be written"), "commit 3 could not be written"),
        (MemoryError("8 GiB"), "this ps is out of memory: 8 GiB; give more ps, or more memory"),
        (MemoryError(), "this ps is out of memory; give more ps, or more memory"),
    ],
)
def test_a_failure_of_background_work_is_a_sentence(error, told):
    loop, seen = Loop(), []

    def work():
        raise error

    background.run(loop, work, seen.append, lambda why: (seen.append(why), loop.stop()))
    loop.run()
    assert seen == [told]
    loop.close()


# The plan.

LAYOUT = Layout((Variable("w", (23,)),), (Variable("mean", (2,)),))
SGD = {"name": "sgd", "hyper": {"momentum": 0.9}, "weight_decay": 0.0}
PLAN = TrainingPlan(LAYOUT, SGD, items=50, batch_items=4, batch_size=4, steps=2000, evaluates=True)


def test_a_plan_comes_back():
    assert TrainingPlan.from_json(PLAN.to_json()) == PLAN


@pytest.mark.parametrize(
    "change", [{"items": 0}, {"batch_items": 0}, {"batch_size": -1}, {"steps": -1}, {"items": "x"}, {"layout": {}}]
)
def test_a_plan_without_work_is_no_plan(change):
    with pytest.raises((ValueError, KeyError)):
        TrainingPlan.from_json({**PLAN.to_json(), **change})


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({}, ""),
        ({"steps": 7}, ""),
        ({"items": 60}, "items is 60 instead of 50"),
        ({"optimizer": {"name": "adam"}}, "optimizer is {'name': 'adam'} instead of"),
        ({"layout": Layout((Variable("w", (23,)),))}, "0 state variables instead of 1"),
        ({"layout": Layout((Variable("w", (23,), False),), LAYOUT.state)}, "weight decay of w is off"),
    ],
)
def test_plans_are_compared_by_what_must_agree(change, words):
    assert replace(PLAN, **change).difference(PLAN).startswith(words)
    assert bool(replace(PLAN, **change).difference(PLAN)) == bool(words)


@pytest.mark.parametrize(
    ("spec", "kind", "total"),
    [
        ({}, AsyncLedger, 2000),
        ({"steps": 5}, AsyncLedger, 5),
        ({"steps": 0}, AsyncLedger, 0),
        ({"epochs": 3}, AsyncLedger, 39),
        ({"epochs": 3, "strategy": "sync", "workers": 2}, SyncLedger, 21),
        ({"epochs": 3, "strategy": "sync", "workers": 2, "replicas_to_aggregate": 5}, SyncLedger, 9),
        ({"epochs": 1, "strategy": "sync", "workers": 20}, SyncLedger, 1),
        ({"strategy": "sync", "workers": 2}, SyncLedger, 2000),
        ({"strategy": "average", "workers": 2}, AverageLedger, 13),
        ({"strategy": "average", "workers": 2, "rounds": 3}, AverageLedger, 39),
        ({"strategy": "average", "workers": 2, "rounds": 5, "local_steps": 2}, AverageLedger, 17),
    ],
)
def test_the_ledger_follows_from_steps_or_epochs_and_strategy(spec, kind, total):
    spec = JobSpec(**spec)
    ledger = PLAN.ledger(spec, PLAN.aggregate(spec, None))
    assert (type(ledger), ledger.batches, ledger.total) == (kind, 13, total)


@pytest.fixture
def resumed(tmp_path):
    """Returns what `check_resume` says about a commit of PLAN when plan or spec are others."""
    spec = JobSpec(workers=3, strategy="sync", seed=4)
    settings = PLAN.settings(spec, 3)
    manifest = make_commit(Store(tmp_path), 7, layout=LAYOUT.to_json(), optimizer=SGD, settings=settings)

    def check(plan=PLAN, **change):
        now = JobSpec(**{"workers": 3, "strategy": "sync", "seed": 4, **change})
        aggregate = plan.aggregate(now, manifest)
        plan.check_resume(manifest, plan.settings(now, aggregate))
        return aggregate

    return check


def test_a_resumed_job_keeps_the_runs_of_a_round_and_their_length(tmp_path):
    spec = JobSpec(workers=3, strategy="average", local_steps=2)
    settings = PLAN.settings(spec, PLAN.aggregate(spec, None))
    manifest = make_commit(Store(tmp_path), 7, layout=LAYOUT.to_json(), optimizer=SGD, settings=settings)
    assert (settings["aggregate"], settings["local_steps"]) == (3, 2)
    now = JobSpec(workers=8, strategy="average", local_steps=2, rounds=9)
    assert PLAN.aggregate(now, manifest) == 3
    PLAN.check_resume(manifest, PLAN.settings(now, 3))
    for change in ({"local_steps": 3}, {"local_steps": 0}):
        other = JobSpec(**{"workers": 3, "strategy": "average", **change})
        with pytest.raises(WrongInput, match=r"commit 7 was trained with local_steps 2, this job has [03]; resume"):
            PLAN.check_resume(manifest, PLAN.settings(other, 3))


def test_a_resumed_job_keeps_its_steps_whatever_the_workers(resumed):
    assert resumed() == 3
    assert resumed(workers=8) == 3
    assert resumed(workers=8, replicas_to_aggregate=3) == 3


@pytest.mark.parametrize(
    ("plan", "change", "words"),
    [
        (
            {"layout": Layout((Variable("w", (24,)),), LAYOUT.state)},
            {},
            "another model: trainable variable w has shape",
        ),
        ({"optimizer": {**SGD, "hyper": {}}}, {}, r"optimizer sgd\(momentum=0.9, .*, the model now has sgd\(,"),
        ({"batch_size": 8}, {}, "batch_size 4, this job has 8"),
        ({"items": 51}, {}, "items 50, this job has 51"),
        ({}, {"seed": 5}, "seed 4, this job has 5"),
        ({}, {"strategy": "async"}, "strategy sync, this job has async"),
        ({}, {"replicas_to_aggregate": 2}, "replicas_to_aggregate 3, this job has 2"),
    ],
)
def test_resuming_with_what_must_stay_is_refused_with_both_values(resumed, plan, change, words):
    with pytest.raises(WrongInput, match=words) as caught:
        resumed(replace(PLAN, **plan), **change)
    assert "commit 7" in str(caught.value)
    assert str(caught.value).endswith("train in a new --run-dir")
