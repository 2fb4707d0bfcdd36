"""How simulated jobs start: joining, the first worker's plan, initialisation, and what is refused."""

import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from simulated_fleet import Fleet, die
from simulated_worker import Counting

from tfleet.spec.layout import CHUNK

TASK = Counting(items=50, batch=4)
STEPS = 6


class Marked(Counting):
    """A model whose initial parameters differ from process to process, as after another download."""

    mark = 0

    def initial(self):
        return np.full(self.parameters, 100.0 * self.mark, np.float32)


def marked(worker):
    task = Marked(items=50, batch=4)
    task.mark = 1 + worker.fleet.workers.index(worker)
    return task


@given(st.integers(0, 2**32), st.integers(1, 3), st.lists(st.integers(0, 150), min_size=1, max_size=4, unique=True))
@settings(max_examples=60, deadline=None, derandomize=True)
def test_workers_that_die_while_the_job_starts(tmp_path_factory, seed, ps, deaths):
    folder = tmp_path_factory.mktemp("run")
    with Fleet(folder, TASK, seed, ps=ps, workers=2, steps=STEPS, task_of=marked) as fleet:
        fleet.start_all()
        fleet.run(at=dict.fromkeys(deaths, die))
        assert (fleet.job.phase, fleet.job.step) == ("done", STEPS)
        first = fleet.store.get(0)
        initial = fleet.committed(first)
        assert first.step == 0
        assert set(initial) == {initial[0]}  # all of it from one worker
        assert initial[0] in {100.0 * marked(worker).mark for worker in fleet.workers}
        change = TASK.counts(fleet.parameters() - initial[0])
        assert (change[:, :STEPS] != 1).any(0).sum() <= fleet.job.partial_updates


def test_the_initialising_worker_dies_while_its_commit_is_written(tmp_path):
    with Fleet(tmp_path, TASK, ps=2, workers=2, steps=STEPS, task_of=marked) as fleet:
        fleet.start_all()
        finish, fleet._finish_thread = fleet._finish_thread, lambda work: None
        fleet.run(until=lambda: fleet.loop.threads)
        initialiser = fleet.job.starting._initialiser
        victim = next(worker for worker in fleet.workers if worker.member == initialiser.number)
        victim.end("killed")
        for _ in range(200):
            fleet.step()
        fleet._finish_thread = finish
        fleet.run()
        assert fleet.job.phase == "done"
        assert set(fleet.committed(fleet.store.get(0))) == {100.0 * marked(victim).mark}


def test_late_initial_parameters_of_a_fenced_worker_are_refused(tmp_path):
    with Fleet(tmp_path, TASK, ps=2, workers=2, steps=STEPS, task_of=marked) as fleet:
        fleet.start_all()
        fleet.run(until=lambda: fleet.job.starting._initialiser)
        gone = fleet.job.starting._initialiser.number
        fleet.kill(next(worker for worker in fleet.workers if worker.member == gone))
        while gone not in fleet.ps[1]._fenced:
            fleet.step(only_reads=True)
        before = fleet.ps[1].partition.parameters.copy()
        late = np.ones(2 * CHUNK, np.float32).tobytes()
        _, answer = fleet.client("set", fleet.connect(1), late, member=gone)
        assert "not expected now" in answer["message"]
        assert fleet.ps[1].partition.parameters.tobytes() == before.tobytes()
        fleet.run()
        assert fleet.job.phase == "done"


def test_initial_parameters_after_the_start_are_refused(tmp_path):
    with Fleet(tmp_path, TASK, ps=2, workers=1, steps=0) as fleet:
        (worker,) = fleet.start_all()
        fleet.run(until=lambda: fleet.job.step > 3)
        before = fleet.ps[1].partition.parameters.copy()
        late = np.ones(2 * CHUNK, np.float32).tobytes()
        _, answer = fleet.client("set", fleet.connect(1), late, member=worker.member)
        assert "not expected now" in answer["message"]
        assert fleet.ps[1].partition.parameters.tobytes() == before.tobytes()


