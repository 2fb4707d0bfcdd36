"""What `tfleet join` finds out before it becomes a worker, and what it refuses, without a job."""

from __future__ import annotations

import itertools
import os

import pytest
from certificates import files

from tfleet import __version__
from tfleet.backends import joining
from tfleet.backends.joining import find_seat, find_token
from tfleet.spec.environment import TLS_VARIABLES
from tfleet.spec.errors import WrongInput
from tfleet.spec.job import JobSpec
from tfleet.spec.rundir import RunDir
from tfleet.wire.client import ConnectionLost
from tfleet.wire.frames import ProtocolError

HERE = "10.0.0.5:7000"


@pytest.fixture
def run(tmp_path):
    """The run directory of a job that trains."""
    made = RunDir.at(tmp_path / "run")
    made.create()
    made.make_token()
    made.write_job(JobSpec.parse({"task": "mnist", "threads": 3}).dump())
    made.endpoint_file.write_text(HERE)
    return made


@pytest.fixture
def ps(run, monkeypatch):
    """Stands in for ps 0: what it answers to the questions to come, the last one for ever."""
    told = {"version": __version__, "run_dir": str(run.path), "ready": True}

    class Answers(list):
        def call(self, address, token, name, tls=None):
            self.tls = tls
            self.asked.append((str(address), token.decode(), name))
            answer = self.pop(0) if len(self) > 1 else self[0]
            if isinstance(answer, Exception):
                raise answer
            return {**told, **answer}

    answers = Answers([{}])
    answers.asked = []
    monkeypatch.setattr(joining.control, "call", answers.call)
    return answers


def join(target, token_file="", run_dir="", environ=None, tell=lambda line: None):
    times = itertools.count()
    return find_seat(target, str(token_file), str(run_dir), environ or {}, tell, lambda: next(times), lambda _: None)


def refused(sentence, *arguments, **how):
    with pytest.raises(WrongInput, match=sentence):
        join(*arguments, **how)


def test_by_tls_with_the_files_that_are_named_or_else_those_of_the_job(run, ps):
    given, before = files(), run.job_file.read_text()
    join(HERE, run.token_file)
    assert ps.tls is None
    named = {TLS_VARIABLES[name]: path for name, path in given.items()}
    seat = join(HERE, run.token_file, environ=named)
    assert ps.tls
    assert named.items() <= seat.environment(named).items()
    run.job_file.write_text(JobSpec.load(run.job_file).model_copy(update=given).dump())
    join(HERE, run.token_file, str(run.path))
    assert ps.tls
    run.job_file.write_text(JobSpec.load(run.job_file).model_copy(update=files(valid="expired")).dump())
    refused("has expired; renew it", HERE, run.token_file, environ={})
    refused(r"go together: set TFLEET_TLS_KEY and", HERE, run.token_file, environ={"TFLEET_TLS_CERT": "/x"})
    run.job_file.write_text(before)
    refused(r"TLS does nothing at unix:@here, which no network reaches", "unix:@here", run.token_file, environ=named)


def test_by_address_with_a_token_file(run, ps):
    seat = join(HERE, run.token_file)
    assert (seat.address, seat.run, seat.spec.threads) == (HERE, run, 3)
    assert ps.asked == [(HERE, run.token_file.read_text(), "invitation")]


def test_by_the_run_directory_alone(run, ps):
    assert join(str(run.path)).address == HERE
    assert ps.asked[0][1] == run.token_file.read_text()


def test_the_token_is_on_no_command_line_and_in_no_environment(run, ps):
    token = run.token_file.read_text()
    seat = join(HERE, environ={"TFLEET_TOKEN": f" {token}\n"})
    assert token not in " ".join(seat.command())
    before = {"TFLEET_TOKEN": token, "JOB_NAME": "ps", "HOME": "/root"}
    environment = seat.environment(before)
    assert token not in environment.values()
    assert (environment["HOME"], environment["OMP_NUM_THREADS"]) == ("/root", "3")
    assert "JOB_NAME" not in environment
    assert environment["TFLEET_TOKEN_FILE"] == str(run.token_file)


def test_where_the_token_comes_from(run, tmp_path):
    files = {name: tmp_path / name for name in ("flag", "variable")}
    for name, file in files.items():
        file.write_text(f"{name}\n")
        file.chmod(0o600)
    everything = {"TFLEET_TOKEN_FILE": str(files["variable"]), "TFLEET_TOKEN": "secret"}
    assert find_token(str(files["flag"]), everything, run) == b"flag"
    assert find_token("", everything, run) == b"variable"
    assert find_token("", {"TFLEET_TOKEN": "secret"}, run) == b"secret"
    assert find_token("", {}, run) == run.token_file.read_bytes()
    with pytest.raises(
        WrongInput, match=r"the job's token is needed.*--token-file or TFLEET_TOKEN_FILE.* TFLEET_TOKEN"
    ):
        find_token("", {}, None)


