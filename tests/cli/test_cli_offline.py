"""`tfleet eval` and `tfleet export` print what the worker layer answers."""

import importlib
import json
import math
import os
from types import SimpleNamespace

import pytest

from tfleet.cli import offline
from tfleet.cli.main import run
from tfleet.spec.errors import WrongInput


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "old").mkdir()
    (tmp_path / "old/job.yaml").write_text("task: mnist\n")
    answer = SimpleNamespace(
        evaluate_run=lambda run, commit: {"commit": commit, "step": 2000, "metrics": {"loss": 0.2, "accuracy": 0.93}},
        export_run=lambda run, commit: run.export / "7",
    )
    monkeypatch.setattr(offline, "load", lambda: answer)
    return tmp_path / "old"


def test_eval(folder, capsys):
    assert run(["eval", "old", "--commit", "4"]) == 0
    assert capsys.readouterr().out == "commit 4, step 2,000, held out: accuracy 0.9300 · loss 0.2000\n"
    assert run(["eval", "old", "-o", "json"]) == 0
    assert json.loads(capsys.readouterr().out) == {
        "run_dir": str(folder),
        "commit": -1,
        "step": 2000,
        "metrics": {"loss": 0.2, "accuracy": 0.93},
    }


def test_what_is_no_number_in_json_is_text(folder, monkeypatch, capsys):
    metrics = {"loss": math.nan, "perplexity": math.inf, "accuracy": 0.1}
    answer = SimpleNamespace(evaluate_run=lambda run, commit: {"commit": 1, "step": 5, "metrics": metrics})
    monkeypatch.setattr(offline, "load", lambda: answer)
    assert run(["eval", "old", "-o", "json"]) == 0
    out = capsys.readouterr().out
    assert json.loads(out, parse_constant=pytest.fail)["metrics"] == {
        "loss": "nan",
        "perplexity": "inf",
        "accuracy": 0.1,
    }
    assert run(["eval", "old"]) == 0
    assert "accuracy 0.1000 · perplexity inf · loss nan" in capsys.readouterr().out


def test_export(folder, capsys):
    assert run(["export", "old"]) == 0
    assert capsys.readouterr().out == "exported to old/export/7\n"
    assert run(["export", "old", "-o", "json"]) == 0
    assert json.loads(capsys.readouterr().out)["export"] == str(folder / "export/7")


def test_without_tensorflow_the_install_command_is_told(monkeypatch):
    def missing(name):
        raise ModuleNotFoundError("No module named 'tensorflow'", name="tensorflow")

    monkeypatch.setattr("importlib.import_module", missing)
    with pytest.raises(WrongInput, match=r"tensorflow is not installed; install it with: pip install 'tfleet\[cpu\]'"):
        offline.load()


def test_what_tensorflow_writes_while_it_loads_is_kept_back_unless_it_fails(monkeypatch, capfd):
    def loads(name):
        os.write(2, b"chatter\n")
        return name

    def fails(name):
        os.write(2, b"what went wrong\n")
        raise ImportError("libcuda")

    monkeypatch.setattr(importlib, "import_module", loads)
    assert offline.load() == "tfleet.worker.offline"
    assert capfd.readouterr().err == ""
    monkeypatch.setattr(importlib, "import_module", fails)
    with pytest.raises(ImportError, match="libcuda"):
        offline.load()
    assert capfd.readouterr().err == "what went wrong\n"
