"""The interface of a backend: plan what would be started, start it, watch it, end it."""

from __future__ import annotations

import json
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from tfleet.spec.errors import ExitCode
from tfleet.spec.job import JobSpec

Ending = Literal["stop", "interrupt", "fail"]
"""How a job is asked to end: finish early with evaluation and export, commit only, or fail with a reason."""


@dataclass(frozen=True)
class Replica:
    """One process of a plan.

    Attributes:
        role: ps, worker or evaluator.
        index: its number within the role.
        command: what is run.
        env: what is added to the environment; never a secret.
    """

    role: str
    index: int
    command: tuple[str, ...]
    env: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Plan:
    """What `start` would start: the object behind `--dry-run`.

    Attributes:
        spec: the resolved job.
        run_dir: where it would run, absolute.
        resume: whether it goes on from the newest commit.
        replicas: the processes.
    """

    spec: JobSpec
    run_dir: Path
    resume: bool
    replicas: tuple[Replica, ...]

    @property
    def handle(self) -> str:
        """What every later command takes: see `Job.handle`."""
        return str(self.run_dir)

    def to_json(self) -> dict[str, Any]:
        """Returns the plan as plain values, the same for the same arguments."""
        return {
            "job": self.spec.model_dump(mode="json"),
            "run_dir": str(self.run_dir),
            "resume": self.resume,
            "replicas": [
                {"role": r.role, "index": r.index, "command": list(r.command), "env": r.env} for r in self.replicas
            ],
        }

    def text(self) -> str:
        """Returns the plan for people: the job as YAML, then a line for each process."""
        lines = [self.spec.dump().rstrip(), "", f"# run directory: {self.run_dir}"]
        for r in self.replicas:
            env = " ".join(f"{k}={json.dumps(v)}" for k, v in sorted(r.env.items()))
            lines.append(f"# {r.role} {r.index}: {env} {' '.join(r.command)}")
        return "\n".join(lines) + "\n"


class Job(ABC):
    """A started job, or one found again by its handle."""

    handle: str
    """What every later command takes: the run directory, or `k8s://context/namespace/name`."""

    outlives: bool = False
    """Whether the job goes on when whoever started it ends: Ctrl-C then ends the following, not the job."""

    @property
    def run_dir(self) -> str:
        """The run directory, as the job's own replicas see it."""
        return self.handle

    @abstractmethod
    def status(self) -> dict[str, Any]:
        """Returns the last known status (see docs, run directory); does not block for long."""

    @abstractmethod
    def poll(self) -> ExitCode | None:
        """Returns the job's result once every process has ended, else None; does not block."""

    def wait(self, seconds: float) -> None:
        """Blocks for a time until `poll` is worth another look: at most so many seconds, less where something ends."""
        time.sleep(seconds)

    @abstractmethod
    def end(self, how: Ending, reason: str) -> None:
        """Asks the job to end; returns before it has.

        Raises:
            WrongInput: when it is not running.
        """

    @abstractmethod
    def scale(self, workers: int) -> None:
        """Asks for so many workers; returns once the job has agreed, before they are there.

        Raises:
            WrongInput: when it is not running, is ending, or may not have so many.
        """

    @abstractmethod
    def logs(self, role: str = "", index: int = -1, follow: bool = False) -> Iterator[str]:
        """Yields log lines of all replicas or one; with `follow` until the job has ended."""

    def close(self) -> None:  # noqa: B027
        """Ends at once what this process has started; leaves alone a job that was found by its handle."""


class Backend(ABC):
    """Where replicas run."""

    @abstractmethod
    def plan(self, spec: JobSpec, run_dir: Path, resume: bool = False) -> Plan:
        """Decides what would be started; touches nothing, gives the same plan for the same arguments.

        Raises:
            WrongInput: when this backend cannot honour a field of the spec.
        """

    @abstractmethod
    def start(self, plan: Plan) -> Job:
        """Starts exactly what the plan says; returns once the processes were started.

        Raises:
            WrongInput: when the run directory cannot be used.
        """
