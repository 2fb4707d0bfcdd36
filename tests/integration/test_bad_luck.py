"""What dies, and what the job makes of it."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from jobs import LiveJob, nothing_left, parameters, tfleet, wait_until

pytestmark = [pytest.mark.processes, pytest.mark.tf]

Live = Callable[..., LiveJob]


def test_killed_worker_gives_back_its_batches(live: Live) -> None:
    job = live("mnist", "--epochs", "8")
    job.wait_for_step(200)
    job.kill("worker", 1)
    code, out = job.finish()
    status = job.run.status()
    assert code == 0, out
    assert status["ledger"]["acknowledged"] == status["step"] == 8 * 450
    assert status["ledger"]["partial_updates"] <= 1
    assert "worker 1 is lost" in out
    nothing_left(job.run.path)


def test_interrupted_job_goes_on_with_another_number_of_replicas(live: Live) -> None:
    job = live("mnist", "--steps", "100000", "--workers", "1")
    job.wait_for_step(100)
    job.process.send_signal(signal.SIGINT)
    code, out = job.finish()
    assert code == 130, out
    nothing_left(job.run.path)
    step = job.run.status()["last_commit"]["step"]
    assert step >= 100
    done = tfleet(
        "train", "--resume", "--run-dir", str(job.run.path), "--steps", str(step + 200), "--ps", "3", "--workers", "2"
    )
    assert done.code == 0, done.err
    assert job.run.status()["step"] == step + 200
    assert f"at step {step}" in done.out


def test_resumed_job_has_the_bits_of_one_that_never_stopped(tmp_path: Path) -> None:
    one = ("--workers", "1", "--seed", "7")
    assert tfleet("train", "mnist", *one, "--steps", "260", "--run-dir", str(tmp_path / "whole")).code == 0
    assert tfleet("train", "mnist", *one, "--steps", "130", "--run-dir", str(tmp_path / "parts")).code == 0
    assert tfleet("train", "--resume", "--steps", "260", "--ps", "1", "--run-dir", str(tmp_path / "parts")).code == 0
    whole, parts = parameters(tmp_path / "whole"), parameters(tmp_path / "parts")
    assert np.array_equal(whole.view(np.int32), parts.view(np.int32))


def test_corrupt_newest_commit_falls_back_and_says_so(tmp_path: Path) -> None:
    run = tmp_path / "run"
    flags = ("--steps", "200", "--checkpoint-every-steps", "100", "--workers", "1")
    assert tfleet("train", "mnist", *flags, "--run-dir", str(run)).code == 0
    newest = max((run / "checkpoints").glob("*part-001*"))
    content = bytearray(newest.read_bytes())
    content[len(content) // 2] ^= 1
    newest.write_bytes(content)
    done = tfleet("train", "--resume", "--run-dir", str(run), "--steps", "250")
    assert done.code == 0, done.err
    assert "goes on from commit 1 at step 100" in done.out
    assert newest.name in done.out


def test_killed_launcher_leaves_nothing_behind(live: Live) -> None:
    job = live("mnist", "--steps", "100000")
    job.wait_for_step(50)
    job.process.kill()
    job.process.wait()
    nothing_left(job.run.path)
    status = json.loads(job.run.status_file.read_text())
    assert status["phase"] == "interrupted"
    assert status["last_commit"]["step"] >= 50


def test_killed_ps_without_restarts_fails_the_job_and_keeps_the_last_commit(live: Live) -> None:
    job = live("mnist", "--steps", "100000", "--checkpoint-every-steps", "50", "--restarts", "0")
    job.wait_for_step(200)
    job.kill("ps", 1)
    code, out = job.finish()
    assert code == 1
    assert "ps 1" in out
    assert "--resume" in out
    nothing_left(job.run.path)
    assert parameters(job.run.path).size == 79510


def test_all_workers_dead_without_restarts_ends_the_job_at_once(live: Live) -> None:
    job = live("mnist", "--steps", "100000", "--workers", "1", "--restarts", "0")
    job.wait_for_step(20)
    job.kill("worker", 0)
    code, out = job.finish()
    assert code == 1
    assert "worker" in out
    nothing_left(job.run.path)


def test_stop_evaluates_and_exports(live: Live) -> None:
    job = live("mnist", "--steps", "0")
    job.wait_for_step(300)
    done = tfleet("stop", str(job.run.path))
    assert done.code == 0, done.err
    code, out = job.finish()
    assert code == 0, out
    assert job.run.status()["phase"] == "stopped"
    assert (job.run.path / "export" / "1" / "saved_model.pb").is_file()


def test_run_directory_in_use_is_refused(live: Live) -> None:
    job = live("mnist", "--steps", "100000", "--workers", "1", "--ps", "1")
    job.wait_for_step(1)
    for more in ((), ("--resume",)):
        done = tfleet("train", "mnist", "--run-dir", str(job.run.path), *more)
        assert done.code == 2
        assert "in use by a living job" in done.err
    job.process.send_signal(signal.SIGINT)
    assert job.finish()[0] == 130


def test_stopped_worker_is_dropped_and_joins_again_when_it_wakes(live: Live) -> None:
    job = live("mnist", "--steps", "0", "--peer-timeout", "2")
    job.wait_for_step(100)
    job.kill("worker", 1, signal.SIGSTOP)
    wait_until(lambda: any("silent" in note for note in job.run.status()["notes"]))
    job.kill("worker", 1, signal.SIGCONT)
    members = lambda: {m["index"]: m["state"] for m in job.run.status()["members"]}  # noqa: E731
    wait_until(lambda: members().get(1) == "working")
    dropped = [row for row in job.run.status()["fenced"] if row["index"] == 1]
    assert dropped
    assert dropped[-1]["why"].startswith("worker 1 is dropped: silent for more than 2 s, since 2")
    # It was told so when it woke, and why.
    assert f"worker 1 joins again: {dropped[-1]['why']}" in job.run.log("worker", 1).read_text()
    assert tfleet("stop", str(job.run.path)).code == 0
    code, out = job.finish()
    assert code == 0, out
    assert job.run.status()["ledger"]["duplicates"] == 0


def test_nan_in_the_data_names_the_batch_and_keeps_the_last_commit(tmp_path: Path) -> None:
    (tmp_path / "poisoned.py").write_text(
        "import keras, numpy as np\n"
        "from tfleet import Task\n"
        "def model():\n"
        "    m = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1)])\n"
        "    m.compile('sgd', 'mse')\n"
        "    return m\n"
        "def data():\n"
        "    x = np.ones((400, 4), 'float32')\n"
        "    x[123, 2] = np.nan\n"
        "    return {'train': (x, np.ones(400, 'float32'))}\n"
        "task = Task(model, data)\n"
    )
    run = tmp_path / "run"
    done = tfleet("train", "poisoned.py:task", "--run-dir", str(run), "--workers", "1", cwd=tmp_path)
    assert done.code == 1
    assert "inputs of batch" in done.err
    assert "NaN" in done.err
    assert "Traceback" not in done.err + done.out
    assert parameters(run).size == 5
    nothing_left(run)


def test_killed_evaluation_holder_does_not_hang_the_job(live: Live) -> None:
    job = live("mnist", "--steps", "3000", "--eval-every", "200")
    job.wait_for_step(200)
    wait_until(lambda: (job.run.status().get("evaluation") or {}).get("step", 0) >= 200)
    job.kill("worker", 0)
    code, out = job.finish()
    assert code == 0, out
    assert job.run.status()["evaluation"]["step"] == 3000
    assert os.path.isdir(job.run.export / "1")
