"""Where a job is and keeps what it makes, in words for people: a folder of this machine, or a volume of a cluster.

Commands print through a place, so that they are the same for both backends.
"""

from __future__ import annotations

import contextlib
import re
import shlex
from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from tfleet.backends.base import Job
from tfleet.backends.kubernetes.handle import Handle, is_handle
from tfleet.spec.rundir import RunDir

NAMED = re.compile(r"\b(ps|worker|evaluator)[ -](\d+)\b")
"""How reasons name a replica."""


class Place(ABC):
    """Where one job is."""

    @property
    @abstractmethod
    def name(self) -> str:
        """What later commands take, as it can be pasted into a shell."""

    @property
    @abstractmethod
    def run(self) -> str:
        """The run directory, for people."""

    @abstractmethod
    def identity(self) -> dict[str, str]:
        """Returns what a JSON answer begins with."""

    @abstractmethod
    def inside(self, path: str) -> str:
        """Returns a path of the run directory, such as `export/1`, for people."""

    @abstractmethod
    def how_to_resume(self) -> str:
        """Says how to go on with the job."""

    @abstractmethod
    def where_to_look(self, reason: str) -> str:
        """Says which log to read about a failure; empty when the reason says it."""

    @abstractmethod
    def next_commands(self, status: Mapping[str, Any]) -> list[tuple[str, str]]:
        """Returns three commands to try after a job, each with what it does; none that its status lets fail."""


class LocalPlace(Place):
    """A folder of this machine.

    Args:
        run_dir: the run directory.
    """

    def __init__(self, run_dir: RunDir) -> None:
        self._run = run_dir

    @property
    def name(self) -> str:
        """The folder, quoted."""
        return shlex.quote(str(shown(self._run.path)))

    @property
    def run(self) -> str:
        """The folder."""
        return str(shown(self._run.path))

    def identity(self) -> dict[str, str]:
        """Returns the folder, absolute."""
        return {"run_dir": str(self._run.path)}

    def inside(self, path: str) -> str:
        """Returns the path, from the working directory where it is below that."""
        return str(shown(self._run.path / path))

    def how_to_resume(self) -> str:
        """Names the command."""
        return f"go on with 'tfleet train --resume --run-dir {self.run}'"

    def where_to_look(self, reason: str) -> str:
        """Names the log of the replica that the reason names, else that of ps 0, else the folder of all."""
        if str(self._run.logs) in reason:
            return ""
        named = NAMED.search(reason)
        guess = self._run.log(named[1], int(named[2])) if named else self._run.log("ps", 0)
        return f"read {shown(guess if guess.exists() else self._run.logs)}"

    def next_commands(self, status: Mapping[str, Any]) -> list[tuple[str, str]]:
        """Returns tensorboard, eval or logs, status."""
        again = (f"tfleet eval {self.name}", "evaluate the model once more")
        return [
            (f"tfleet tensorboard {self.name}", "curves, histograms, images"),
            again if status.get("evaluation") else (f"tfleet logs {self.name}", "what each replica said"),
            (f"tfleet status {self.name}", "members, ledger, commits"),
        ]


class KubernetesPlace(Place):
    """A release on a cluster and its volume.

    Args:
        handle: of the job.
        run_dir: path of the run directory inside the volume; empty: a command of the user's own keeps none.
        removed: whether the release is uninstalled when the command ends.
    """

    def __init__(self, handle: str, run_dir: str, removed: bool = False) -> None:
        self._at = Handle.parse(handle)
        self._run_dir = run_dir
        self._removed = removed

    @property
    def name(self) -> str:
        """The handle, quoted."""
        return shlex.quote(str(self._at))

    @property
    def run(self) -> str:
        """The path on the volume."""
        return f"{self._run_dir} on the volume" if self._run_dir else ""

    def identity(self) -> dict[str, str]:
        """Returns handle and path on the volume."""
        return {"handle": str(self._at), "run_dir": self._run_dir}

    def inside(self, path: str) -> str:
        """Returns the path on the volume."""
        return f"{PurePosixPath(self._run_dir, path)} on the volume"

    def how_to_resume(self) -> str:
        """Names the commands."""
        where = f"--context {shlex.quote(self._at.context)} --namespace {self._at.namespace} --name {self._at.release}"
        first = "" if self._removed else f"remove it with '{self.remove}' (its volume stays), then "
        return f"{first}go on with 'tfleet train TASK --resume --on kubernetes {where}'"

    def where_to_look(self, reason: str) -> str:
        """Names the command that prints the log of the replica that the reason names, else of all."""
        named = NAMED.search(reason)
        return "" if self._removed else f"read 'tfleet logs {self.name}{f' {named[1]} {named[2]}' if named else ''}'"

    @property
    def remove(self) -> str:
        """The command that removes the job."""
        context = shlex.quote(self._at.context)
        return f"helm uninstall {self._at.release} -n {self._at.namespace} --kube-context {context}"

    def next_commands(self, status: Mapping[str, Any]) -> list[tuple[str, str]]:
        """Returns copy, eval or logs, and how to remove the job; nothing for one that is removed already."""
        if self._removed:
            return []
        again = (f"tfleet eval {self.name}", "evaluate the model once more")
        return [
            (f"tfleet copy {self.name}", "bring the results to this machine"),
            again if status.get("evaluation") else (f"tfleet logs {self.name}", "what each replica said"),
            (self.remove, "remove the job; its volume stays"),
        ]

    def going_on(self) -> list[tuple[str, str]]:
        """Returns the commands for a job that goes on by itself."""
        return [
            (f"tfleet status {self.name}", "what it does"),
            (f"tfleet logs {self.name} --follow", "what its replicas say"),
            (f"tfleet stop {self.name}", "end it early: it commits, evaluates, exports"),
            (self.remove, "remove it; its volume stays"),
        ]


def place_of(job: Job) -> Place:
    """Returns the place of a job."""
    return place_at(job.handle, job.run_dir)


def place_at(handle: str, run_dir: str = "", removed: bool = False) -> Place:
    """Returns the place that a handle names; asks nobody.

    Raises:
        WrongInput: when the handle is malformed.
    """
    return KubernetesPlace(handle, run_dir, removed) if is_handle(handle) else LocalPlace(RunDir.at(handle))


def shown(path: Path) -> Path:
    """Returns a path as people like it: relative where it is below the working directory."""
    with contextlib.suppress(ValueError):
        return path.relative_to(Path.cwd())
    return path
