"""`tfleet launch`: runs any command as ps, workers and, where asked for, chief under the replica environment.

The commands are scripts written for TensorFlow's own distributed runtime. Such a ps never ends by itself, and under
a chief (ParameterServerStrategy) neither does a worker: those are terminated once all that do end have exited 0.
"""

from __future__ import annotations

import os
import shlex
import shutil
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tfleet.backends.base import Replica
from tfleet.backends.logtail import LogTail
from tfleet.backends.ports import free_ports
from tfleet.backends.processes import Children
from tfleet.backends.supervisor import GRACE as SUPERVISOR_GRACE
from tfleet.spec.environment import ReplicaEnvironment
from tfleet.spec.errors import ExitCode, WrongInput
from tfleet.spec.rundir import RunDir

AUTO = "127.0.0.1:auto"
"""An address in a plan whose port is chosen at the start."""

GRACE = SUPERVISOR_GRACE + 2.0
"""Seconds between SIGTERM to a supervisor, which gives its script a little less, and SIGKILL to all of them."""

POLL = 0.1
"""Seconds between two looks at the processes and their logs."""

LOOPBACK = "localhost,127.0.0.1,::1"


@dataclass(frozen=True)
class LaunchPlan:
    """What `launch` would start: the object behind `--dry-run`.

    Attributes:
        run_dir: where the logs go, absolute.
        replicas: the processes.
        awaited: the roles whose end, with exit code 0, is the end of the whole.
    """

    run_dir: Path
    replicas: tuple[Replica, ...]
    awaited: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """Returns the plan as plain values, the same for the same arguments."""
        return {
            "run_dir": str(self.run_dir),
            "awaited": list(self.awaited),
            "replicas": [
                {"role": r.role, "index": r.index, "command": list(r.command), "env": r.env} for r in self.replicas
            ],
        }

    def text(self) -> str:
        """Returns the plan for people: a line for each process."""
        lines = [f"# run directory: {self.run_dir}", f"# ends when these have exited 0: {', '.join(self.awaited)}"]
        for r in self.replicas:
            env = " ".join(f"{name}={shlex.quote(value)}" for name, value in sorted(r.env.items()))
            lines.append(f"{env} {shlex.join(r.command)}")
        return "\n".join(lines) + "\n"


def plan_launch(command: Sequence[str], workers: int, ps: int, chief: bool, run_dir: Path) -> LaunchPlan:
    """Decides what would be started; touches nothing, gives the same plan for the same arguments.

    Args:
        command: program and arguments, run unchanged by every replica.
        workers: number of workers, at least 1.
        ps: number of parameter servers; 0 for scripts without (MultiWorkerMirroredStrategy).
        chief: start one more replica with the role chief. With ps it coordinates (ParameterServerStrategy): the
            workers are servers like the ps, and its end is the end of the whole.
        run_dir: where the logs go.

    Raises:
        WrongInput: when a number or the command is wrong.
    """
    if workers < 1:
        raise WrongInput(f"--workers is {workers}; launch needs at least 1 worker")
    if ps < 0:
        raise WrongInput(f"--ps is {ps}; give 0 for scripts without parameter servers, else at least 1")
    if not command:
        raise WrongInput("no command was given; put it after '--', as in 'tfleet launch -- python script.py'")
    run = RunDir.at(run_dir)
    names = [("ps", i) for i in range(ps)] + [("chief", 0)] * chief + [("worker", i) for i in range(workers)]
    replicas = tuple(
        Replica(
            role,
            index,
            _supervised(role, index, run, command),
            {
                **ReplicaEnvironment(role, index, (AUTO,) * ps, (AUTO,) * workers, AUTO if chief else "").variables(),
                "PYTHONUNBUFFERED": "1",
            },
        )
        for role, index in names
    )
    awaited = ("worker",) if not chief else ("chief",) if ps else ("chief", "worker")
    return LaunchPlan(run.path, replicas, awaited)


