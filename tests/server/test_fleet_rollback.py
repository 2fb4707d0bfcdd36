"""Ps that are lost, in simulation: everybody goes back to the last commit, and the job ends right."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from simulated_fleet import Fleet, die, die_ps
from simulated_worker import Counting, Linear

TASK = Counting(items=50, batch=4, evaluates=True)
STEPS = 24
EACH = {"every_seconds": 0, "every_steps": 4, "keep": 2}

PHASES = {
    "joining": lambda fleet: fleet.workers[0].member,
    "describing": lambda fleet: fleet.job.plan,
    "initialising": lambda fleet: fleet.job.starting._initialiser,
    "commit 0": lambda fleet: fleet.job.checkpointing.commits.busy == 0,
    "training": lambda fleet: fleet.job.step >= 10,
    "commit": lambda fleet: fleet.job.checkpointing.commits.busy > 1,
    "finalising": lambda fleet: fleet.job.phase == "finalising",
    "exporting": lambda fleet: fleet.job.ending._finaliser,
}


def exact(fleet):
    """Returns whether every partition has each batch once, and nothing else."""
    counts = TASK.counts(fleet.parameters())
    return (counts[:, :STEPS] == 1).all() and counts[:, STEPS:].sum() == 0


@pytest.mark.parametrize("phase", PHASES)
@pytest.mark.parametrize("index", [0, 1])
@pytest.mark.parametrize("strategy", ["async", "bounded", "sync"])
@pytest.mark.parametrize("seed", range(2))
def test_a_ps_is_lost_in_any_phase(tmp_path, phase, index, strategy, seed):
    task = TASK if strategy != "sync" else Linear(items=50, batch=4)
    spec = {"steps": STEPS, "strategy": strategy, "checkpoint": EACH}
    with Fleet(tmp_path, task, seed, ps=2, workers=2, **spec) as fleet:
        fleet.start_all()
        fleet.run(until=lambda: PHASES[phase](fleet))
        step = fleet.job.step
        die_ps(fleet, index)
        fleet.run()
        assert fleet.job.ending.over == {"phase": "done", "exit_code": 0, "reason": ""}
        assert {worker.ended for worker in fleet.workers} == {"over"}
        status = fleet.job.status()
        assert status["rollbacks"] == 1
        assert status["generation"] == 2
        assert fleet.job.step == STEPS
        assert 0 <= status["steps_undone"] <= step + 2
        if strategy != "sync":
            assert exact(fleet)
        assert fleet.store.newest()[0].step == STEPS


@given(
    st.integers(0, 2**32),
    st.integers(1, 3),
    st.integers(1, 3),
    st.lists(st.integers(0, 1500), max_size=4),
    st.lists(st.integers(0, 1500), max_size=2),
)
@settings(max_examples=60, deadline=None, derandomize=True)
def test_each_sample_counts_once_whatever_is_lost(tmp_path_factory, seed, ps, workers, ps_deaths, deaths):
    folder = tmp_path_factory.mktemp("run")
    with Fleet(folder, TASK, seed, ps=ps, workers=workers, steps=STEPS, checkpoint=EACH) as fleet:
        fleet.start_all()
        acts = {**dict.fromkeys(deaths, die), **dict.fromkeys(ps_deaths, die_ps)}
        fleet.run(at=acts, limit=60_000)
        assert fleet.job.phase == "done"
        assert fleet.job.step == STEPS
        killed = sum(worker.ended == "killed" for worker in fleet.workers)
        wrong = (TASK.counts(fleet.parameters())[:, :STEPS] != 1).any(0).sum()
        assert wrong <= fleet.job.partial_updates <= (killed if ps > 1 else 0)
        assert TASK.counts(fleet.parameters())[:, STEPS:].sum() == 0


@given(st.integers(0, 2**32), st.integers(1, 3), st.lists(st.integers(0, 1500), min_size=1, max_size=3))
@settings(max_examples=20, deadline=None, derandomize=True)
def test_sync_gives_the_undisturbed_result_whatever_is_lost(tmp_path_factory, seed, ps, deaths):
    task = Linear(items=50, batch=4)
    results = []
    for acts in ({}, dict.fromkeys(deaths, die_ps)):
        folder = tmp_path_factory.mktemp("run")
        spec = {"ps": ps, "workers": 2, "steps": STEPS, "strategy": "sync", "checkpoint": EACH}
        with Fleet(folder, task, seed, **spec) as fleet:
            fleet.start_all()
            fleet.run(at=acts, limit=60_000)
            assert fleet.job.phase == "done"
            results.append(fleet.parameters())
    assert abs(results[0] - results[1]).max() <= 1e-6


def test_what_earlier_generations_left_is_told(tmp_path):
    with Fleet(tmp_path, TASK, ps=2, workers=2, steps=0, checkpoint=EACH) as fleet:
        fleet.start_all()
        fleet.run(until=lambda: fleet.job.step >= 10 and fleet.job.checkpointing.commits.last["step"] >= 8)
        fleet.loop.advance(7.0)
        commit, step, before = fleet.job.checkpointing.commits.last, fleet.job.step, fleet.job.status()
        die_ps(fleet, 1)
        fleet.run(until=lambda: fleet.job.generation == 2 and fleet.job.phase == "training")
        status = fleet.job.status()
        assert status["started"] == before["started"]
        assert status["training_elapsed"] >= before["training_elapsed"] >= 7.0
        assert status["steps_undone"] == step - commit["step"]
        assert status["goodput"] == round(status["step"] / (status["step"] + status["steps_undone"]), 4) < 1
        assert status["counts"]["commits"] == before["counts"]["commits"] > 2
        assert status["fenced"] == before["fenced"]
        assert (
            status["notes"][-3:]
            == [
                *[n for n in before["notes"][-1:] if n],
                "ps 1 is lost: its connection was closed; everybody goes back to the last commit",
                f"goes on from commit {commit['number']} at step {commit['step']}",
            ][-3:]
        )
        assert commit["seconds"] >= 0
        assert status["last_commit"] == {**commit, "seconds": None}


def test_until_everybody_is_back_the_status_tells_the_commit_that_the_job_goes_on_from(tmp_path):
    with Fleet(tmp_path, TASK, ps=2, workers=2, steps=0, checkpoint=EACH) as fleet:
        fleet.start_all()
        fleet.run(until=lambda: fleet.job.step >= 10 and fleet.job.checkpointing.commits.last["step"] >= 8)
        commit, step = fleet.job.checkpointing.commits.last, fleet.job.step
        for generation in (2, 3):  # the second time before anything has begun again
            fleet.run(until=lambda: fleet.job.links.has(1))
            assert (fleet.job.plan is None) == (generation == 3)
            die_ps(fleet, 1)
            fleet.run(until=lambda generation=generation: fleet.job.generation == generation)
            status = fleet.job.status()
            assert (status["phase"], status["step"]) == ("starting", commit["step"])
            assert status["last_commit"] == {**commit, "seconds": None}
            assert status["steps_undone"] == step - commit["step"]


def test_a_ps_that_is_lost_before_the_first_commit_has_training_begin_anew(tmp_path):
    with Fleet(tmp_path, TASK, ps=2, workers=2, steps=STEPS) as fleet:
        fleet.start_all()
        fleet.run(until=lambda: fleet.job.starting._initialiser)
        assert fleet.store.newest() == (None, [])
        die_ps(fleet, 1)
        fleet.run()
        assert "there is no commit to go on from: training begins anew" in fleet.job.notes
        assert fleet.job.phase == "done"
        assert exact(fleet)


def test_a_silent_ps_is_given_up_and_may_come_back(tmp_path):
    spec = {"steps": STEPS, "peer_timeout": 5.0, "checkpoint": EACH}
    with Fleet(tmp_path, TASK, ps=2, workers=2, watch=True, **spec) as fleet:
        fleet.start_all()
        fleet.run(until=lambda: fleet.job.step >= 10)
        stopped = fleet.processes[1]
        held = [sock for sock in fleet.loop.watched if any(c._sock is sock for c in stopped.connections)]
        callbacks = {sock: fleet.loop.watched.pop(sock) for sock in held}
        for _ in range(140):
            fleet.loop.advance(0.05)
            fleet.settle()
        assert fleet.job.generation == 2
        assert "ps 1 is lost: silent for more than 5 s" in " ".join(fleet.job.notes)
        assert [(row["index"], row["state"], row["restarts"]) for row in fleet.job.status()["ps"]] == [
            (0, "joined", 0),
            (1, "missing", 0),
        ]
        fleet.loop.watched.update(callbacks)  # it wakes
        fleet.run()
        assert fleet.job.phase == "done"
        assert exact(fleet)


def test_a_ps_that_never_comes_back_ends_the_job(tmp_path):
    with Fleet(tmp_path, TASK, ps=2, workers=1, steps=0, watch=True, join_timeout=8.0, checkpoint=EACH) as fleet:
        fleet.start_all()
        fleet.run(until=lambda: fleet.job.step >= 10)
        fleet.kill_ps(1)
        fleet.run()
        assert fleet.job.ending.over["exit_code"] == 1
        assert fleet.job.ending.reason.startswith("ps 1 did not join within 8 s")


def test_a_job_that_was_told_to_stop_stops_though_a_ps_is_lost(tmp_path):
    with Fleet(tmp_path, TASK, ps=2, workers=2, steps=0, checkpoint=EACH) as fleet:
        fleet.start_all()
        fleet.run(until=lambda: fleet.job.step >= 10)
        fleet.client("end", how="stop", reason="enough")
        die_ps(fleet, 0)
        fleet.run()
        assert fleet.job.ending.over == {"phase": "stopped", "exit_code": 0, "reason": "enough"}
        assert fleet.job.ending.export
        assert fleet.store.newest()[0].step == fleet.job.step


def test_a_job_is_told_to_stop_while_it_waits_for_a_ps(tmp_path):
    with Fleet(tmp_path, TASK, ps=2, workers=2, steps=0, checkpoint=EACH) as fleet:
        fleet.start_all()
        fleet.run(until=lambda: fleet.job.step >= 10)
        fleet.kill_ps(1)
        fleet.run(until=lambda: fleet.job.generation == 2)
        fleet.client("end", how="stop", reason="enough")
        assert not fleet.job.ending.over
        fleet.start_ps(1)
        fleet.run()
        assert fleet.job.ending.over == {"phase": "stopped", "exit_code": 0, "reason": "enough"}
        assert fleet.job.ending.export


@pytest.mark.parametrize("index", [0, 1])
def test_who_interrupts_does_not_wait_for_a_lost_ps(tmp_path, index):
    with Fleet(tmp_path, TASK, ps=2, workers=2, steps=0, checkpoint=EACH) as fleet:
        fleet.start_all()
        fleet.run(until=lambda: fleet.job.step >= 10)
        for worker in fleet.workers:
            worker.stopped = True
        fleet.client("end", how="interrupt", reason="told")
        fleet.kill_ps(index)
        if index == 0:
            fleet.start_ps(0)
        fleet.run(until=lambda: fleet.job.ending.over)
        assert fleet.job.ending.over == {"phase": "interrupted", "exit_code": 130, "reason": "told"}
        assert fleet.store.newest()[0].step >= 4


def test_what_a_replaced_ps_0_still_writes_is_refused(tmp_path):
    with Fleet(tmp_path, TASK, ps=1, workers=2, steps=0, checkpoint=EACH) as fleet:
        fleet.start_all()
        fleet.run(until=lambda: fleet.job.checkpointing.commits.busy > 1)
        commits, number = fleet.job.checkpointing.commits, fleet.job.checkpointing.commits.busy
        finish, fleet._finish_thread = fleet._finish_thread, lambda work: None
        fleet.run(until=lambda: fleet.loop.threads, limit=2000)
        fleet.job.rolled_back = True
        fleet.next_generation()
        fleet._finish_thread = finish
        fleet.run(until=lambda: fleet.job.step >= 20)
        assert commits.last["number"] < number
        assert {fleet.store.get(n).generation for n in fleet.store.numbers() if n >= number} <= {2}


def test_a_new_ps_waits_until_the_old_one_is_known_to_be_lost(tmp_path):
    with Fleet(tmp_path, TASK, ps=2, workers=1, steps=STEPS, checkpoint=EACH) as fleet:
        fleet.start_all()
        fleet.run(until=lambda: fleet.job.step >= 10)
        kind, answer = fleet.client("join", role="ps", index=1)
        assert (kind.name, answer["exit_code"]) == ("ERROR", 1)
        die_ps(fleet, 1)
        fleet.run()
        assert (fleet.job.phase, fleet.job.generation) == ("done", 2)


@pytest.mark.parametrize("strategy", ["async", "bounded", "sync"])
@pytest.mark.parametrize("seed", range(4))
def test_a_worker_drains_and_another_joins(tmp_path, strategy, seed):
    task = TASK if strategy != "sync" else Linear(items=50, batch=4)
    with Fleet(tmp_path, task, seed, ps=2, workers=3, steps=STEPS, strategy=strategy) as fleet:
        fleet.start_all()
        fleet.run(until=lambda: fleet.job.step >= 5)
        fleet.drain(fleet.workers[0])
        fleet.run(until=lambda: fleet.workers[0].ended)
        assert fleet.workers[0].ended == "drained"
        assert fleet.job.members.describe()[0]["state"] == "done"
        fleet.start(0)
        fleet.run()
        assert fleet.job.phase == "done"
        assert fleet.job.partial_updates == 0
        if strategy != "sync":
            assert exact(fleet)


@pytest.mark.parametrize("strategy", ["async", "bounded", "sync"])
@pytest.mark.parametrize("seed", range(8))
def test_everybody_is_asked_to_end_at_once(tmp_path, strategy, seed):
    spec = {"strategy": strategy, **({"replicas_to_aggregate": 5} if strategy == "sync" else {})}
    with Fleet(tmp_path, TASK, seed, ps=2, workers=3, steps=0, **spec) as fleet:
        fleet.start_all()
        fleet.run(until=lambda: fleet.job.step >= 5)
        acts = [lambda w=worker: fleet.drain(w) for worker in fleet.workers]
        acts.append(lambda: fleet.job.ending.ask("interrupt", "SIGTERM"))
        fleet.random.shuffle(acts)
        for act in acts:
            act()
        began = fleet.loop.time
        fleet.run()
        assert fleet.job.ending.over == {"phase": "interrupted", "exit_code": 130, "reason": "SIGTERM"}
        assert fleet.store.newest()[0].step == fleet.job.step >= 5
        assert fleet.loop.time - began < 10.0  # simulated: nobody waits for the grace to pass


@pytest.mark.parametrize(
    ("workers", "sentence"),
    [(0, "may have 1 to 8"), (9, "may have 1 to 8"), (4, ""), (1, "")],
)
def test_scaling(tmp_path, workers, sentence):
    with Fleet(tmp_path, TASK, ps=1, workers=2, steps=0, elastic={"min": 1, "max": 8}, checkpoint=EACH) as fleet:
        fleet.start_all()
        fleet.run(until=lambda: fleet.job.step >= 5)
        kind, answer = fleet.client("scale", workers=workers)
        if sentence:
            assert (kind.name, answer["exit_code"]) == ("ERROR", 2)
            assert sentence in answer["message"]
            assert fleet.job.status()["workers_wanted"] == 2
            return
        assert kind.name == "RESULT"
        assert f"scaled from 2 to {workers} workers" in fleet.job.notes
        die_ps(fleet, 0)
        fleet.run(until=lambda: fleet.job.generation == 2)
        assert fleet.job.status()["workers_wanted"] == workers


def test_a_job_with_a_ps_beside_each_worker_is_not_scaled(tmp_path):
    with Fleet(tmp_path, TASK, workers=2, ps_placement="colocated", steps=0) as fleet:
        fleet.start_all()
        fleet.run(until=lambda: fleet.job.step >= 5)
        for workers in (1, 2, 3):
            kind, answer = fleet.client("scale", workers=workers)
            assert (kind.name, answer["exit_code"]) == ("ERROR", 2)
            assert "a ps beside each of its 2 workers" in answer["message"]
        assert fleet.job.status()["workers_wanted"] == 2


def test_a_job_that_ends_is_not_scaled(tmp_path):
    with Fleet(tmp_path, TASK, ps=1, workers=2, steps=0) as fleet:
        fleet.start_all()
        fleet.run(until=lambda: fleet.job.step >= 5)
        fleet.client("end", how="stop", reason="")
        kind, answer = fleet.client("scale", workers=3)
        assert (kind.name, answer["exit_code"]) == ("ERROR", 2)
        assert "the job is ending" in answer["message"]
