"""`tfleet attach`, `--detach` and `tfleet join` as far as they need no job."""

import json
import signal

import pytest
from fake_jobs import FakeJob, done, status

from tfleet.api.detached import until_started
from tfleet.api.follow import Interrupts
from tfleet.cli.main import run
from tfleet.spec.errors import ExitCode
from tfleet.spec.job import JobSpec
from tfleet.spec.rundir import RunDir


@pytest.fixture
def job(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    here = RunDir.at("old")
    here.create()
    here.write_job(JobSpec.parse({"task": "mnist"}).dump())
    fake = FakeJob(here.path, [status("training", 5), status("training", 5), status("training", 900), done()])
    fake.outlives = True
    monkeypatch.setattr("tfleet.backends.local.open_job", lambda handle: fake)
    monkeypatch.setattr("tfleet.api.follow.INTERVAL", 0.0)
    return fake


def test_attach_follows_to_the_end(job, capsys):
    assert run(["attach", "old"]) == 0
    out = capsys.readouterr().out
    assert out.startswith("following mnist in old; Ctrl-C leaves it running\n")
    assert "2,000 steps, 8.0 s of training" in out
    assert job.endings == []
    assert job.closed


@pytest.mark.parametrize("code", [1, 2, 130])
def test_attach_ends_with_the_code_of_the_job(job, capsys, code):
    job.left[-1] = status("interrupted" if code == 130 else "failed", 900, exit_code=code, reason="worker 1 found it")
    job.code = ExitCode(code)
    assert run(["attach", "old", "-o", "json"]) == code
    out, err = capsys.readouterr()
    assert json.loads(out)["exit_code"] == code
    assert err.splitlines()[-1].startswith("tfleet: ")


def test_attach_to_a_job_that_is_over_tells_how_it_ended(job, capsys):
    job.left = [done()]
    assert run(["attach", "old"]) == 0
    assert "following" not in capsys.readouterr().out


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_leaves_the_job_alone_and_says_so(job, capsys, monkeypatch, number):
    real = FakeJob.poll

    def poll(self):
        if len(self.left) == 2:
            signal.raise_signal(number)
        return real(self)

    job.left = [status("training", n) for n in range(6)]
    monkeypatch.setattr(FakeJob, "poll", poll)
    assert run(["attach", "old"]) == 130
    err = capsys.readouterr().err
    assert err.splitlines()[-1] == (
        "tfleet: interrupted, but the job goes on: 'tfleet status old' tells what it does, "
        "'tfleet attach old' follows it again"
    )
    assert job.endings == []


def test_attach_to_nothing(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert run(["attach", "nowhere"]) == 2
    assert "nowhere is not a run directory" in capsys.readouterr().err


def test_a_detached_job_has_started_with_its_first_step(tmp_path):
    job = FakeJob(tmp_path, [{}, status("starting"), status("training", 0), status("training", 3), done()])
    outcome = until_started(job, Interrupts(), lambda _: None)
    assert (outcome.code, outcome.detached, outcome.status["step"]) == (0, True, 3)


def test_a_job_that_ends_before_it_was_detached(tmp_path):
    job = FakeJob(tmp_path, [{}, status("starting"), status("failed", reason="no data")], ExitCode.WRONG_INPUT)
    outcome = until_started(job, Interrupts(), lambda _: None)
    assert (outcome.code, outcome.detached, outcome.status["reason"]) == (2, False, "no data")


def test_ctrl_c_before_a_job_is_detached_ends_it(tmp_path):
    job = FakeJob(tmp_path, [{}, status("starting"), status("training", 5), status("interrupted", 5)], ExitCode(130))
    outcome = until_started(job, Interrupts(count=1), lambda _: None)
    assert (outcome.code, outcome.detached) == (130, False)
    assert job.endings == [("interrupt", "interrupted by Ctrl-C while it was started")]


def test_join_of_what_is_no_job(capsys):
    assert run(["join", "nowhere"]) == 2
    err = capsys.readouterr().err
    assert err == (
        "tfleet: 'nowhere' is neither an address nor a folder; give HOST:PORT, unix:@name or a run directory\n"
    )
    signal.signal(signal.SIGTERM, signal.SIG_DFL)


def test_a_run_of_a_newer_version_is_refused_by_every_command(job, capsys):
    RunDir.at("old").format_file.write_text("2\n")
    commands = ["status", "logs", "stop", "attach", "eval", "export", "tensorboard", "join"]
    for command in (*([c, "old"] for c in commands), ["scale", "old", "--workers", "2"]):
        assert run(command) == 2, command
        assert "is of a newer tfleet" in capsys.readouterr().err, command
    for flags in (["--resume"], ["mnist"]):
        assert run(["train", *flags, "--run-dir", "old"]) == 2
        assert "is of a newer tfleet" in capsys.readouterr().err
