"""`tfleet.train` and `tfleet.Run`, over a backend that replays statuses."""

import json
import math
import subprocess

import pytest
from fake_jobs import FakeBackend, done, status

import tfleet
from tfleet.spec.errors import ExitCode, Interrupted, JobFailed, WrongInput
from tfleet.spec.job import JobSpec


@pytest.fixture
def backend(monkeypatch, tmp_path):
    fake = FakeBackend([{}, status("training", 900), done()])
    monkeypatch.setattr("tfleet.api.run.local_backend", lambda: fake)
    monkeypatch.setattr("tfleet.api.follow.INTERVAL", 0.0)
    monkeypatch.chdir(tmp_path)
    return fake


@pytest.fixture
def run(tmp_path):
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "job.yaml").write_text(JobSpec.parse({"task": "mnist"}).dump())
    return tfleet.Run(folder)


def test_train_starts_the_job_and_returns_its_run(backend, capsys):
    run = tfleet.train("mnist", workers=3, ps=1, steps=500, params={"hidden_units": 50}, eval_every=100, run_dir="here")
    spec = backend.started.spec
    assert (spec.workers, spec.ps, spec.steps, spec.evaluation.every_steps) == (3, 1, 500, 100)
    assert spec.params == {"hidden_units": "50"}
    assert run.dir.name == "here"
    assert run.metrics == {"loss": 0.2412, "accuracy": 0.931}
    assert repr(run) == "Run('here': done, step 2,000, held out: accuracy 0.9310 · loss 0.2412)"
    assert backend.job.closed
    out = capsys.readouterr().out
    assert out.startswith("run directory: here\n")
    assert "training with 2 workers" in out
    assert out.endswith(repr(run) + "\n")


def test_train_without_progress_prints_nothing(backend, capsys):
    tfleet.train("mnist", progress=False)
    assert capsys.readouterr().out == ""


def test_unknown_keyword_is_refused(backend):
    with pytest.raises(WrongInput, match=r"unknown keyword batchsize \(did you mean 'batch_size'\?\)"):
        tfleet.train("mnist", batchsize=5)
    assert backend.started is None


def test_wrong_value_names_the_keyword(backend):
    with pytest.raises(WrongInput, match=r"^workers: given 0, .* greater than or equal to 1; change workers$"):
        tfleet.train("mnist", workers=0)


@pytest.mark.parametrize("task", [object(), lambda: None, "__main__:task"])
def test_a_task_that_lives_in_memory_is_refused_with_the_way_out(backend, task):
    with pytest.raises(WrongInput, match=r"%%writefile my_task\.py.*give 'my_task\.py:task'"):
        tfleet.train(task)


def test_unknown_task_is_refused_before_anything_is_started(backend):
    with pytest.raises(WrongInput, match="mnist"):
        tfleet.train("mnst")
    assert backend.started is None


def test_failure_raises_the_reason(backend):
    backend.statuses, backend.code = [status("failed", reason="no worker came for 600 s")], ExitCode.FAILED
    with pytest.raises(JobFailed, match="no worker came for 600 s; read "):
        tfleet.train("mnist")
    assert backend.job.closed


def test_interruption_raises_how_to_go_on(backend):
    backend.statuses, backend.code = [status("interrupted", 12)], ExitCode.INTERRUPTED
    with pytest.raises(Interrupted, match="--resume --run-dir runs/mnist-"):
        tfleet.train("mnist", progress=False)


def test_run_needs_a_run_directory(tmp_path):
    with pytest.raises(WrongInput, match="not a run directory"):
        tfleet.Run(tmp_path)


def test_a_run_that_has_told_nothing_yet(run):
    assert run.status() == {}
    assert run.metrics == {}
    assert run.history() == []
    assert "not started, step 0" in repr(run)


def test_history_leaves_out_a_line_that_is_being_written(run):
    lines = [{"step": 100, "loss": 0.5}, {"step": 200, "loss": 0.4}]
    text = "".join(json.dumps(line) + "\n" for line in lines)
    (run.dir / "metrics.jsonl").write_text(text + '{"step": 3')
    assert run.history() == lines


def answers(monkeypatch, code, out="", err=""):
    asked = []

    def fake(arguments, **_):
        asked.append(arguments)
        return subprocess.CompletedProcess(arguments, code, out, err)

    monkeypatch.setattr(subprocess, "run", fake)
    return asked


def test_evaluate_and_export_ask_the_command(run, monkeypatch):
    asked = answers(
        monkeypatch,
        0,
        '{"commit": 4, "step": 2000, "metrics": {"accuracy": 0.93, "loss": "inf"}, "export": "/x/export/2"}',
    )
    assert run.evaluate(commit=4) == {"accuracy": 0.93, "loss": math.inf}
    assert str(run.export()) == "/x/export/2"
    assert asked[0][1:] == ["-m", "tfleet", "eval", str(run.dir), "--commit", "4", "-o", "json"]


def test_evaluate_raises_what_the_command_said(run, monkeypatch):
    answers(monkeypatch, 2, err="a warning of TensorFlow\ntfleet: there is no commit 9; choose one of 3, 4\n")
    with pytest.raises(WrongInput, match=r"^there is no commit 9; choose one of 3, 4$"):
        run.evaluate(commit=9)
    answers(monkeypatch, -9)
    with pytest.raises(JobFailed, match="tfleet eval ended with exit code -9"):
        run.evaluate()


def test_second_ctrl_c_kills_the_job(backend, monkeypatch):
    def follow(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("tfleet.api.run.follow", follow)
    with pytest.raises(Interrupted, match="killed; what was committed is kept; go on with"):
        tfleet.train("mnist", progress=False)
    assert backend.job.closed