def test_tokens_that_cannot_be_used(run, ps, tmp_path):
    file = tmp_path / "token"
    refused("token cannot be read: No such file or directory; give a readable file by --token-file", HERE, file)
    refused("cannot be read: .*; give a readable file in TFLEET_TOKEN_FILE", HERE, environ={"TFLEET_TOKEN_FILE": "no"})
    refused("cannot be read: Is a directory", HERE, tmp_path)
    refused("TFLEET_TOKEN is empty", HERE, environ={"TFLEET_TOKEN": " "})
    file.write_text("x")
    for mode in (0o640, 0o604, 0o644):
        file.chmod(mode)
        refused(rf"can be read by others \(mode {mode:04o}\), .*: chmod 600 {file}", HERE, file)
    file.chmod(0o400)
    file.write_text("")
    refused("is empty", HERE, file)
    assert ps.asked == []


@pytest.mark.parametrize("target", ["nowhere", "10.0.0.5:0", "10.0.0.5:99999", "host:", ":7000", "unix:x"])
def test_targets_that_are_none(ps, target):
    refused("is neither an address nor a folder; give HOST:PORT, unix:@name or a run directory", target)
    assert ps.asked == []


def test_other_targets_that_cannot_be_joined(run, ps, tmp_path):
    refused(r"on a cluster is not joined by hand; 'tfleet scale k8s://a/b/c --workers N'", "k8s://a/b/c")
    refused("is not a run directory", str(tmp_path))
    refused("is not a run directory", HERE, run_dir=tmp_path)
    refused("are two run directories", str(run.path), run_dir=tmp_path)
    for phase in ("done", "failed", "stopped", "interrupted"):
        run.status_file.write_text(f'{{"phase": "{phase}"}}')
        refused(rf"is over \({phase}\); only a job that trains", str(run.path))
    assert ps.asked == []


def test_what_ps_0_answers(run, ps):
    for answer, sentence in (
        (ConnectionLost(f"nobody answers at {HERE}"), f"nobody answers at {HERE}; see by .* with --listen"),
        (
            ProtocolError("the peer speaks protocol version 9"),
            rf"is no ps of this tfleet \({__version__}\): .*version 9",
        ),
        (WrongInput("wrong token: give the token file of this job"), "wrong token"),
        (WrongInput("the job is ending"), "the job is ending"),
        ({"version": "9.9"}, f"the job runs with tfleet 9.9, and this is {__version__}; install the same here"),
    ):
        ps[:] = [answer]
        refused(sentence, HERE, run.token_file)


def test_a_job_that_starts_is_waited_for(run, ps):
    ps[:] = [{"ready": False}, {"ready": False}, {}]
    lines = []
    assert join(HERE, run.token_file, tell=lines.append).run == run
    assert len(ps.asked) == 3
    assert lines == ["the job is starting: waiting until it trains"]


def test_a_job_that_starts_for_ever_is_given_up(run, ps):
    ps[:] = [{"ready": False}]
    refused("has not begun to train", HERE, run.token_file)


def test_run_directories_that_are_not_seen(run, ps, tmp_path):
    ps[:] = [{"run_dir": "/elsewhere/run"}]
    refused("/elsewhere/run is not there on this machine.*mount it .*--run-dir", HERE, run.token_file)
    assert join(HERE, run.token_file, run.path).run == run
    other = RunDir.at(tmp_path / "other")
    other.create()
    other.make_token()
    other.write_job("task: mnist\n")
    refused(f"other is not that of the job at {HERE}, whose is /elsewhere/run", HERE, run.token_file, other.path)
    run.format_file.write_text("7")
    refused("of a newer tfleet", HERE, run.token_file, run.path)


@pytest.mark.skipif(os.getuid() == 0, reason="root may write everywhere")
def test_a_run_directory_that_cannot_be_written(run, ps):
    run.export.chmod(0o500)
    refused("export cannot be written by this user", HERE, run.token_file)


def test_a_task_or_data_that_this_machine_lacks(run, ps):
    run.write_job(JobSpec.parse({"task": "/elsewhere/task.py:task"}).dump())
    refused("the file /elsewhere/task.py of the task .* does not exist", HERE, run.token_file)
    run.write_job(JobSpec.parse({"task": "mnist", "data_dir": "/elsewhere/data"}).dump())
    refused("the job's data folder /elsewhere/data is not there on this machine", HERE, run.token_file)
