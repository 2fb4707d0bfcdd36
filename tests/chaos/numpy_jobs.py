"""Jobs of real processes without TensorFlow: ps, and workers that make their gradients with NumPy."""

from __future__ import annotations

import contextlib
import itertools
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
from arithmetic import TASKS

from tfleet.checkpoint.manifest import Manifest
from tfleet.checkpoint.reader import Reader
from tfleet.server.control import call
from tfleet.spec.environment import TOKEN_FILE, ReplicaEnvironment
from tfleet.spec.job import JobSpec
from tfleet.spec.layout import CHUNK
from tfleet.spec.rundir import RunDir
from tfleet.wire.address import Address
from tfleet.wire.auth import read_token

HERE = Path(__file__).parent
PATIENCE = 60.0
"""Seconds after which something that was to happen counts as a hang."""
SLICE = 0.1
"""Seconds that a look at a condition counts for at most."""
_numbers = itertools.count()


def wait(condition, what, seconds=PATIENCE):
    """Blocks until the condition holds; a hang is a failure.

    Only the time in which this process runs counts: a machine that stands still, or that others use, is no hang.
    """
    left, before = seconds, time.monotonic()
    while not (value := condition()):
        assert left > 0, f"a hang: {what() if callable(what) else what} within {seconds:g} s"
        time.sleep(0.01)
        now = time.monotonic()
        left, before = left - min(now - before, SLICE), now
    return value


class NumpyJob:
    """One job; `start_ps` and `start_worker` begin its processes, `close` ends what is left.

    Attributes:
        run: the run directory.
        faults: folder by which `faulty_ps.py` is told what to do.
        ps: processes by index; workers: likewise.
    """

    def __init__(self, folder, task="counting", *, ps=2, milliseconds=1.0, **spec):
        self.run = RunDir.at(folder)
        self.run.create()
        self.run.make_token()
        self.faults = self.run.path / "faults"
        self.faults.mkdir()
        self.task, self.milliseconds = task, milliseconds
        values = {"task": "mnist", "ps": ps, "steps": 0, "checkpoint": {"every_seconds": 0}, **spec}
        self.spec = JobSpec.parse(values)
        self.run.job_file.write_text(self.spec.dump())
        mark = f"tfleet-chaos-{os.getpid()}-{next(_numbers)}"
        self.hosts = tuple(f"unix:@{mark}-{index}" for index in range(ps))
        self.ps, self.workers = {}, {}
        self.reader = Reader(self.run.checkpoints)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for process in (*self.ps.values(), *self.workers.values()):
            with contextlib.suppress(ProcessLookupError):
                process.send_signal(signal.SIGCONT)
                process.kill()
            process.wait()

    def start_ps(self, index, resume=False):
        program = [str(HERE / "faulty_ps.py"), str(self.faults)]
        where = ["--index", str(index), "--run-dir", str(self.run.path), *(["--resume"] if resume else [])]
        variables = ReplicaEnvironment("ps", index, self.hosts, ("unix:@none",)).variables()
        self.ps[index] = self._start(f"ps-{index}", [*program, *where], variables)
        (self.faults / f"pid-{index}").write_text(str(self.ps[index].pid))

    def start_worker(self, index, milliseconds=None):
        pause = self.milliseconds if milliseconds is None else milliseconds
        program = [str(HERE / "numpy_worker.py"), str(self.run.path), str(index), self.hosts[0], self.task, str(pause)]
        self.workers[index] = self._start(f"worker-{index}", program, {})

    def start(self, workers):
        for index in range(self.spec.ps):
            self.start_ps(index)
        for index in range(workers):
            self.start_worker(index)
        return self

    def _start(self, name, program, variables):
        more = {TOKEN_FILE: str(self.run.token_file), "OPENBLAS_NUM_THREADS": "1"}
        with (self.run.path / f"{name}.log").open("ab") as log:
            environ = {**os.environ, **variables, **more}
            return subprocess.Popen([sys.executable, *program], env=environ, stdout=log, stderr=log)

    def status(self, key, default=None):
        return self.run.status().get(key, default)

    def call(self, name, **values):
        """Asks the coordinator for something, as a command does."""
        call(Address.parse(self.hosts[0]), read_token(self.run.token_file), name, patience=PATIENCE, **values)

    def trains(self, step=0):
        """Waits until the job trains and is beyond a step."""
        wait(lambda: self.status("phase") == "training" and self.status("step", 0) > step, self.describe)

    def end(self, how="stop"):
        """Ends the job; every process must end by itself, and well."""
        self.call("end", how=how, reason="")
        return self.ended()

    def ended(self):
        """Waits until every process has ended; returns the exit codes."""
        processes = {f"ps {i}": p for i, p in self.ps.items()} | {f"worker {i}": p for i, p in self.workers.items()}
        wait(lambda: all(process.poll() is not None for process in processes.values()), self.describe)
        return {name: process.returncode for name, process in processes.items()}

    def describe(self):
        states = {f"ps {i}": p.poll() for i, p in self.ps.items()} | {
            f"w {i}": p.poll() for i, p in self.workers.items()
        }
        logs = [path.read_text()[-300:] for path in sorted(self.run.path.glob("*-*.log"))]
        return f"{self.run.path}: {self.run.status()}, exit codes {states}, logs {logs}"

    def check(self, manifest: Manifest) -> None:
        """Every bit of a commit of a counting job is what its ledger says."""
        ledger, task = manifest.ledger, TASKS[self.task]()
        (epoch, batch), left = ledger["next"], [e * task.batches + b for e, b in ledger["open"]]
        done = np.ones(epoch * task.batches + batch, bool)
        done[left] = False
        counts = np.bincount(np.flatnonzero(done) % CHUNK, minlength=CHUNK)
        assert counts.sum() == manifest.step == ledger["step"]
        parameters, accumulators = task.after(counts)
        found, slots = self.reader.read(manifest, 0, manifest.parameters)
        for values, expected in ((found, parameters), (slots["accumulator"], accumulators)):
            assert values.reshape(-1, CHUNK).tobytes() == expected.tobytes() * (task.parameters // CHUNK)
        state, _ = self.reader.read_state(manifest)
        assert state.tolist() == [manifest.step, manifest.step]
