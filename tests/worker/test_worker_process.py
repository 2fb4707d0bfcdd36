"""How a worker or evaluator is a member of the job again and again, and with which code it ends; without TensorFlow."""

from __future__ import annotations

import json

import pytest

from tfleet.spec.errors import JobFailed, WrongInput
from tfleet.spec.job import JobSpec
from tfleet.spec.rundir import RunDir
from tfleet.strategies.exchange import Rejoin
from tfleet.wire.client import ConnectionLost
from tfleet.worker import process
from tfleet.worker.process import WorkerProcess


class Left(Exception):
    """Stands for the end of the process by os._exit."""


class Sessions:
    """Stands in for `Session`: each membership goes as the test says."""

    def __init__(self, *acts):
        self.acts = list(acts)
        self.made = []

    def __call__(self, address, token, role, index, **how):
        act = self.acts.pop(0)
        self.made.append({**how, "index": index})
        if isinstance(act, Exception):
            how["pause"](0.0)
            raise act
        return Session(*act)


class Session:
    def __init__(self, work, outcome=None):
        self.work, self.told, self.generation, self.closed = work, outcome or {}, 3, False
        self.first = self
        self.index = 7
        self.calls = []

    def call(self, name, **values):
        self.calls.append((name, values))

    def outcome(self):
        return self.told

    def close(self):
        self.closed = True


@pytest.fixture
def worker(tmp_path, monkeypatch):
    """Returns a function that runs a worker whose memberships go as told."""
    monkeypatch.setattr(process, "AGAIN", 0.0)
    monkeypatch.setattr(process.signal, "signal", lambda *_: None)
    run = RunDir.at(tmp_path)
    run.create()
    run.make_token()
    environment = {"JOB_NAME": "worker", "POD_NAME": "worker-0", "PS_HOSTS": "unix:@a", "WORKER_HOSTS": "unix:@b"}
    for name, value in {**environment, "TFLEET_RESTARTS": "2"}.items():
        monkeypatch.setenv(name, value)

    def make(*acts, joins="", **values):
        run.job_file.write_text(JobSpec.parse({"task": "mnist", **values}).dump())
        made = WorkerProcess("worker", -1, run, joins) if joins else WorkerProcess("worker", 0, run)
        made.sessions = Sessions(*acts)
        monkeypatch.setattr(process, "Session", made.sessions)

        def take_part(session):
            if isinstance(session.work, Exception):
                raise session.work
            return session.work

        monkeypatch.setattr(made, "_take_part", take_part)
        return made

    make.run_dir = run
    return make


def test_the_code_is_that_of_the_work(worker):
    made = worker((0,))
    assert made.run() == 0
    assert made.sessions.made[0]["restarts"] == 2


@pytest.mark.parametrize("loss", [ConnectionLost("ps 0 closed the connection"), Rejoin()])
def test_who_is_lost_joins_again(worker, loss):
    made = worker((loss,), ConnectionLost("nobody"), (loss, {"phase": "training"}), (0,))
    assert made.run() == 0
    assert len(made.sessions.made) == 4


@pytest.mark.parametrize("code", [0, 1, 2, 130])
def test_ps_0_tells_how_the_job_ended(worker, code):
    made = worker((ConnectionLost("lost"), {"phase": "failed", "exit_code": code, "reason": ""}))
    assert made.run() == code


@pytest.mark.parametrize(("phase", "code"), [("done", 0), ("failed", 1), ("interrupted", 130)])
def test_the_run_directory_tells_how_the_job_ended_when_ps_0_cannot(worker, phase, code):
    made = worker((ConnectionLost("lost"),), ConnectionLost("nobody"))
    worker.run_dir.status_file.write_text(json.dumps({"phase": phase, "exit_code": code, "generation": 3}))
    assert made.run() == code


def test_the_status_of_an_earlier_generation_says_nothing(worker):
    made = worker((ConnectionLost("lost"),), ConnectionLost("nobody"), (0,))
    worker.run_dir.status_file.write_text(json.dumps({"phase": "failed", "exit_code": 1, "generation": 2}))
    assert made.run() == 0


def test_who_has_never_joined_believes_no_status(worker):
    made = worker(ConnectionLost("nobody"), (0,))
    worker.run_dir.status_file.write_text(json.dumps({"phase": "failed", "exit_code": 1, "generation": 9}))
    assert made.run() == 0


def test_patience_ends(worker):
    made = worker(*[ConnectionLost("nobody answers")] * 1000, join_timeout=0.001)
    with pytest.raises(JobFailed, match="nobody answers"):
        made.run()


def test_what_is_wrong_is_told_to_ps_0_and_ends_the_process(worker):
    made = worker((WrongInput("no such data"),))
    with pytest.raises(WrongInput, match="no such data"):
        made.run()


def test_a_drained_worker_does_not_join_again(worker):
    made = worker((ConnectionLost("lost"),))
    made._draining.set()
    assert made.run() == 130


def test_sigterm_ends_who_has_no_batch_at_once(worker, monkeypatch):
    def leave(code):
        assert code == 130
        raise Left

    monkeypatch.setattr(process.os, "_exit", leave)
    made = worker((0,))
    with pytest.raises(Left):
        made._terminated()
    made._training = True
    made._terminated()  # finishes its batch first
    assert made._draining.is_set()


def test_a_guest_needs_no_environment_and_keeps_the_number_that_ps_0_gave(worker, monkeypatch, capsys):
    for name in ("JOB_NAME", "POD_NAME", "PS_HOSTS", "WORKER_HOSTS", "TFLEET_RESTARTS"):
        monkeypatch.delenv(name)
    made = worker((Rejoin(),), (0,), joins="127.0.0.1:7000")
    assert made.run() == 0
    first, second = made.sessions.made
    assert (first["index"], second["index"]) == (-1, 7)
    assert first["guest"] == second["guest"] != ""
    assert "joined mnist as worker 7" in capsys.readouterr().out


def test_another_worker_is_no_guest(worker):
    made = worker((0,))
    made.run()
    assert made.sessions.made[0]["guest"] == ""


def test_a_guest_that_is_asked_twice_ends_at_once(worker, monkeypatch):
    def leave(code):
        assert code == 130
        raise Left

    monkeypatch.setattr(process.os, "_exit", leave)
    made = worker((0,), joins="127.0.0.1:7000")
    made._training = True
    made._terminated()
    with pytest.raises(Left):
        made._terminated()


@pytest.mark.parametrize(
    ("code", "said"),
    [(0, "the job is done"), (130, "left the job"), (1, "the job has failed"), (2, "the job has failed")],
)
def test_a_guest_says_how_it_ends(worker, monkeypatch, capsys, code, said):
    made = worker((code,), joins="127.0.0.1:7000")
    monkeypatch.setattr(process, "WorkerProcess", lambda *_: made)
    assert process.main("worker", -1, worker.run_dir, "127.0.0.1:7000") == code
    assert capsys.readouterr().out.endswith(f"tfleet: {said}\n")


@pytest.mark.parametrize(("trains", "waits"), [(True, [process.LIFELINE_GRACE]), (False, [])])
def test_without_a_launcher_only_who_trains_is_given_time(worker, monkeypatch, trains, waits):
    did = []
    monkeypatch.setattr(process.time, "sleep", did.append)
    monkeypatch.setattr(process, "end_at_once", lambda: did.append("end"))
    made = worker()
    made._training = trains
    made._orphaned()
    assert did == [*waits, "end"]
