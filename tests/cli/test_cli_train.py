"""`tfleet train` over a backend that replays statuses."""

import json

import pytest
from fake_jobs import status

from tfleet.cli.main import run
from tfleet.spec.errors import ExitCode


def test_text_shows_progress_result_and_what_to_try_next(backend, capsys):
    assert run(["train", "mnist", "--run-dir", "here"]) == 0
    out = capsys.readouterr().out
    lines = [" ".join(line.split()) for line in out.splitlines()]
    assert lines[:2] == ["training mnist: async, 2 workers, 2 ps, 2,000 steps", "run directory: here"]
    assert "training with 2 workers" in lines
    assert "done 2,000 steps, 8.0 s of training" in lines
    assert "held out accuracy 0.9310 · loss 0.2412 (step 2,000)" in lines
    assert "export here/export/1" in lines
    assert [line.split("  ")[0] for line in lines[-3:]] == [
        "tfleet tensorboard here curves, histograms, images",
        "tfleet eval here evaluate the model once more",
        "tfleet status here members, ledger, commits",
    ]


def test_a_task_without_held_out_data_is_not_told_to_evaluate(backend, capsys):
    backend.statuses = [{**backend.statuses[-1], "evaluation": None}]
    assert run(["train", "mnist", "--run-dir", "here"]) == 0
    out = capsys.readouterr().out
    assert "tfleet eval" not in out
    assert "tfleet logs here" in out


def test_json_is_one_object_and_the_progress_is_on_stderr(backend, capsys, tmp_path):
    assert run(["train", "mnist", "--run-dir", "here", "-o", "json"]) == 0
    out, err = capsys.readouterr()
    answer = json.loads(out)
    assert answer["run_dir"] == str(tmp_path / "here")
    assert (answer["phase"], answer["exit_code"], answer["step"]) == ("done", 0, 2000)
    assert answer["evaluation"]["metrics"]["accuracy"] == 0.931
    assert "training with 2 workers" in err


@pytest.mark.parametrize(
    ("code", "phase", "reason", "sentence"),
    [
        (
            ExitCode.WRONG_INPUT,
            "failed",
            "the model is not compiled; call compile",
            "the model is not compiled; call compile",
        ),
        (ExitCode.FAILED, "failed", "the loss is NaN", "the loss is NaN; read here/logs"),
        (ExitCode.INTERRUPTED, "interrupted", "", "interrupted at step 12, all of it committed; go on with"),
    ],
)
def test_a_job_that_ends_badly(code, phase, reason, sentence, backend, capsys):
    backend.statuses, backend.code = [status(phase, 12, reason=reason)], code
    assert run(["train", "mnist", "--run-dir", "here", "-o", "json"]) == code
    out, err = capsys.readouterr()
    assert err.splitlines()[-1].startswith(f"tfleet: {sentence}")
    assert json.loads(out)["reason"].startswith(sentence)
    assert json.loads(out)["exit_code"] == code


def test_dry_run_prints_the_same_bytes_twice_and_starts_nothing(backend, capsys, tmp_path):
    for output in ("text", "json"):
        texts = []
        for _ in range(2):
            assert run(["train", "mnist", "--dry-run", "-o", output]) == 0
            texts.append(capsys.readouterr().out)
        assert texts[0] == texts[1]
        assert "runs/mnist-<time>" in texts[0]
    assert backend.started is None
    assert list(tmp_path.iterdir()) == []


def test_flags_override_the_file(backend, capsys, tmp_path):
    (tmp_path / "job.yaml").write_text("task: mnist\nworkers: 3\nps: 4\nsteps: 100\nparams: {hidden_units: 5}\n")
    assert run(["train", "-f", "job.yaml", "--workers", "5", "--epochs", "2", "--param", "hidden_layers=2"]) == 0
    spec = backend.started.spec
    assert (spec.workers, spec.ps, spec.steps, spec.epochs) == (5, 4, -1, 2)
    assert spec.params == {"hidden_units": "5", "hidden_layers": "2"}


def test_a_job_that_was_stopped_says_why(backend, capsys):
    backend.statuses = [status("stopped", 700, reason="stopped by 'tfleet stop'")]
    assert run(["train", "mnist"]) == 0
    assert "stopped by 'tfleet stop'" in capsys.readouterr().out


def test_nothing_is_said_of_a_job_that_could_not_be_started(backend, capsys):
    backend.started = object()
    assert run(["train", "mnist"]) == 2
    assert capsys.readouterr() == ("", "tfleet: the fake starts one job only; make another\n")


@pytest.mark.parametrize(("code", "phase"), [(ExitCode.DONE, "done"), (ExitCode.FAILED, "failed")])
def test_a_reader_that_goes_away_does_not_change_the_result(code, phase, backend, capfd, monkeypatch):
    def gone(*_):
        raise BrokenPipeError(32, "Broken pipe")

    backend.statuses, backend.code = [status(phase, 5, reason="")], code
    monkeypatch.setattr("tfleet.cli.train.print_line", gone)
    monkeypatch.setattr("tfleet.cli.summary.print_summary", gone)
    monkeypatch.setattr("os.dup2", lambda *_: None)
    assert run(["train", "mnist"]) == code
    assert backend.job.closed
