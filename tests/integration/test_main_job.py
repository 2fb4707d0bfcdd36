"""The main job on real digits: what it reaches, what it leaves, and what it promises."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
from jobs import nothing_left, parameters, tfleet

pytestmark = [pytest.mark.processes, pytest.mark.tf]


@pytest.fixture(scope="module")
def main_job(tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("main") / "run"
    done = tfleet(
        "train", "mnist", "--workers", "2", "--ps", "2", "--steps", "2000", "--param", "hidden_units=100",
        "--run-dir", str(run), "-o", "json",
    )  # fmt: skip
    assert done.code == 0, done.err
    (run / "result.json").write_text(done.out)
    return run


def test_reaches_the_accuracy(main_job: Path) -> None:
    result = json.loads((main_job / "result.json").read_text())
    assert result["evaluation"]["metrics"]["accuracy"] >= 0.92
    assert result["step"] == 2000


def test_leaves_no_process_and_no_socket(main_job: Path) -> None:
    nothing_left(main_job)


def test_run_directory_holds_what_the_design_says(main_job: Path) -> None:
    for name in (
        "job.yaml", "deploy.log", "metrics.jsonl", "status.json", "export/1/saved_model.pb", "export/1/model.keras",
        "logs/ps-0.log", "logs/ps-1.log", "logs/worker-0.log", "logs/worker-1.log",
    ):  # fmt: skip
        assert (main_job / name).is_file(), name
    assert list((main_job / "checkpoints").glob("*manifest.json"))
    assert list((main_job / "summaries" / "train").iterdir())
    assert (main_job / ".tfleet" / "token").stat().st_mode & 0o777 == 0o600


def test_ledger_is_exact(main_job: Path) -> None:
    status = json.loads((main_job / "status.json").read_text())
    assert status["ledger"]["acknowledged"] == 2000
    assert status["ledger"]["leased"] == status["ledger"]["returned"] == 0
    assert status["ledger"]["duplicates"] == status["ledger"]["partial_updates"] == 0
    assert sum(m["steps"] for m in status["members"] if m["role"] == "worker") == 2000


def test_deploy_log_is_as_users_of_the_original_know_it(main_job: Path) -> None:
    *steps, last = (main_job / "deploy.log").read_text().splitlines()
    line = re.compile(r"\d+\.\d{6}: Worker [01]: training step \d+ done \(global step: \d+\)")
    assert steps
    assert all(line.fullmatch(step) for step in steps)
    assert re.fullmatch(r"Training elapsed time: \d+\.\d{6} s", last)


def test_metrics_lines_are_json_with_held_out_metrics(main_job: Path) -> None:
    rows = [json.loads(line) for line in (main_job / "metrics.jsonl").read_text().splitlines()]
    assert rows[-1]["kind"] == "eval"
    assert rows[-1]["step"] == 2000
    assert {"loss", "accuracy", "commit"} <= rows[-1].keys()


def test_token_is_in_no_file_that_others_read(main_job: Path) -> None:
    token = (main_job / ".tfleet" / "token").read_text()
    readable = [p for p in main_job.rglob("*") if p.is_file() and p.name != "token"]
    assert not [p for p in readable if token.encode() in p.read_bytes()]


def test_eval_and_status_commands_agree_with_the_job(main_job: Path) -> None:
    result = json.loads((main_job / "result.json").read_text())
    again = tfleet("eval", str(main_job), "-o", "json")
    assert again.code == 0, again.err
    assert again.json()["metrics"] == pytest.approx(result["evaluation"]["metrics"], rel=1e-6)
    status = tfleet("status", str(main_job), "-o", "json")
    assert status.json()["phase"] == "done"


def test_sync_reaches_the_accuracy(tmp_path: Path) -> None:
    done = tfleet("train", "mnist", "--strategy", "sync", "--run-dir", str(tmp_path / "run"), "-o", "json")
    assert done.code == 0, done.err
    assert done.json()["evaluation"]["metrics"]["accuracy"] >= 0.92


def test_cnn_reaches_the_accuracy(tmp_path: Path) -> None:
    done = tfleet(
        "train", "mnist", "--param", "model=cnn", "--steps", "1500", "--batch-size", "50",
        "--run-dir", str(tmp_path / "run"), "-o", "json",
    )  # fmt: skip
    assert done.code == 0, done.err
    assert done.json()["evaluation"]["metrics"]["accuracy"] >= 0.97


def test_one_worker_gives_equal_bits_whatever_the_number_of_ps_and_the_way(tmp_path: Path) -> None:
    """Shared memory with one ps, sockets with three."""
    for ps, memory, name in ((1, "auto", "one"), (3, "never", "three")):
        done = tfleet(
            "train", "mnist", "--workers", "1", "--ps", str(ps), "--steps", "200", "--shared-memory", memory,
            "--run-dir", str(tmp_path / name),
        )  # fmt: skip
        assert done.code == 0, done.err
    one, three = parameters(tmp_path / "one"), parameters(tmp_path / "three")
    assert np.array_equal(one.view(np.int32), three.view(np.int32))


LIMITED = """
import resource
resource.setrlimit(resource.RLIMIT_FSIZE, (800 << 10, resource.RLIM_INFINITY))
from tfleet.tasks.mnist import task
"""


def test_without_shared_memory_the_job_says_so_once_and_goes_on(tmp_path: Path) -> None:
    """In the workers a file may be as large as an export needs, but not as what they would share with the ps."""
    (tmp_path / "limited.py").write_text(LIMITED)
    done = tfleet(
        "train", f"{tmp_path}/limited.py:task", "--steps", "300", "--param", "hidden_units=100", "--summary-every", "0",
        "--run-dir", str(tmp_path / "run"), "-o", "json",
    )  # fmt: skip
    assert done.code == 0, done.err
    told = [note for note in done.json()["notes"] if "through sockets, not shared memory: File too large" in note]
    assert len(told) == 1, done.json()["notes"]


def test_sync_equals_one_worker_with_the_whole_batch(tmp_path: Path) -> None:
    # 9,000 samples in batches of 3 x 70: the last step of an epoch is smaller.
    steps = ("--steps", "60")
    jobs = {
        "three": ("--strategy", "sync", "--workers", "3", "--batch-size", "70", "--tcp"),
        "one": ("--workers", "1", "--batch-size", "210"),
    }
    for name, flags in jobs.items():
        done = tfleet("train", "mnist", *steps, *flags, "--run-dir", str(tmp_path / name))
        assert done.code == 0, done.err
    three, one = parameters(tmp_path / "three"), parameters(tmp_path / "one")
    assert (np.abs(three - one) <= 1e-5 * np.abs(one) + 1e-6).all()


def test_epochs_visit_every_sample_once_and_the_evaluator_follows(tmp_path: Path) -> None:
    run = tmp_path / "run"
    done = tfleet(
        "train", "mnist", "--epochs", "2", "--batch-size", "70", "--evaluator", "--checkpoint-every-steps", "100",
        "--summary-every", "0", "--run-dir", str(run), "-o", "json",
    )  # fmt: skip
    assert done.code == 0, done.err
    assert done.json()["step"] == 2 * 129
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert any(row["kind"] == "eval" and row["step"] < 258 for row in rows)
    assert not (run / "summaries" / "train").exists()


def test_early_stopping_and_keeping_the_best(tmp_path: Path) -> None:
    run = tmp_path / "run"
    done = tfleet(
        "train", "mnist", "--steps", "5000", "--eval-every", "100", "--stop-metric", "accuracy", "--stop-patience", "1",
        "--stop-min-delta", "0.02", "--keep-best", "accuracy", "--keep", "1", "--run-dir", str(run), "-o", "json",
    )  # fmt: skip
    assert done.code == 0, done.err
    result = done.json()
    assert result["step"] < 5000
    assert result["phase"] == "done"
    assert any("stopped early" in note for note in result["notes"])
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    best = max(row["accuracy"] for row in rows if row["kind"] == "eval")
    assert json.loads((run / "export" / "1" / "tfleet.json").read_text())["metrics"]["accuracy"] == pytest.approx(best)