@pytest.mark.parametrize("count", [0, 1, 2 * CHUNK - 1])
def test_initial_parameters_of_another_size_are_refused(tmp_path, count):
    with Fleet(tmp_path, TASK, ps=2, workers=1) as fleet:
        fleet.start_all()
        fleet.run(until=lambda: fleet.job.starting._initialiser)
        fleet.workers[0].stopped = True
        _, answer = fleet.client("set", fleet.connect(1), np.ones(count, np.float32).tobytes(), generation=1)
        assert f"{4 * count} bytes of parameters, this partition holds {2 * CHUNK}" in answer["message"]
        assert not fleet.ps[1].partition.parameters.any()


def by_hand(fleet):
    """Returns a line that has joined as worker 7 and holds the initialisation lease."""
    line = fleet.connect(0)
    fleet.client("join", line, role="worker", index=7)
    fleet.client("describe", line, plan=TASK.plan.to_json())
    assert fleet.client("start", line)[1] == {"initialise": True}
    return line


@pytest.mark.parametrize("count", [0, 1, 3])
def test_state_and_frozen_values_of_another_size_are_refused(tmp_path, count):
    with Fleet(tmp_path, TASK, ps=1, workers=1) as fleet:
        line = by_hand(fleet)
        _, answer = fleet.client("initialised", line, np.ones(count, np.float32).tobytes())
        assert f"{count} values of state and frozen variables" in answer["message"]
        assert fleet.job.checkpointing.commits.busy < 0
        assert not fleet.job.state.any()


@pytest.mark.parametrize(
    "values",
    [
        {"call": "report", "step": 1, "commit": 0, "metrics": []},
        {"call": "report", "step": 1, "commit": 0, "metrics": {"loss": "low"}},
        {"call": "report", "step": None, "commit": 0, "metrics": {}},
        {"call": "beat"},
        {"call": "describe", "plan": {"layout": []}},
        {"call": "end"},
        {"call": "follow", "seen": "all"},
        {},
    ],
)
def test_a_call_with_wrong_values_costs_its_connection_only(tmp_path, values):
    with Fleet(tmp_path, TASK, ps=1, workers=1, steps=0) as fleet:
        fleet.start_all()
        fleet.run(until=lambda: fleet.job.step > 3)
        line = fleet.connect(0)
        fleet.client("join", line, role="evaluator", index=0)
        line.send(4, json.dumps(values).encode())
        fleet.settle_reads(line)
        assert line.take().kind.name == "ERROR"
        step = fleet.job.step
        fleet.run(until=lambda: fleet.job.step > step + 3)


@pytest.mark.parametrize(
    ("other", "sentence"),
    [
        (Counting(50, 4, parameters=CHUNK), "trainable variable w has shape [1024] instead of [3072]"),
        (Counting(60, 4), "items is 60 instead of 50"),
        (Counting(50, 5), "batch_items is 5 instead of 4"),
        (Counting(50, 4, state=3), "state variable s has shape [3] instead of [2]"),
    ],
)
def test_a_worker_with_another_model_or_data_ends_the_job_with_exit_2(tmp_path, other, sentence):
    tasks = {0: TASK, 1: other}
    with Fleet(tmp_path, TASK, ps=2, workers=2, steps=0, task_of=lambda worker: tasks[worker.index]) as fleet:
        fleet.start(0)
        fleet.run(until=lambda: fleet.job.plan)
        fleet.start(1)
        fleet.run()
        assert (fleet.job.phase, fleet.job.ending.over["exit_code"]) == ("failed", 2)
        assert "worker 1 built another model or data than the first worker" in fleet.job.ending.reason
        assert sentence in fleet.job.ending.reason
        assert fleet.workers[1].ended.startswith("2: ")


def test_other_metrics_are_another_model():
    plan = TASK.plan
    other = replace(plan, layout=replace(plan.layout, metrics=("loss", "accuracy")))
    assert other.difference(plan) == "metrics are loss, accuracy instead of loss"


def test_an_unknown_optimizer_ends_the_job_with_exit_2(tmp_path):
    class Odd(Counting):
        @property
        def plan(self):
            return replace(super().plan, optimizer={"name": "sgdd", "hyper": {}, "weight_decay": 0.0})

    with Fleet(tmp_path, Odd(50, 4), ps=2, workers=1, steps=6) as fleet:
        fleet.start_all()
        fleet.run()
        assert (fleet.job.phase, fleet.job.ending.over["exit_code"]) == ("failed", 2)
        assert "sgd" in fleet.job.ending.reason


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"role": "ps", "index": 2}, "ps 2 wants to join a job with 2 ps"),
        ({"role": "ps", "index": 0}, "ps 0 wants to join a job with 2 ps"),
        ({"role": "wroker", "index": 0}, "did you mean 'worker'?"),
    ],
)
def test_what_cannot_join_is_told_why(tmp_path, values, sentence):
    with Fleet(tmp_path, TASK, ps=2, workers=1) as fleet:
        fleet.settle()
        kind, answer = fleet.client("join", **values)
        assert (kind.name, answer["exit_code"]) == ("ERROR", 2)
        assert sentence in answer["message"]


