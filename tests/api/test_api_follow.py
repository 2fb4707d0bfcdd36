"""Following a job: signals, endings, reasons."""

import signal
import threading

import pytest
from fake_jobs import FakeJob, done, status

from tfleet.api.follow import INTERVAL, Interrupts, Outcome, follow
from tfleet.api.places import LocalPlace
from tfleet.api.progress import Printer
from tfleet.spec.errors import ExitCode, Interrupted, JobFailed, WrongInput
from tfleet.spec.rundir import RunDir


def run_of(tmp_path):
    run = RunDir.at(tmp_path / "run")
    run.create()
    return run


def test_follow_shows_statuses_until_the_job_has_ended(tmp_path):
    job = FakeJob(tmp_path, [{}, status("starting"), status("training", 5), done()])
    lines = []
    outcome = follow(job, Printer(lines.append), Interrupts(), clock=lambda: 0.0, sleep=lambda _: None)
    assert outcome == Outcome(ExitCode.DONE, done())
    assert lines[-1].startswith("held out at step 2,000")
    assert job.endings == []


def test_the_job_itself_knows_how_long_to_wait(tmp_path, monkeypatch):
    job = FakeJob(tmp_path, [{}, status("training", 5), done()])
    naps = []
    monkeypatch.setattr(job, "wait", naps.append)
    follow(job, Printer(print), Interrupts())
    assert naps
    assert set(naps) == {INTERVAL}


@pytest.mark.parametrize(
    ("number", "name"), [(signal.SIGINT, "Ctrl-C"), (signal.SIGTERM, "SIGTERM"), (signal.SIGHUP, "SIGHUP")]
)
def test_first_signal_asks_for_a_final_commit_and_waits(tmp_path, number, name):
    job = FakeJob(
        tmp_path, [{}] + [status("training", n) for n in range(4)] + [status("interrupted", 4)], ExitCode(130)
    )
    lines, interrupts = [], Interrupts()
    before = signal.getsignal(number)
    with interrupts.caught():
        naps = iter([number])
        outcome = follow(
            job,
            Printer(lines.append),
            interrupts,
            clock=lambda: 0.0,
            sleep=lambda _: [signal.raise_signal(n) for n in naps],
        )
    assert job.endings == [("interrupt", f"interrupted by {name}")]
    assert any("Ctrl-C again kills" in line for line in lines)
    assert outcome.code == ExitCode.INTERRUPTED
    assert signal.getsignal(number) is before


def test_second_signal_raises_at_once(tmp_path):
    job = FakeJob(tmp_path, [status("training", n) for n in range(9)])
    interrupts = Interrupts()
    with interrupts.caught(), pytest.raises(KeyboardInterrupt):
        follow(job, Printer(print), interrupts, sleep=lambda _: signal.raise_signal(signal.SIGINT))
    assert job.endings == [("interrupt", "interrupted by Ctrl-C")]


def test_an_ignored_signal_stays_ignored():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with Interrupts().caught():
            assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


def test_signals_are_left_alone_outside_the_main_thread():
    errors = []

    def body():
        try:
            with Interrupts().caught():
                pass
        except ValueError as error:
            errors.append(error)

    thread = threading.Thread(target=body)
    thread.start()
    thread.join()
    assert errors == []


def test_error_of_a_wrong_input_is_its_sentence(tmp_path):
    outcome = Outcome(ExitCode.WRONG_INPUT, status("failed", reason="the model is not compiled"))
    error = outcome.error(LocalPlace(run_of(tmp_path)))
    assert isinstance(error, WrongInput)
    assert str(error) == "the model is not compiled"


def test_error_of_a_failure_names_the_log_to_read(tmp_path):
    run = run_of(tmp_path)
    run.log("worker", 1).write_text("boom\n")
    error = Outcome(ExitCode.FAILED, status("failed", reason="NaN in the loss of worker 1.")).error(LocalPlace(run))
    assert isinstance(error, JobFailed)
    assert str(error) == f"NaN in the loss of worker 1; read {run.log('worker', 1)}"


def test_error_of_a_reason_that_names_its_log_says_no_more(tmp_path):
    run = run_of(tmp_path)
    reason = f"ps 1 ended with signal 9, its log is {run.log('ps', 1)}"
    assert str(Outcome(ExitCode.FAILED, status("failed", reason=reason)).error(LocalPlace(run))) == reason


def test_error_without_any_status(tmp_path):
    run = run_of(tmp_path)
    error = Outcome(ExitCode.FAILED, {}).error(LocalPlace(run))
    assert str(error) == f"the job ended before it could say why; read {run.logs}"
    run.log("ps", 0).write_text("")
    assert LocalPlace(run).where_to_look("no reason") == f"read {run.log('ps', 0)}"


def test_error_of_an_interrupted_job_says_how_to_go_on(tmp_path, monkeypatch):
    run = run_of(tmp_path)
    monkeypatch.chdir(tmp_path)
    error = Outcome(ExitCode.INTERRUPTED, status("interrupted", 1234)).error(LocalPlace(run))
    assert isinstance(error, Interrupted)
    assert str(error) == (
        "interrupted at step 1,234, all of it committed; go on with 'tfleet train --resume --run-dir run'"
    )


def test_no_error_of_a_job_that_is_done(tmp_path):
    assert Outcome(ExitCode.DONE, done()).error(LocalPlace(run_of(tmp_path))) is None


def test_error_of_a_job_interrupted_before_it_trained(tmp_path):
    error = Outcome(ExitCode.INTERRUPTED, status("interrupted", 0)).error(LocalPlace(run_of(tmp_path)))
    assert str(error).startswith("interrupted before the first step; go on with")
