"""A real bounded job with one slow worker: the other waits for it, and never is more than `staleness` steps ahead."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from jobs import LiveJob, nothing_left, tfleet, wait_until

pytestmark = [pytest.mark.processes, pytest.mark.tf]

TASK = """
import os
import time
import keras
import numpy as np
from tfleet import Task

SLOW = os.environ.get("JOB_NAME") == "worker" and os.environ.get("POD_NAME", "").endswith("-1")

class Batches(keras.utils.PyDataset):
    def __len__(self):
        return 50

    def __getitem__(self, index):
        if SLOW:
            time.sleep(0.05)
        x = np.random.default_rng(index).normal(size=(20, 8)).astype("float32")
        return x, x.sum(axis=1, keepdims=True)

def model():
    built = keras.Sequential([keras.Input((8,)), keras.layers.Dense(1)])
    built.compile("sgd", "mse")
    return built

task = Task(model, lambda: {"train": Batches()})
"""


@pytest.mark.parametrize("staleness", [0, 3])
def test_the_quick_worker_waits_for_the_slow_one(live: Callable[..., LiveJob], tmp_path: Path, staleness: int) -> None:
    (tmp_path / "uneven.py").write_text(TASK)
    job = live(
        f"{tmp_path}/uneven.py:task", "--strategy", "bounded", "--staleness", str(staleness), "--steps", "0",
        "--summary-every", "0",
    )  # fmt: skip

    def steps() -> list[int]:
        return [member["steps"] for member in job.run.status().get("members", [])]

    wait_until(lambda: len(steps()) == 2)
    wait_until(lambda: min(steps()) >= 20 or job.process.poll() is not None)
    told = tfleet("status", str(job.run.path))
    assert ("ahead of the slowest at most" in told.out) == bool(staleness)
    assert tfleet("stop", str(job.run.path)).code == 0
    code, out = job.finish()
    assert code == 0, out
    status = job.run.status()
    assert status["ledger"]["lead"] == staleness  # as far as it may, and no farther
    assert status["ledger"]["acknowledged"] == status["step"] == sum(steps()) >= 40
    nothing_left(job.run.path)
