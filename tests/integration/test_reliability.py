"""Rows of the failure table (docs/reliability.md) that need a moment which only the task itself can name.

The task's file makes the first process that comes to a certain place write its number and wait there, beating on, until
the test kills it.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from jobs import LiveJob, nothing_left, pid_of, tfleet, wait_until

from tfleet.checkpoint.store import Store

pytestmark = [pytest.mark.processes, pytest.mark.tf]

Live = Callable[..., LiveJob]

TASK = """
import os, time
from pathlib import Path
import keras, numpy as np
from tfleet import Task
from tfleet.worker.built import Built
from tfleet.worker.gradient import GradientFunction

HERE = Path(__file__).parent

def held(name, function):
    def wrapped(*arguments, **named):
        try:
            (HERE / name).mkdir()
        except FileExistsError:
            return function(*arguments, **named)
        (HERE / f"{name}.new").write_text(str(os.getpid()))
        (HERE / f"{name}.new").rename(HERE / f"{name}.pid")
        while True:
            time.sleep(0.1)
    return wrapped

if "held" in HERE.name:
    GradientFunction.initial = held("initialise", GradientFunction.initial)
    Built.export = held("finalise", Built.export)

class Slow(keras.utils.PyDataset):
    def __len__(self):
        return 50

    def __getitem__(self, index):
        time.sleep(0.03 if os.environ["POD_NAME"].endswith("-1") else 0.002)
        return np.ones((20, 4), "float32"), np.ones(20, "float32")

def model():
    m = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1)])
    m.compile(keras.optimizers.SGD(0.01), "mse")
    return m

def data():
    x, y = np.ones((2000, 4), "float32"), np.ones(2000, "float32")
    return {"train": (x, y), "test": (x, y)}

