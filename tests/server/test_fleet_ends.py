"""How simulated jobs end: stopped, interrupted, failed in any phase; leases to evaluate and to finalise."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from simulated_fleet import Fleet, die
from simulated_worker import Counting

TASK = Counting(items=50, batch=4, evaluates=True)
STEPS = 12
EACH = {"every_seconds": 0, "every_steps": 2, "keep": 1}

PHASES = {
    "starting": lambda fleet: fleet.workers[0].member,
    "initialising": lambda fleet: fleet.job.starting._initialiser,
    "commit 0": lambda fleet: fleet.job.checkpointing.commits.busy == 0,
    "training": lambda fleet: fleet.job.step >= 5,
    "commit": lambda fleet: fleet.job.checkpointing.commits.busy > 1,
    "finalising": lambda fleet: fleet.job.phase == "finalising",
    "exporting": lambda fleet: fleet.job.ending._finaliser,
}


@pytest.mark.parametrize("how", ["stop", "interrupt", "fail"])
@pytest.mark.parametrize("phase", PHASES)
@pytest.mark.parametrize("strategy", ["async", "bounded", "sync"])
@pytest.mark.parametrize("seed", range(2))
def test_a_job_ends_as_it_is_told_in_any_phase(tmp_path, how, phase, strategy, seed):
    with Fleet(tmp_path, TASK, seed, ps=2, workers=2, steps=STEPS, strategy=strategy, checkpoint=EACH) as fleet:
        fleet.start_all()
        fleet.run(until=lambda: PHASES[phase](fleet))
        step = fleet.job.step
        fleet.client("end", how=how, reason="told")
        fleet.run()
        over = fleet.job.ending.over
        if how == "fail":
            assert over == {"phase": "failed", "exit_code": 1, "reason": "told"}
        elif how == "stop":
            assert (over["phase"], over["exit_code"]) == ("stopped", 0)
        else:
            assert (over["phase"], over["exit_code"]) == ("interrupted", 130)
        assert not fleet.job.members.living
        assert all(worker.ended for worker in fleet.workers)
        newest, refused = fleet.store.newest()
        assert refused == []
        if how != "fail" and step:
            assert newest.step == fleet.job.step >= step
        if phase in ("starting", "initialising"):
            codes = {"stop": "130", "interrupt": "130", "fail": "1"}
            assert {worker.ended.split(":")[0] for worker in fleet.workers} <= {codes[how], "over"}


def test_an_interrupt_is_not_turned_into_an_export_by_early_stopping(tmp_path):
    with Fleet(tmp_path, TASK, ps=1, workers=2, steps=0) as fleet:
        fleet.start_all()
        fleet.run(until=lambda: fleet.job.step >= 5)
        fleet.job.ending.ask("interrupt", "told")
        fleet.job.ending.stop("done")
        fleet.run()
        assert fleet.job.ending.over == {"phase": "interrupted", "exit_code": 130, "reason": "told"}
        assert fleet.job.ending.export == ""


def test_an_interrupted_job_waits_no_longer_than_the_grace_for_a_slow_batch(tmp_path):
    with Fleet(tmp_path, TASK, ps=1, workers=1, steps=0) as fleet:
        (worker,) = fleet.start_all()
        fleet.run(until=lambda: fleet.job.step >= 5)
        worker.stopped = True  # it computes for ever
        fleet.job.ending.ask("interrupt", "told")
        fleet.loop.advance(19.9)
        assert not fleet.job.ending.over
        fleet.loop.advance(0.2)
        assert fleet.job.ending.over["exit_code"] == 130
        fleet.loop.advance(9.8)
        assert not fleet.loop.stopped
        fleet.loop.advance(0.2)
        assert fleet.loop.stopped


@pytest.mark.parametrize("ps", [1, 2])
def test_ps_0_leaves_when_its_last_worker_has_left(tmp_path, ps):
    with Fleet(tmp_path, TASK, ps=ps, workers=3, steps=STEPS) as fleet:
        fleet.start_all()
        fleet.run(until=lambda: fleet.job.ending.over)
        assert fleet.job.members.living
        fleet.run()
        assert not fleet.job.members.living
        assert [row["state"] for row in fleet.job.members.describe()] == ["done"] * 3


def test_a_ps_that_is_asked_to_end_has_the_job_interrupted(tmp_path):
    with Fleet(tmp_path, TASK, ps=2, workers=2, steps=0) as fleet:
        fleet.start_all()
        fleet.run(until=lambda: fleet.job.step >= 5)
        fleet.ps[1].coordinator.send(4, b'{"call":"end","how":"interrupt","reason":"ps 1 was asked to end"}')
        fleet.run()
        assert fleet.job.ending.over == {"phase": "interrupted", "exit_code": 130, "reason": "ps 1 was asked to end"}
        assert fleet.store.newest()[0].step == fleet.job.step


@pytest.mark.parametrize("seed", range(6))
def test_the_holder_of_the_finalisation_lease_dies(tmp_path, seed):
    with Fleet(tmp_path, TASK, seed, ps=2, workers=2, steps=STEPS) as fleet:
        fleet.start_all()
        fleet.run(until=lambda: fleet.job.ending._finaliser)
        holder = fleet.job.ending._finaliser.number
        fleet.kill(next(worker for worker in fleet.workers if worker.member == holder))
        fleet.run()
        assert fleet.job.phase == "done"
        assert fleet.job.ending.export == str(fleet.store.newest()[0].number)


def test_nobody_is_left_to_finalise_until_a_worker_comes(tmp_path):
    with Fleet(tmp_path, TASK, ps=2, workers=1, steps=STEPS) as fleet:
        (worker,) = fleet.start_all()
        fleet.run(until=lambda: fleet.job.ending._finaliser)
        fleet.kill(worker)
        fleet.settle()
        fleet.start(0)
        fleet.run()
        assert fleet.job.phase == "done"


class Scores:
    """Held-out accuracy by commit: best at step 4."""

    def __init__(self):
        self.seen = []

    def __call__(self, manifest):
        self.seen.append(manifest.step)
        return self.of(manifest)

    @staticmethod
    def of(manifest):
        return {"accuracy": 1.0 - 0.01 * abs(manifest.step - 4), "loss": 0.5}


@given(st.integers(0, 2**32), st.integers(1, 2), st.integers(1, 3), st.lists(st.integers(0, 600), max_size=3))
@settings(max_examples=40, deadline=None, derandomize=True)
def test_commits_are_evaluated_and_the_best_is_kept(tmp_path_factory, seed, ps, workers, deaths):
    """With one kept commit, workers that die, and evaluations that take longer than the steps between them."""
    scores = Scores()
    spec = {"evaluation": {"every_steps": 4, "keep_best": "accuracy"}, "checkpoint": EACH, "steps": STEPS}
    folder = tmp_path_factory.mktemp("run")
    with Fleet(folder, TASK, seed, ps=ps, workers=workers, evaluate=scores, **spec) as fleet:
        fleet.start_all()
        fleet.run(at=dict.fromkeys(deaths, die))
        assert fleet.job.phase == "done"
        assert scores.seen[-1] == STEPS
        best = fleet.store.get(int(fleet.job.ending.export))
        assert best.step == min(scores.seen, key=lambda step: (abs(step - 4), scores.seen.index(step)))
        told = {"step": best.step, "commit": best.number, "metrics": scores.of(best)}
        assert fleet.job.status()["evaluation"] == told


def test_a_metric_that_is_not_finite_is_noted_once_and_is_never_the_best(tmp_path):
    def scores(manifest):
        return {"accuracy": 0.5, "loss": "nan" if manifest.step % 8 else 0.1 * manifest.step}

    spec = {"evaluation": {"every_steps": 4, "keep_best": "loss"}, "checkpoint": EACH, "steps": STEPS}
    with Fleet(tmp_path, TASK, ps=1, workers=1, evaluate=scores, **spec) as fleet:
        fleet.start_all()
        fleet.run()
        assert fleet.job.phase == "done"
        assert [note for note in fleet.job.notes if "loss is not a finite number" in note] == [
            "held out at step 4: loss is not a finite number; look at those data"
        ]
        best = fleet.store.get(int(fleet.job.ending.export))
        assert best.step == 8
        json.dumps(fleet.job.status(), allow_nan=False)
        rows = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
        assert "loss" not in next(row for row in rows if row["kind"] == "eval")


def test_an_evaluation_asked_for_while_another_runs_is_not_lost(tmp_path):
    scores = Scores()
    spec = {"evaluation": {"every_steps": 2}, "checkpoint": EACH, "steps": 0}
    with Fleet(tmp_path, TASK, ps=1, workers=2, evaluate=scores, **spec) as fleet:
        fleet.start_all()
        fleet.run(until=lambda: fleet.job.evaluating._holder)
        slow = next(w for w in fleet.workers if w.member == fleet.job.evaluating._holder.number)
        slow.stopped = True
        first = fleet.job.evaluating._held
        fleet.run(until=lambda: fleet.job.evaluating._next > first + 2)
        later = fleet.job.evaluating._next
        fleet.run(until=lambda: fleet.job.checkpointing.commits.last["number"] > later)
        assert {first, later} <= set(fleet.store.numbers())  # neither is removed meanwhile
        slow.stopped = False
        fleet.run(until=lambda: len(scores.seen) == 2)
        assert scores.seen[1] > scores.seen[0]


def test_the_holder_of_the_evaluation_lease_dies(tmp_path):
    scores = Scores()
    spec = {"evaluation": {"every_steps": 100}, "steps": 0}
    with Fleet(tmp_path, TASK, ps=2, workers=2, evaluate=scores, **spec) as fleet:
        fleet.start_all()
        fleet.run(until=lambda: fleet.job.evaluating._holder)
        held = fleet.job.evaluating._held
        fleet.kill(next(w for w in fleet.workers if w.member == fleet.job.evaluating._holder.number))
        fleet.run(until=lambda: fleet.job.evaluating.evaluations.last or fleet.job.step >= 200)
        assert fleet.job.evaluating.evaluations.last["commit"] == held


def test_the_job_is_not_finalised_while_a_commit_is_evaluated(tmp_path):
    spec = {"evaluation": {"every_steps": 4, "keep_best": "accuracy"}, "checkpoint": EACH, "steps": 6}
    with Fleet(tmp_path, TASK, ps=1, workers=2, evaluate=Scores(), **spec) as fleet:
        fleet.start_all()
        fleet.run(until=lambda: fleet.job.evaluating._holder)
        slow = next(w for w in fleet.workers if w.member == fleet.job.evaluating._holder.number)
        slow.stopped = True
        fleet.run(until=lambda: fleet.job.ending._committed)
        for _ in range(100):
            fleet.step()
            fleet.loop.advance(0.05)
        assert fleet.job.ending._finaliser is None
        slow.stopped = False
        fleet.run()
        assert fleet.store.get(int(fleet.job.ending.export)).step == 4


def test_a_late_removal_of_old_commits_leaves_the_newer_ones_alone(tmp_path):
    with Fleet(tmp_path, TASK, ps=1, workers=2, steps=0, checkpoint=EACH) as fleet:
        late, prune = [], fleet.store.prune
        fleet.store.prune = lambda *arguments: late.append(arguments)
        fleet.start_all()
        fleet.run(until=lambda: fleet.job.checkpointing.commits.last and len(late) >= 6)
        prune(*late[2])
        assert fleet.store.numbers()[0] == 2  # the newest of then, and all that came since
        assert len(fleet.store.numbers()) >= 4


def test_an_evaluation_whose_commit_failed_is_made_up_for(tmp_path):
    scores = Scores()
    spec = {"evaluation": {"every_steps": 10}, "checkpoint": EACH, "steps": 0}
    with Fleet(tmp_path, TASK, ps=1, workers=2, evaluate=scores, **spec) as fleet:
        fleet.start_all()
        fleet.run(until=lambda: fleet.job.step == 9)
        fleet.disks[0].full = True
        fleet.run(until=lambda: fleet.job.step >= 11 and fleet.job.checkpointing.commits.busy < 0)
        fleet.disks[0].full = False
        fleet.run(until=lambda: scores.seen)
        assert any("No space left" in note for note in fleet.job.notes)
        assert 10 < scores.seen[0] < 20


def test_training_stops_early(tmp_path):
    spec = {"evaluation": {"every_steps": 2, "stop_metric": "loss", "stop_patience": 2}, "steps": 0}
    with Fleet(tmp_path, TASK, ps=2, workers=2, evaluate=Scores(), **spec) as fleet:
        fleet.start_all()
        fleet.run()
        assert fleet.job.ending.over == {"phase": "done", "exit_code": 0, "reason": ""}
        assert any("stopped early at step" in note and "loss" in note for note in fleet.job.notes)
        assert fleet.job.ending.export


def test_a_metric_that_is_not_there_ends_the_job_with_exit_2(tmp_path):
    spec = {"evaluation": {"every_steps": 2, "keep_best": "f1"}, "steps": 0}
    with Fleet(tmp_path, TASK, ps=1, workers=1, evaluate=Scores(), **spec) as fleet:
        fleet.start_all()
        fleet.run(until=lambda: fleet.workers[0].ended)
        assert fleet.workers[0].ended.startswith("2: the held-out data give no metric 'f1'; name one of accuracy, loss")


@pytest.mark.parametrize("seed", range(5))
def test_the_evaluator_follows_the_commits_and_ends_with_the_job(tmp_path, seed):
    scores = Scores()
    spec = {"evaluation": {"evaluator": True, "keep_best": "accuracy"}, "checkpoint": EACH, "steps": 30}
    with Fleet(tmp_path, TASK, seed, ps=2, workers=2, evaluate=scores, **spec) as fleet:
        fleet.start_all()
        evaluator = fleet.start(0, "evaluator")
        fleet.run()
        assert (fleet.job.phase, evaluator.ended) == ("done", "over")
        assert len(scores.seen) >= 2
        best = fleet.store.get(int(fleet.job.ending.export))
        assert best.step == min(scores.seen, key=lambda step: (abs(step - 4), scores.seen.index(step)))


def test_a_commit_that_the_evaluator_works_on_is_not_removed(tmp_path):
    spec = {"evaluation": {"evaluator": True, "keep_best": "accuracy"}, "checkpoint": EACH, "steps": 0}
    with Fleet(tmp_path, TASK, ps=2, workers=2, evaluate=Scores(), **spec) as fleet:
        fleet.start_all()
        evaluator = fleet.start(0, "evaluator")
        fleet.run(until=lambda: fleet.job.evaluating._followed)
        (commit,) = fleet.job.evaluating._followed.values()
        evaluator.stopped = True
        fleet.run(until=lambda: fleet.job.checkpointing.commits.last["number"] > commit + 4)
        assert commit in fleet.store.numbers()
        evaluator.stopped = False
        fleet.run(until=lambda: fleet.job.evaluating.evaluations.best == commit)
        fleet.client("end", how="stop", reason="")
        fleet.run()
        assert fleet.job.phase == "stopped"