class Launch:
    """The running replicas of one plan; also a context manager that ends them. No threads: `poll` drives it.

    Args:
        plan: what to start.
        clock: seconds, monotonic.

    Attributes:
        reason: once `poll` has given a code other than 0: which replica failed, or empty.

    Raises:
        WrongInput: when the command is no program, or the run directory cannot be used.
    """

    def __init__(self, plan: LaunchPlan, clock: Callable[[], float] = time.monotonic) -> None:
        program = plan.replicas[0].command[plan.replicas[0].command.index("--") + 1]
        if shutil.which(program) is None:
            raise WrongInput(f"the command {program!r} is not a program on PATH; give one after '--', such as python")
        run = RunDir.at(plan.run_dir)
        if run.job_file.exists():
            raise WrongInput(f"the run directory {run.path} holds a job of 'tfleet train'; choose another --run-dir")
        run.create()
        self.reason = ""
        self._plan = plan
        self._code: int | None = None
        self._children = Children(keep=(run.lock(),), clock=clock)
        logs = {f"{r.role}-{r.index}": run.log(r.role, r.index) for r in plan.replicas}
        self._tail = LogTail(logs, from_end=True)
        try:
            for r in _with_ports(plan.replicas):
                env = {**r.env, **loopback_without_proxy(os.environ)}
                self._children.start(r.role, r.index, r.command, env, run.log(r.role, r.index))
        except BaseException:
            self.close()
            raise

    def poll(self) -> int | None:
        """Returns the exit code of the whole once every process has ended, else None; does not block.

        It is 0 when all awaited replicas exited 0, else the code of the first that did not (128+n after signal n).
        """
        ended = self._children.poll()
        if self._code is None:
            self._code = self._decide()
            if self._code is not None:
                self._children.terminate(GRACE)
                ended = self._children.poll()
        return self._code if ended else None

    def lines(self) -> list[str]:
        """Returns what the replicas have written since the last call, each line after its replica's name."""
        return self._tail.read(last=self.poll() is not None)

    def interrupt(self) -> None:
        """Asks all to end, for exit code 130; at the second call kills them."""
        if self._code == ExitCode.INTERRUPTED:
            self._children.terminate(grace=0.0)
        elif self._code is None:
            self._code = int(ExitCode.INTERRUPTED)
            self._children.terminate(GRACE)

    def close(self) -> None:
        """Ends every process that still lives, and waits for it."""
        self._children.close(GRACE)

    def __enter__(self) -> Launch:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _decide(self) -> int | None:
        awaited = [child for child in self._children.all if child.role in self._plan.awaited]
        if all(child.code == 0 for child in awaited):
            return int(ExitCode.DONE)
        # Of those seen at once the awaited come first: the end of a worker may make its ps fail.
        failed = next((child for child in (*awaited, *self._children.all) if child.code), None)
        if failed is None or failed.code is None:
            return None
        code = failed.code if failed.code > 0 else 128 - failed.code
        self.reason = f"{failed} ended with code {code}, so the others were stopped; its log is {failed.log}"
        return code


def run(plan: LaunchPlan, echo: Callable[[str], None], tell: Callable[[str], None]) -> int:
    """Starts the plan, echoes what its replicas write, and returns the exit code of the whole; blocks.

    Args:
        plan: what to start.
        echo: takes each line of output.
        tell: takes a sentence on the replica that failed, where one did.

    Raises:
        WrongInput: when it cannot be started.
    """
    with Launch(plan) as launch:
        while True:
            try:
                code = launch.poll()
                for line in launch.lines():
                    echo(line)
                if code is not None:
                    if launch.reason:
                        tell(launch.reason)
                    return code
                time.sleep(POLL)
            except KeyboardInterrupt:
                launch.interrupt()


def loopback_without_proxy(environ: Mapping[str, str]) -> dict[str, str]:
    """Returns the variables that keep loopback connections away from the proxies of `environ`.

    TensorFlow's gRPC takes http_proxy for loopback too, and then hangs. The proxies stay: a script may download.
    """
    given = environ.get("no_proxy") or environ.get("NO_PROXY") or ""
    values = {"no_proxy": given, "NO_PROXY": given}
    if environ.get("no_grpc_proxy"):
        values["no_grpc_proxy"] = environ["no_grpc_proxy"]
    return {name: ",".join(filter(None, (value, LOOPBACK))) for name, value in values.items()}


def _supervised(role: str, index: int, run: RunDir, command: Sequence[str]) -> tuple[str, ...]:
    who = ("--role", role, "--index", str(index), "--run-dir", str(run.path))
    return (sys.executable, "-m", "tfleet.backends.supervisor", *who, "--", *command)


def _with_ports(replicas: Sequence[Replica]) -> list[Replica]:
    hosts = [f"127.0.0.1:{port}" for port in free_ports(len(replicas))]
    of = {
        role: tuple(host for host, r in zip(hosts, replicas, strict=True) if r.role == role)
        for role in ("ps", "worker", "chief")
    }
    chief = "".join(of["chief"])
    return [
        replace(r, env={**r.env, **ReplicaEnvironment(r.role, r.index, of["ps"], of["worker"], chief).variables()})
        for r in replicas
    ]
