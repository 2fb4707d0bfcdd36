"""The replicas of a job as pods run them: each under a supervisor of its own, with nothing but a folder in common."""

from __future__ import annotations

import json
import os
import secrets
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from jobs import LIMIT, pid_of, wait_until

from tfleet.backends.ports import free_ports
from tfleet.server.control import call
from tfleet.spec.job import JobSpec
from tfleet.spec.rundir import RunDir
from tfleet.wire.address import Address
from tfleet.wire.auth import read_token

pytestmark = [pytest.mark.processes, pytest.mark.tf]


class Pods:
    """The pods of one job, as the chart would start them."""

    def __init__(self, folder: Path, **job: object) -> None:
        self.folder = folder
        self.run = RunDir.at(folder / "run")
        values = {"task": "mnist", "params": {"hidden_units": "32"}, "workers": 2, "ps": 2, "peer_timeout": 5, **job}
        self.spec = JobSpec.parse(values)
        self.ports = free_ports(self.spec.ps)
        (folder / "token").write_text(secrets.token_hex(32))
        (folder / "job.yaml").write_text(self.spec.dump())
        self.scale(self.spec.workers)
        self.running: dict[str, subprocess.Popen[bytes]] = {}
        for index in range(self.spec.ps):
            self.start(f"ps-{index}")
        for index in range(self.spec.workers):
            self.start(f"worker-{index}")

    def scale(self, workers: int) -> None:
        (self.folder / "workers").write_text(str(workers))

    def start(self, name: str) -> None:
        env = {
            **os.environ,
            "JOB_NAME": name.partition("-")[0],
            "POD_NAME": f"digits-{name}",
            # Names that nobody can resolve: only the rendezvous and what ps 0 hands out lead anywhere.
            "PS_HOSTS": ",".join(f"digits-ps-{i}.invalid:{port}" for i, port in enumerate(self.ports)),
            "WORKER_HOSTS": ",".join(f"digits-worker-{i}.invalid:2222" for i in range(8)),
            "TFLEET_TOKEN_FILE": str(self.folder / "token"),
            "TFLEET_JOB_FILE": str(self.folder / "job.yaml"),
            "TFLEET_RENDEZVOUS": f"localhost:{self.ports[0]}",
            "TFLEET_POD_IP": "127.0.0.1",
        }
        command = [sys.executable, "-m", "tfleet.backends.pod", "--run-dir", str(self.run.path)]
        self.running[name] = subprocess.Popen(command, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.STDOUT)

    def delete(self, name: str) -> int:
        """What Kubernetes does to a pod that is deleted; returns its exit code."""
        self.running[name].send_signal(signal.SIGTERM)
        return self.running[name].wait(LIMIT)

    def codes(self) -> dict[str, int]:
        return {name: pod.wait(LIMIT) for name, pod in self.running.items()}

    def step(self) -> int:
        return int(self.run.status().get("step", 0))


@pytest.fixture
def pods(tmp_path):
    started: list[Pods] = []

    def start(folder: Path = tmp_path, **job: object) -> Pods:
        folder.mkdir(exist_ok=True)
        started.append(Pods(folder, **job))
        return started[-1]

    yield start
    for job in started:
        for pod in job.running.values():
            pod.kill()
            pod.wait()


def test_pods_come_and_go_and_the_job_ends_by_itself(pods):
    job = pods(steps=0, evaluation={"evaluator": False})
    wait_until(lambda: job.step() > 200)
    os.kill(pid_of(job.run.path, "worker", 1), signal.SIGKILL)
    assert job.delete("ps-1") == 130
    job.start("ps-1")
    wait_until(lambda: job.run.status().get("generation") == 2 and job.run.status()["phase"] == "training")
    first = job.step()
    assert first > 0
    wait_until(lambda: job.step() > first + 200)
    assert job.delete("ps-0") == 130
    job.scale(3)
    job.start("ps-0")
    job.start("worker-2")
    wait_until(lambda: len([m for m in job.run.status().get("members", []) if m["state"] == "working"]) == 3)
    wait_until(lambda: job.run.status()["workers_wanted"] == 3)
    assert job.delete("worker-0") == 130
    token = read_token(job.folder / "token")
    call(Address.parse(f"localhost:{job.ports[0]}"), token, "end", how="stop", reason="enough")
    assert job.codes() == {"ps-0": 0, "ps-1": 0, "worker-0": 130, "worker-1": 0, "worker-2": 0}
    status = job.run.status()
    assert status["phase"] == "stopped"
    assert status["rollbacks"] == 2
    assert status["ledger"]["acknowledged"] == status["step"] == status["last_commit"]["step"]
    assert Path(status["export"], "model.keras").is_file()


def test_all_pods_asked_to_leave_at_once_leave_a_commit_to_go_on_from(pods):
    job = pods(steps=0, workers=1, checkpoint={"every_seconds": 600})
    wait_until(lambda: job.step() > 200)
    for pod in job.running.values():
        pod.send_signal(signal.SIGTERM)
    assert job.codes() == {"ps-0": 130, "ps-1": 130, "worker-0": 130}
    left = job.run.status()
    assert left["last_commit"]["step"] > 200
    for name in list(job.running):
        job.start(name)
    wait_until(lambda: job.step() > left["step"] + 100)
    status = job.run.status()
    assert f"goes on from commit {left['last_commit']['number']}" in " ".join(status["notes"])
    token = read_token(job.folder / "token")
    call(Address.parse(f"localhost:{job.ports[0]}"), token, "end", how="stop", reason="enough")
    assert job.codes() == {"ps-0": 0, "ps-1": 0, "worker-0": 0}
    status = job.run.status()
    assert status["ledger"]["acknowledged"] == status["step"]


def test_wrong_input_ends_every_pod_and_only_the_workers_say_so(pods):
    job = pods(params={"hidden_unit": "3"})
    codes = job.codes()
    assert {name: code for name, code in codes.items() if name.startswith("ps")} == {"ps-0": 0, "ps-1": 0}
    assert {code for name, code in codes.items() if name.startswith("worker")} == {2}
    status = json.loads(job.run.status_file.read_text())
    assert (status["phase"], status["exit_code"]) == ("failed", 2)
    assert "hidden_unit" in status["reason"]
