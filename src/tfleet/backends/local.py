"""The local backend: every replica is a process of this machine."""

from __future__ import annotations

import contextlib
import hashlib
import os
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from tfleet.backends.base import Backend, Plan, Replica
from tfleet.backends.local_job import LocalJob, StartedJob
from tfleet.backends.ports import free_ports, require_free
from tfleet.backends.processes import Children
from tfleet.backends.trace import Trace
from tfleet.spec.environment import PS_HOSTS, TOKEN_FILE, UNIX, ReplicaEnvironment
from tfleet.spec.errors import WrongInput
from tfleet.spec.job import JobSpec
from tfleet.spec.rundir import RunDir, write_atomically

CommandBuilder = Callable[[str, int, Path, bool], tuple[str, ...]]
"""(role, index, run directory, resume) -> command."""

AUTO = "127.0.0.1:auto"
"""An address in a plan whose port is chosen at the start."""

LOCK_PATIENCE = 0.5
"""Seconds to wait for the lock: `RunDir.alive`, asked by another command, holds it for a moment."""


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


class LocalBackend(Backend):
    """Runs a job as processes of this machine, over Unix sockets or TCP on loopback.

    Args:
        command: what a replica runs; tests put other programs here.
    """

    def __init__(self, command: CommandBuilder = replica_command) -> None:
        self._command = command

    def plan(self, spec: JobSpec, run_dir: Path, resume: bool = False) -> Plan:
        """Decides what would be started; see `Backend.plan`."""
        run = RunDir.at(run_dir)
        ps_hosts = tuple(_address(spec, run, "ps", index) for index in range(spec.ps))
        worker_hosts = tuple(_address(spec, run, "worker", index) for index in range(spec.workers))
        names = [("ps", i) for i in range(spec.ps)] + [("worker", i) for i in range(spec.workers)]
        if spec.evaluation.evaluator:
            names.append(("evaluator", 0))
        replicas = [
            Replica(
                role,
                index,
                self._command(role, index, run.path, resume),
                {
                    **ReplicaEnvironment(role, index, ps_hosts, worker_hosts).variables(),
                    **_tuning(role, spec),
                    TOKEN_FILE: str(run.token_file),
                },
            )
            for role, index in names
        ]
        return Plan(spec, run.path, resume, tuple(replicas))

    def start(self, plan: Plan) -> StartedJob:
        """Starts the processes of the plan; see `Backend.start`. Blocks for the start of each process only.

        Raises:
            WrongInput: when the run directory is used, in use, missing (resume) or not writable, or a port is taken.
        """
        run = RunDir.at(plan.run_dir)
        if plan.resume:
            RunDir.existing(plan.run_dir)
        if plan.spec.status_port:
            require_free(plan.spec.status_port, "--status-port")
        made = run.create()
        with contextlib.ExitStack() as undo:
            # The replicas inherit the lock: it lasts as long as any of them, even when the launcher dies.
            children = undo.enter_context(Children(keep=(_lock(run),)))
            if not plan.resume:
                _refuse_used(run)
            trace = Trace(run, made, [run.log(r.role, r.index) for r in plan.replicas])
            undo.callback(trace.remove)
            undo.callback(children.end)
            replicas = _with_ports(plan)
            try:
                # What ps 0 told about an earlier run would otherwise be taken for the result of this one.
                run.status_file.unlink(missing_ok=True)
                run.make_token()
                write_atomically(run.job_file, plan.spec.dump())
                write_atomically(run.endpoint_file, replicas[0].env[PS_HOSTS].split(",")[0])
            except OSError as error:
                raise run.not_writable(error) from None
            for r in replicas:
                children.start(r.role, r.index, r.command, r.env, run.log(r.role, r.index))
            undo.pop_all()
        return StartedJob(run, children, refused=trace.remove)


def open_job(handle: str) -> LocalJob:
    """Returns the local job whose run directory is `handle`, started by any process.

    Raises:
        WrongInput: when there is no job in it.
    """
    return LocalJob(RunDir.existing(handle))


def _address(spec: JobSpec, run: RunDir, role: str, index: int) -> str:
    if spec.tcp or sys.platform != "linux":
        return AUTO
    # In Linux's abstract namespace: nothing lies in the file system that a killed process could leave behind.
    digest = hashlib.sha256(os.fsencode(run.path)).hexdigest()[:16]
    return f"{UNIX}@tfleet-{os.getuid()}-{digest}-{role}-{index}"


def _tuning(role: str, spec: JobSpec) -> dict[str, str]:
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


def _with_ports(plan: Plan) -> list[Replica]:
    if AUTO not in plan.replicas[0].env[PS_HOSTS]:
        return list(plan.replicas)
    count = plan.spec.ps
    hosts = tuple(f"127.0.0.1:{port}" for port in free_ports(count + plan.spec.workers))
    return [
        replace(r, env={**r.env, **ReplicaEnvironment(r.role, r.index, hosts[:count], hosts[count:]).variables()})
        for r in plan.replicas
    ]


def _refuse_used(run: RunDir) -> None:
    if run.job_file.exists():
        raise WrongInput(
            f"the run directory {run.path} holds an earlier job; "
            "go on with it with --resume or choose another with --run-dir"
        )


def _lock(run: RunDir) -> int:
    deadline = time.monotonic() + LOCK_PATIENCE
    while True:
        try:
            return run.lock()
        except WrongInput:
            if time.monotonic() >= deadline:
                raise
            time.sleep(0.02)
