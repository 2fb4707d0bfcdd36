"""The local backend with the real ps and workers: nothing is left behind when the launcher is killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tfleet.backends.local_job import replicas_of
from tfleet.spec.rundir import RunDir

pytestmark = [
    pytest.mark.processes,
    pytest.mark.tf,
    pytest.mark.skipif(sys.platform != "linux", reason="reads /proc"),
]

LAUNCHER = """
import sys, time
from pathlib import Path
from tfleet.backends.local import LocalBackend
from tfleet.spec.job import JobSpec
backend = LocalBackend()
job = backend.start(backend.plan(JobSpec(task="mnist", steps=0), Path(sys.argv[1])))
print(job.children.of("ps")[0].pid, flush=True)
while job.poll() is None:
    time.sleep(0.1)
"""


def wait(condition, seconds=120.0):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"{condition} was not met"
        time.sleep(0.1)


def test_replicas_commit_and_end_when_the_launcher_is_killed(tmp_path):
    run = RunDir.at(tmp_path / "run")
    with subprocess.Popen([sys.executable, "-c", LAUNCHER, str(run.path)], stdout=subprocess.PIPE) as launcher:
        try:
            assert launcher.stdout.readline()
            socket = run.endpoint_file.read_text().removeprefix("unix:").rpartition("-ps-")[0]
            wait(lambda: run.status().get("step", 0) > 10)
            assert len(replicas_of(run)) == 4
            assert socket in Path("/proc/net/unix").read_text()
        finally:
            os.kill(launcher.pid, signal.SIGKILL)
    wait(lambda: not run.alive())
    assert replicas_of(run) == []
    assert socket not in Path("/proc/net/unix").read_text()
    assert run.status()["phase"] == "interrupted"
    assert len(list(run.checkpoints.glob("*.manifest.json"))) == 2
