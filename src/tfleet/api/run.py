"""`train` and `Run`: a job from Python, a script or a notebook alike."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from tfleet.api.follow import Interrupts, Outcome, follow
from tfleet.api.places import place_at, shown
from tfleet.api.progress import Display, Printer
from tfleet.api.request import TIME_PLACEHOLDER, Request
from tfleet.api.text import metrics_line
from tfleet.backends.base import Backend, Job, Plan
from tfleet.spec.errors import ExitCode, Interrupted, WrongInput, error_for
from tfleet.spec.rundir import RunDir


class Run:
    """One run directory: what its job did, and what can be done with it.

    Attributes:
        dir: the run directory, absolute.
    """

    def __init__(self, path: str | Path) -> None:
        """Opens the run at `path`.

        Raises:
            WrongInput: when there is no job in it.
        """
        self._run = RunDir.existing(path)
        self.dir: Path = self._run.path

    @property
    def metrics(self) -> dict[str, float]:
        """The newest metrics on the held-out data; empty before the first evaluation."""
        evaluation = self.status().get("evaluation") or {}
        return dict(evaluation.get("metrics", {}))

    def status(self) -> dict[str, Any]:
        """Returns what the job last told about itself: phase, step, members and more; empty before it did."""
        return self._run.status()

    def history(self) -> list[dict[str, Any]]:
        """Returns the lines of metrics.jsonl: training and held-out metrics by global step, oldest first."""
        if not self._run.metrics.exists():
            return []
        # A living job may be in the middle of its last line: only lines with their end count.
        complete = self._run.metrics.read_text(encoding="utf-8").rpartition("\n")[0]
        return [json.loads(line) for line in complete.splitlines() if line]

    def evaluate(self, commit: int = -1) -> dict[str, float]:
        """Evaluates a commit on the held-out data in a process of its own; blocks for some seconds.

        Args:
            commit: number of the commit; -1: the newest.

        Returns:
            Names of metrics to their values.

        Raises:
            TfleetError: what `tfleet eval` said.
        """
        metrics: dict[str, Any] = self._command("eval", commit)["metrics"]
        return {name: float(value) for name, value in metrics.items()}  # "nan" comes as text

    def export(self, commit: int = -1) -> Path:
        """Exports a commit as a SavedModel and model.keras in a process of its own; blocks for some seconds.

        Args:
            commit: number of the commit; -1: the newest.

        Returns:
            The folder of the new version.

        Raises:
            TfleetError: what `tfleet export` said.
        """
        return Path(self._command("export", commit)["export"])

    def _command(self, verb: str, commit: int) -> dict[str, Any]:
        arguments = [sys.executable, "-m", "tfleet", verb, str(self.dir), "--commit", str(commit), "-o", "json"]
        done = subprocess.run(arguments, capture_output=True, text=True, check=False)
        if done.returncode:
            lines = done.stderr.strip().splitlines() or [f"tfleet {verb} ended with exit code {done.returncode}"]
            raise error_for(done.returncode, lines[-1].removeprefix("tfleet: "))
        answer: dict[str, Any] = json.loads(done.stdout)
        return answer

    def __repr__(self) -> str:
        status = self.status()
        parts = [f"{status.get('phase', 'not started')}", f"step {status.get('step', 0):,}"]
        if self.metrics:
            parts.append(f"held out: {metrics_line(self.metrics)}")
        return f"Run('{shown(self.dir)}': {', '.join(parts)})"


def train(
    task: str | Path = "",
    *,
    workers: int | None = None,
    ps: int | None = None,
    steps: int | None = None,
    params: Mapping[str, Any] | None = None,
    run_dir: str | Path = "",
    file: str | Path = "",
    resume: bool = False,
    progress: bool = True,
    **fields: Any,
) -> Run:
    """Trains a task on this machine and returns its run; blocks until the job has ended.

    Example:
        >>> import tfleet
        >>> run = tfleet.train("mnist", workers=2, ps=2, steps=500, params={"hidden_units": 100})
        >>> run.metrics["accuracy"], run.dir

    Args:
        task: `mnist`, `module:object` or `path/to/file.py:object`; empty with `file` or `resume`.
        workers: number of worker processes; the default is the job's, 2.
        ps: number of parameter servers; the default is the job's, 2.
        steps: global steps; the default is the task's.
        params: parameters of the task.
        run_dir: the run directory; by default a new folder below `runs/`.
        file: a job file (YAML) that is read first; arguments override it.
        resume: goes on from the newest commit in `run_dir`.
        progress: prints the progress, one line every few seconds.
        **fields: any other field by the name of its flag: `batch_size=50`, `strategy="sync"`, `eval_every=500`.

    Raises:
        WrongInput: when the job cannot work as asked; the message says what to change.
        JobFailed: when the job failed; the message says why and which log to read.
        Interrupted: after Ctrl-C or the notebook's stop button: everything is committed.
    """
    given = {"workers": workers, "ps": ps, "steps": steps, **fields}
    request = Request(
        task=task_name(task),
        given={keyword: value for keyword, value in given.items() if value is not None},
        params=params or {},
        file=str(file),
        run_dir=str(run_dir),
        resume=resume,
    )
    backend = local_backend()
    job_plan = plan(request, backend, stamp())
    printer = Printer(lambda line: print(line, flush=True) if progress else None)

    def open_display() -> Printer:
        printer.say(f"run directory: {shown(job_plan.run_dir)}")
        return printer

    outcome = start_and_follow(job_plan, backend, open_display)
    if error := outcome.error(place_at(job_plan.handle)):
        raise error
    result = Run(job_plan.run_dir)
    printer.say(repr(result))
    return result


def plan(request: Request, backend: Backend, when: str = TIME_PLACEHOLDER) -> Plan:
    """Resolves and checks a request without starting anything; the same request gives the same plan.

    Raises:
        WrongInput: when the job cannot work as asked.
    """
    from tfleet.tasks.names import check_name

    spec = request.spec()
    check_name(spec.task)
    return backend.plan(spec, request.folder(spec, when), request.resume)


def start_and_follow(job_plan: Plan, backend: Backend, open_display: Callable[[], Display]) -> Outcome:
    """Starts a plan and follows it until the job has ended, whatever happens on the way; blocks.

    Args:
        job_plan: what to start.
        backend: where.
        open_display: makes the display, once the job was started: a refusal is all that is said before.

    Raises:
        WrongInput: when it cannot be started.
        Interrupted: when a second Ctrl-C killed it.
    """
    place = place_at(job_plan.handle)
    interrupts = Interrupts()
    job: Job | None = None
    with contextlib.ExitStack() as ending:
        try:
            with interrupts.caught():
                job = backend.start(job_plan)
                ending.callback(job.close)
                display = open_display()
                ending.callback(display.close)
                return follow(job, display, interrupts)
        except KeyboardInterrupt:
            if job is not None and job.outlives:
                return Outcome(ExitCode.INTERRUPTED, {}, detached=True)
            raise Interrupted(f"killed; what was committed is kept; {place.how_to_resume()}") from None


def stamp() -> str:
    """Returns the local time for the name of a new run directory: 20260131-235959."""
    return time.strftime("%Y%m%d-%H%M%S")


def local_backend() -> Backend:
    """Returns the backend that runs replicas on this machine."""
    from tfleet.backends.local import LocalBackend

    return LocalBackend()


def task_name(task: object) -> str:
    """Returns the name of a task that other processes can load.

    Raises:
        WrongInput: for a Python object, or one that only a notebook or script has in its memory.
    """
    if isinstance(task, str | Path) and not str(task).startswith("__main__"):
        return str(task)
    what = f"'{task}'" if isinstance(task, str) else f"a Python object ({type(task).__name__})"
    raise WrongInput(
        f"the task is {what}, which other processes cannot load; put its code into a file, in a notebook with "
        "'%%writefile my_task.py' as the first line of its cell, and give 'my_task.py:task'"
    )
