"""Real jobs: the real command line, real processes, real digits."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from finished import Finished

from tfleet.checkpoint.store import Store
from tfleet.spec.rundir import RunDir

LIMIT = 240
"""Seconds after which a job counts as hanging."""


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "tfleet", *arguments]


def tfleet(*arguments: str, cwd: Path | None = None) -> Finished:
    done = subprocess.run(
        command(*arguments), cwd=cwd, capture_output=True, text=True, timeout=LIMIT, stdin=subprocess.DEVNULL
    )
    return Finished(done.returncode, done.stdout, done.stderr)


def processes_of(run: Path) -> list[str]:
    """Command lines of living processes that name the run directory."""
    found = []
    for folder in Path("/proc").iterdir():
        if not folder.name.isdigit() or int(folder.name) == os.getpid():
            continue
        try:
            line = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            state = (folder / "stat").read_text().rpartition(")")[2].split()[0]
        except OSError:
            continue
        if str(run) in line and state != "Z":
            found.append(line)
    return found


def pid_of(run: Path, role: str, index: int) -> int:
    """The process of one replica, recognised by role, index and run directory."""
    module = "tfleet.server" if role == "ps" else "tfleet.worker"
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                words = (folder / "cmdline").read_bytes().decode(errors="replace").split("\0")
            except OSError:
                continue
            here = str(run) in words and module in words and words[words.index("--index") + 1] == str(index)
            if here and ("--evaluator" in words) == (role == "evaluator"):
                return int(folder.name)
    raise AssertionError(f"no process of {role} {index} of {run}")


def wait_until(what: Callable[[], bool], seconds: float = LIMIT) -> None:
    """Waits for another process; the only place in these tests that does."""
    end = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < end, "waited too long"
        time.sleep(0.02)


class LiveJob:
    """A job that runs while the test looks at it."""

    def __init__(self, run: Path, *arguments: str) -> None:
        self.run = RunDir.at(run)
        self.process = subprocess.Popen(
            command("train", *arguments, "--run-dir", str(run)),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            stdin=subprocess.DEVNULL,
        )

    def wait_for_step(self, step: int) -> None:
        wait_until(lambda: self.run.status().get("step", 0) >= step or self.process.poll() is not None)
        assert self.process.poll() is None, self.process.stdout and self.process.stdout.read()

    def kill(self, role: str, index: int, number: int = signal.SIGKILL) -> None:
        os.kill(pid_of(self.run.path, role, index), number)

    def finish(self) -> tuple[int, str]:
        out, _ = self.process.communicate(timeout=LIMIT)
        return self.process.returncode, out


@pytest.fixture
def live(tmp_path: Path) -> Iterator[Callable[..., LiveJob]]:
    jobs: list[LiveJob] = []

    def start(*arguments: str) -> LiveJob:
        jobs.append(LiveJob(tmp_path / f"run{len(jobs)}", *arguments))
        return jobs[-1]

    yield start
    for job in jobs:
        if job.process.poll() is None:
            job.process.kill()
        job.process.communicate()
        wait_until(lambda job=job: not processes_of(job.run.path), 60)


def parameters(run: Path) -> np.ndarray[Any, Any]:
    """The parameter vector of a run's newest commit."""
    store = Store(run / "checkpoints")
    manifest, _ = store.newest()
    assert manifest is not None
    return store.read(manifest, 0, manifest.parameters)[0]


def nothing_left(run: Path) -> None:
    """No process and no socket of the job is left."""
    wait_until(lambda: not processes_of(run), 30)
    name = (run / ".tfleet" / "endpoint").read_text().strip().removeprefix("unix:@").rsplit("-ps-", 1)[0]
    # A process gives up its command line a moment before its sockets.
    wait_until(lambda: name not in Path("/proc/net/unix").read_text(), 5)
    assert not list(Path("/dev/shm").glob("*tfleet*"))
