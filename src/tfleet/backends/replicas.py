"""Which processes make up a job on this machine: command and environment of each, also of one that is added later."""

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from tfleet.backends.base import Replica
from tfleet.backends.ports import free_ports
from tfleet.spec.environment import RESTARTS, TOKEN_FILE, UNIX, ReplicaEnvironment, split_listen
from tfleet.spec.job import JobSpec
from tfleet.spec.rundir import RunDir

CommandBuilder = Callable[[str, int, Path, bool], tuple[str, ...]]
"""(role, index, run directory, resume) -> command."""

AUTO = ":auto"
"""How an address in a plan ends whose port is chosen at the start."""
LOOPBACK = "127.0.0.1"


@dataclass
class Replicas:
    """Makes the replicas of one job.

    Attributes:
        spec: the job.
        run: its run directory.
        command: what a replica runs.
        ps_hosts: address of each ps.
        worker_hosts: address of each worker so far.
    """

    spec: JobSpec
    run: RunDir
    command: CommandBuilder
    ps_hosts: list[str] = field(default_factory=list)
    worker_hosts: list[str] = field(default_factory=list)
    _chosen: bool = False

    def __post_init__(self) -> None:
        self.ps_hosts = [self._address("ps", index) for index in range(self.spec.ps)]
        self.worker_hosts = [self._address("worker", index) for index in range(self.spec.workers)]

    def all(self, resume: bool) -> list[Replica]:
        """Returns those that the job begins with, ps 0 first."""
        names = [("ps", i) for i in range(self.spec.ps)] + [("worker", i) for i in range(self.spec.workers)]
        if self.spec.evaluation.evaluator:
            names.append(("evaluator", 0))
        return [self.one(role, index, resume) for role, index in names]

    def one(self, role: str, index: int, resume: bool, restarts: int = 0) -> Replica:
        """Returns one replica.

        Args:
            role: of it.
            index: of it; a worker's may be greater than that of any before.
            resume: whether the job goes on from its newest commit.
            restarts: how often it was started again.
        """
        while role == "worker" and index >= len(self.worker_hosts):
            self.worker_hosts.append(self._real(self._address("worker", len(self.worker_hosts))))
        environment = ReplicaEnvironment(role, index, tuple(self.ps_hosts), tuple(self.worker_hosts))
        env = {
            **environment.variables(),
            **tuning(role, self.spec),
            TOKEN_FILE: str(self.run.token_file),
            **({RESTARTS: str(restarts)} if restarts else {}),
        }
        return Replica(role, index, self.command(role, index, self.run.path, resume), env)

    def choose_ports(self) -> None:
        """Puts free ports where the plan has none."""
        hosts = [*self.ps_hosts, *self.worker_hosts]
        missing = sum(host.endswith(AUTO) for host in hosts)
        ports = iter(free_ports(missing) if missing else [])
        hosts = [host.removesuffix(AUTO) + f":{next(ports)}" if host.endswith(AUTO) else host for host in hosts]
        self.ps_hosts, self.worker_hosts = hosts[: len(self.ps_hosts)], hosts[len(self.ps_hosts) :]
        self._chosen = True

    def _real(self, address: str) -> str:
        chosen = self._chosen and address.endswith(AUTO)
        return f"{address.removesuffix(AUTO)}:{free_ports(1)[0]}" if chosen else address

    def _address(self, role: str, index: int) -> str:
        if self.spec.listen and role == "ps":
            host, port = split_listen(self.spec.listen)
            return f"{host}:{port + index}" if port else host + AUTO
        if self.spec.listen or self.spec.tcp or sys.platform != "linux":
            return LOOPBACK + AUTO
        # In Linux's abstract namespace: nothing lies in the file system that a killed process could leave behind.
        digest = hashlib.sha256(os.fsencode(self.run.path)).hexdigest()[:16]
        return f"{UNIX}@tfleet-{os.getuid()}-{digest}-{role}-{index}"


def replica_command(role: str, index: int, run_dir: Path, resume: bool) -> tuple[str, ...]:
    """Returns the command of one replica, which shows role, index and run directory in the process list."""
    module = "tfleet.server" if role == "ps" else "tfleet.worker"
    command = [sys.executable, "-m", module]
    if role == "evaluator":
        command.append("--evaluator")
    command += ["--index", str(index), "--run-dir", str(run_dir)]
    if role == "ps" and resume:
        command.append("--resume")
    return tuple(command)


def tuning(role: str, spec: JobSpec) -> dict[str, str]:
    """Returns the variables by which libraries are told how many threads they have, and to be quiet."""
    threads = "1" if role == "ps" else str(spec.threads)
    env = {
        "MKL_NUM_THREADS": threads,
        "OMP_NUM_THREADS": threads,
        "OPENBLAS_NUM_THREADS": threads,
        "PYTHONUNBUFFERED": "1",
    }
    if role != "ps":
        env |= {
            "KERAS_BACKEND": "tensorflow",
            "TF_CPP_MIN_LOG_LEVEL": "2",
            "TF_NUM_INTEROP_THREADS": threads,
            "TF_NUM_INTRAOP_THREADS": threads,
        }
    return env