def test_a_ps_that_has_joined_already_may_try_again(tmp_path):
    with Fleet(tmp_path, TASK, ps=2, workers=1) as fleet:
        fleet.settle()
        kind, answer = fleet.client("join", role="ps", index=1)
        assert (kind.name, answer["exit_code"]) == ("ERROR", 1)
        assert answer["message"].startswith("ps 1 has joined already")


def test_nobody_joins_twice_by_one_connection(tmp_path):
    with Fleet(tmp_path, TASK, ps=1, workers=1) as fleet:
        line = fleet.connect(0)
        for _ in range(2):
            line.send(4, b'{"call":"join","role":"worker","index":0}')
            fleet.settle_reads(line)
        assert b"member" in line.take().meta
        assert b"has joined already by this connection" in line.take().meta
        assert len(fleet.job.members.living) == 1


def test_a_worker_that_joins_again_replaces_its_former_self(tmp_path):
    with Fleet(tmp_path, TASK, ps=2, workers=1, steps=STEPS) as fleet:
        fleet.start(0)
        fleet.run(until=lambda: fleet.job.step == 2)
        fleet.workers[0].stopped = True  # as on a machine that is cut off: its connections stay open
        fleet.start(0)
        fleet.run()
        assert fleet.workers[1].ended == "over"
        assert "worker 0 has joined again" in fleet.job.notes
        assert fleet.job.step == STEPS


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        ({"call": "initialised"}, "was not asked to initialise"),
        ({"call": "finalise"}, "was not asked to finalise"),
        ({"call": "finalised", "export": "", "metrics": {}}, "was not asked to finalise"),
        ({"call": "evaluation"}, "was not asked to evaluate"),
        ({"call": "sing"}, "ps 0 does not know the call 'sing'"),
        ({"call": "end", "how": "stopp", "reason": ""}, "did you mean 'stop'?"),
    ],
)
def test_calls_without_their_lease_are_refused(tmp_path, call, sentence):
    with Fleet(tmp_path, TASK, ps=1, workers=2, steps=0) as fleet:
        fleet.start_all()
        fleet.run(until=lambda: fleet.job.step > 3)
        line = next(worker for worker in fleet.workers if worker.waits).lines[0]
        fleet.run(until=lambda: line.ready)
        line.take()
        line.send(4, json.dumps(call).encode())
        fleet.settle_reads(line)
        assert sentence in json.loads(line.take().meta)["message"]
        assert fleet.job.phase == "training"


@pytest.mark.parametrize("name", ["prepare", "fence", "hold", "cut", "written", "over", "ping"])
@pytest.mark.parametrize("ps", [0, 1])
def test_only_the_coordinator_commands_a_ps(tmp_path, name, ps):
    with Fleet(tmp_path, TASK, ps=2, workers=1, steps=0) as fleet:
        fleet.start_all()
        fleet.run(until=lambda: fleet.job.step > 3)
        line = fleet.connect(ps)
        line.send(4, b'{"call":"%s","member":1,"number":9,"table":[]}' % name.encode())
        fleet.settle_reads(line)
        assert line.take().kind.name == "ERROR"
        step = fleet.job.step
        fleet.run(until=lambda: fleet.job.step > step + 3)


def test_an_answer_that_nobody_asked_for_is_no_answer(tmp_path):
    with Fleet(tmp_path, TASK, ps=2, workers=1, steps=0) as fleet:
        fleet.start_all()
        fleet.run(until=lambda: fleet.job.links._pending)
        line = fleet.connect(0)
        for number in (*fleet.job.links._pending, "x", None, 10**30):
            line.send(5, json.dumps({"id": number}).encode())
        fleet.settle_reads(line)
        assert fleet.job.links._pending  # still waits for the ps that was asked
        fleet.run(until=lambda: fleet.job.step > 3)
