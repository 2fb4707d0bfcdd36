"""The local backend: every replica is a process of this machine."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterable
from pathlib import Path

from tfleet.backends.base import Backend, Plan
from tfleet.backends.local_job import LocalJob, StartedJob
from tfleet.backends.ports import require_free
from tfleet.backends.processes import Children
from tfleet.backends.replicas import AUTO, CommandBuilder, Replicas, replica_command
from tfleet.backends.trace import Trace
from tfleet.backends.upkeep import Upkeep
from tfleet.spec.environment import UNIX
from tfleet.spec.errors import WrongInput
from tfleet.spec.job import JobSpec
from tfleet.spec.rundir import RunDir, write_atomically
from tfleet.wire.address import Address
from tfleet.wire.secure import tls_of

LISTEN_PATIENCE = 0.5
"""Seconds that ps 0 has to listen before the workers are started: whoever tries in vain waits longer and longer.

The other ps come up meanwhile: a worker that has joined waits for them, and only then imports TensorFlow.
"""

LOCK_PATIENCE = 0.5
"""Seconds to wait for the lock: `RunDir.alive`, asked by another command, holds it for a moment."""


class LocalBackend(Backend):
    """Runs a job as processes of this machine, over Unix sockets or TCP on loopback.

    Args:
        command: what a replica runs; tests put other programs here.
    """

    def __init__(self, command: CommandBuilder = replica_command) -> None:
        self._command = command

    def plan(self, spec: JobSpec, run_dir: Path, resume: bool = False) -> Plan:
        """Decides what would be started; see `Backend.plan`.

        Raises:
            WrongInput: for an option of the job that does nothing on one machine, or certificates that cannot be used.
        """
        if spec.wire_dtype != "float32" and spec.shared_memory == "auto" and not (spec.tcp or spec.listen):
            raise WrongInput(
                f"--wire-dtype {spec.wire_dtype} does nothing on one machine, where gradients go through memory that "
                "replicas share; leave it out, or add --tcp or --shared-memory never"
            )
        run = RunDir.at(run_dir)
        replicas = Replicas(spec, run, self._command)
        if spec.tls_cert and replicas.ps_hosts[0].startswith(UNIX):
            raise WrongInput(
                "--tls-cert does nothing on one machine, where replicas talk by Unix sockets that no network reaches; "
                "leave the TLS flags out, or add --tcp or --listen"
            )
        tls_of(spec, replicas.ps_hosts[0].replace(AUTO, ":1"))
        return Plan(spec, run.path, resume, tuple(replicas.all(resume)))

    def start(self, plan: Plan) -> StartedJob:
        """Starts the processes of the plan; see `Backend.start`. Blocks until ps 0 listens, half a second at most.

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
            trace = Trace(run, made, [run.launcher_log, *(run.log(r.role, r.index) for r in plan.replicas)])
            undo.callback(trace.remove)
            undo.callback(children.end)
            replicas = Replicas(plan.spec, run, self._command)
            replicas.choose_ports()
            if plan.spec.listen:
                _require_ours(plan.spec.listen, replicas.ps_hosts)
            try:
                # What ps 0 told about an earlier run would otherwise be taken for the result of this one.
                run.status_file.unlink(missing_ok=True)
                run.make_token()
                run.write_job(plan.spec.dump())
                write_atomically(run.endpoint_file, replicas.ps_hosts[0])
            except OSError as error:
                raise run.not_writable(error) from None
            for number, r in enumerate(replicas.all(plan.resume)):
                if number == plan.spec.ps:
                    _wait_for(replicas.ps_hosts[0], children)
                children.start(r.role, r.index, r.command, r.env, run.log(r.role, r.index))
            undo.pop_all()
        return StartedJob(run, children, Upkeep(children, replicas), refused=trace.remove)


def open_job(handle: str) -> LocalJob:
    """Returns the local job whose run directory is `handle`, started by any process.

    Raises:
        WrongInput: when there is no job in it.
    """
    return LocalJob(RunDir.existing(handle))


def _wait_for(host: str, children: Children) -> None:
    """Returns once somebody listens there, or a child has ended, or patience has."""
    address, end = Address.parse(host), time.monotonic() + LISTEN_PATIENCE
    while time.monotonic() < end and not any(child.poll() is not None for child in children.all):
        with contextlib.suppress(OSError):
            address.connect(0.1).close()
            return
        time.sleep(0.01)


def _require_ours(listen: str, addresses: Iterable[str]) -> None:
    """Checks that this machine has the address on which the ps are to listen, and that their ports are free.

    Raises:
        WrongInput: when it has not, or they are not.
    """
    for address in map(Address.parse, addresses):
        try:
            address.listen().close()
        except WrongInput as error:
            why = str(error).rpartition("; ")[0]
            raise WrongInput(
                f"--listen {listen}: {why}; give an address of this machine, and a port from which on as many are free "
                "as there are ps, or none"
            ) from None


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