task = Task(model, data)
slow = Task(model, lambda: {"train": Slow(workers=1)})
"""


@dataclass
class Ended:
    """A job in which whoever held a lease was killed, one after the other."""

    job: LiveJob
    code: int
    out: str
    killed: dict[str, int] = field(default_factory=dict)

    @property
    def status(self) -> dict[str, Any]:
        return self.job.run.status()


def holder(folder: Path, name: str) -> int:
    """Waits until a process is at this place; returns its number."""
    wait_until((folder / f"{name}.pid").is_file)
    return int((folder / f"{name}.pid").read_text())


def at_work(job: LiveJob) -> bool:
    workers = [m for m in job.run.status()["members"] if m["role"] == "worker"]
    return len(workers) == 2 and all(m["state"] == "working" for m in workers)


@pytest.fixture(scope="module")
def ended(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ended]:
    folder = tmp_path_factory.mktemp("held")
    (folder / "own.py").write_text(TASK)
    flags = ("--steps", "0", "--evaluator", "--summary-every", "20", "--checkpoint-every-steps", "500")
    job = LiveJob(folder / "run", f"{folder / 'own.py'}:task", *flags)
    killed = {}
    try:
        killed["initialise"] = holder(folder, "initialise")
        os.kill(killed["initialise"], signal.SIGKILL)
        job.wait_for_step(1)
        wait_until(lambda: at_work(job))
        killed["evaluator"] = pid_of(job.run.path, "evaluator", 0)
        os.kill(killed["evaluator"], signal.SIGKILL)
        # Scalars of the whole job are written by the worker that joined first.
        wait_until(lambda: bool(list((job.run.summaries / "train" / "job").glob("events*"))))
        oldest = min((0, 1), key=lambda index: job.run.status()["members"][index]["restarts"])
        killed["summaries"] = pid_of(job.run.path, "worker", oldest)
        os.kill(killed["summaries"], signal.SIGKILL)
        wait_until(lambda: len(list((job.run.summaries / "train" / "job").glob("events*"))) == 2)
        wait_until(lambda: at_work(job))
        assert tfleet("stop", str(job.run.path), "--no-wait").code == 0
        killed["finalise"] = holder(folder, "finalise")
        os.kill(killed["finalise"], signal.SIGKILL)
        code, out = job.finish()
        yield Ended(job, code, out, killed)
    finally:
        if job.process.poll() is None:
            job.process.kill()
        job.process.communicate()
    nothing_left(job.run.path)


def test_the_holder_of_the_initialisation_dies(ended: Ended) -> None:
    assert ended.code == 0, ended.out
    assert ended.status["generation"] == 1
    assert ended.status["rollbacks"] == 0


def test_the_evaluator_dies_and_training_does_not_notice(ended: Ended) -> None:
    (evaluator,) = [m for m in ended.status["members"] if m["role"] == "evaluator"]
    assert evaluator["restarts"] == 1
    assert "restart 1 of 3" in ended.job.run.log("evaluator", 0).read_text()
    assert ended.status["evaluation"]["step"] == ended.status["step"]


def test_the_holder_of_the_summaries_dies(ended: Ended) -> None:
    writers = {int(path.name.split(".")[5]) for path in (ended.job.run.summaries / "train" / "job").glob("events*")}
    assert len(writers) == 2
    assert ended.killed["summaries"] in writers


def test_the_holder_of_the_finalisation_dies(ended: Ended) -> None:
    assert ended.status["phase"] == "stopped"
    assert (Path(ended.status["export"]) / "saved_model.pb").is_file()
    assert [path.name for path in ended.job.run.export.iterdir()] == ["1"]


def test_what_three_deaths_of_workers_left_is_told(ended: Ended) -> None:
    status = ended.status
    assert status["ledger"]["acknowledged"] == status["step"]
    assert status["counts"]["fenced"] >= 4
    told = [row["role"] for row in status["fenced"]]
    assert told.count("worker") >= 3
    assert "evaluator" in told
    manifest, _ = Store(ended.job.run.checkpoints).newest()
    assert manifest is not None
    # Each partition has every step once, but for the updates that are counted as partial.
    more = sum(abs(part.iterations - manifest.step) for part in manifest.parts)
    assert more == status["ledger"]["partial_updates"] <= 3
    assert "was killed (SIGKILL): perhaps out of memory and is started again" in "".join(
        ended.job.run.log("worker", index).read_text() for index in (0, 1)
    )


def test_slow_data_of_a_worker_and_a_stopped_ps_0_are_named(live: Live, tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text(TASK)
    flags = ("--steps", "0", "--summary-every", "0", "--peer-timeout", "2", "--checkpoint-every-steps", "100")
    job = live(f"{tmp_path / 'own.py'}:slow", *flags)
    wait_until(lambda: bool(job.run.status().get("straggler")))
    straggler = job.run.status()["straggler"]
    assert (straggler["worker"], straggler["part"]) == (1, "data")
    assert straggler["ratio"] >= 1.5
    told = tfleet("status", str(job.run.path))
    assert "worker 1 is slowest: " in told.out
    assert "x the median step, most of it waiting for data" in told.out
    job.wait_for_step(300)
    job.kill("ps", 0, signal.SIGSTOP)
    stopped = time.time()
    lost = "ps 0 is lost: nothing was heard of it since "
    found = lambda: [note for note in job.run.status().get("notes", []) if note.startswith(lost)]  # noqa: E731
    wait_until(lambda: bool(found()) and job.run.status()["phase"] == "training")
    status, note = job.run.status(), found()[0]
    since = time.strptime(note.partition("since ")[2].partition(" UTC")[0], "%Y-%m-%d %H:%M:%S")
    assert abs(time.mktime(since) - time.mktime(time.gmtime(stopped))) <= 5
    assert "ps 0 was killed (SIGKILL): it did not answer" in job.run.log("ps", 0).read_text()
    assert status["ps"][0]["restarts"] == 1
    assert status["rollbacks"] >= 1  # on a machine that is very busy a ps may seem silent now and then
    assert tfleet("stop", str(job.run.path)).code == 0
    code, out = job.finish()
    assert code == 0, out
    nothing_left(job.run.path)
