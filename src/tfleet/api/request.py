"""From what a user gave (task, flags or keywords, job file, run to resume) to one resolved job and its folder."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tfleet.api.names import Name, nest, parse
from tfleet.spec.errors import WrongInput
from tfleet.spec.job import TASK_DEFAULT, TLS_FILES, JobSpec, read_yaml
from tfleet.spec.rundir import RunDir
from tfleet.tasks.names import BUILTINS, file_part, object_part

RUNS = Path("runs")
"""Where new run directories are made, below the working directory."""

TIME_PLACEHOLDER = "<time>"
"""Stands for the start time in a dry run, so that two of them print the same bytes."""


@dataclass(frozen=True)
class Request:
    """What a user asked for, not yet checked.

    Attributes:
        task: name of the task; empty: the job file's or the resumed run's.
        given: keywords of the fields (see `tfleet.api.names`) and their values, text or plain.
        params: parameters of the task.
        file: a job file that is read first; empty: none.
        run_dir: the run directory; empty: a new folder under `runs/`.
        resume: go on from the newest commit in `run_dir`.
        spell: how the user writes a field: `Name.flag` or `Name.keyword`.
        base: fields of the job that everything else overrides, such as those of a chart's values.
        elsewhere: the job runs on another machine: paths mean files there, and what is resumed is not here.
    """

    task: str = ""
    given: Mapping[str, Any] = field(default_factory=dict)
    params: Mapping[str, Any] = field(default_factory=dict)
    file: str = ""
    run_dir: str = ""
    resume: bool = False
    spell: Callable[[Name], str] = lambda name: name.keyword
    base: Mapping[str, Any] = field(default_factory=dict)
    elsewhere: bool = False

    def spec(self) -> JobSpec:
        """Merges the resumed run's job, the job file and what was given, the later over the earlier; reads files.

        Raises:
            WrongInput: for a wrong value or name, a missing task, or nothing to resume.
        """
        values: dict[str, Any] = dict(self.base)
        before = self._resumed()
        if before is not None:
            values = before.model_dump(mode="json")
        if self.file:
            values = _merge(values, read_yaml(self.file))
        values = _merge(values, nest(dict(self.given)))
        if self.params:
            values["params"] = {**_mapping(values.get("params")), **self.params}
        if self.task:
            values["task"] = self.task
        spec = parse(values, self.given, self.spell)
        if not spec.task:
            raise WrongInput(
                "no task was given; name one, such as 'mnist' or 'my_task.py:task', or put 'task:' into the job file"
            )
        if self.elsewhere:
            return spec
        spec = _anchored(_with_task_defaults(spec))
        return spec.pinned(before) if before else spec

    def folder(self, spec: JobSpec, stamp: str) -> Path:
        """Chooses the run directory, absolute; makes nothing.

        Args:
            spec: the resolved job.
            stamp: start time for the name of a new folder, or `TIME_PLACEHOLDER`.
        """
        if self.run_dir:
            return RunDir.at(self.run_dir).path
        return new_folder(slug(spec.task), stamp)

    def _resumed(self) -> JobSpec | None:
        if not self.resume or self.elsewhere:
            return None
        if not self.run_dir:
            raise WrongInput("resume was asked for without a run; name the run directory to go on with by --run-dir")
        return JobSpec.load(RunDir.existing(self.run_dir).job_file)


def new_folder(name: str, stamp: str) -> Path:
    """Returns a path below `runs/` that does not exist yet, absolute; makes nothing.

    Args:
        name: what the folder's name begins with.
        stamp: start time, or `TIME_PLACEHOLDER`.
    """
    base = RunDir.at(RUNS / f"{name}-{stamp}").path
    path, number = base, 1
    while path.exists():
        number += 1
        path = base.with_name(f"{base.name}-{number}")
    return path


def slug(task: str) -> str:
    """Returns a short name of a task for a folder: `examples/flowers.py:task` becomes `flowers`."""
    module = task.rsplit(":", 1)[0]
    last = Path(module).stem if module.endswith(".py") else module.rsplit(".", 1)[-1]
    return re.sub(r"[^A-Za-z0-9_-]+", "-", last).strip("-") or "job"


def _merge(base: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    """Returns `base` with the values of `over`; steps given over epochs replace them, and the other way round."""
    merged = dict(base)
    if "epochs" in over and "steps" not in over and str(over["epochs"]) != "0":
        merged.pop("steps", None)
    if "steps" in over and "epochs" not in over:
        merged.pop("epochs", None)
    for key, value in over.items():
        old = merged.get(key)
        merged[key] = {**old, **value} if isinstance(old, dict) and isinstance(value, dict) else value
    return merged


def _mapping(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _with_task_defaults(spec: JobSpec) -> JobSpec:
    """Fills in what a built-in task says itself; a task of the user's is asked by the first worker."""
    if spec.task not in BUILTINS:
        return spec
    builtin, update = BUILTINS[spec.task], dict[str, int]()
    if spec.steps == TASK_DEFAULT and not spec.epochs and spec.strategy != "average":
        update["steps"] = builtin.steps
    if not spec.batch_size:
        update["batch_size"] = builtin.batch_size
    return spec.model_copy(update=update)


def _anchored(spec: JobSpec) -> JobSpec:
    """Makes the paths of task and files absolute, so that the run can be resumed and evaluated from any folder."""
    file = file_part(spec.task)
    task = spec.task if file is None else f"{file}:{object_part(spec.task)}"
    paths = {name: getattr(spec, name) for name in ("data_dir", *TLS_FILES)}
    absolute = {name: str(Path(path).expanduser().absolute()) for name, path in paths.items() if path}
    return spec.model_copy(update={"task": task, **absolute})
