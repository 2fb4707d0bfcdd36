"""Following a job that this process started until it has ended, Ctrl-C included."""

from __future__ import annotations

import contextlib
import re
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

from tfleet.api.progress import Display
from tfleet.backends.base import Job
from tfleet.spec.errors import ExitCode, Interrupted, TfleetError, WrongInput, error_for
from tfleet.spec.rundir import RunDir

INTERVAL = 0.2
"""Seconds between two looks at a job."""


@dataclass(frozen=True)
class Outcome:
    """How a job ended.

    Attributes:
        code: its result.
        status: the last status; empty when it ended before there was one.
    """

    code: ExitCode
    status: Mapping[str, Any]

    def error(self, run: RunDir) -> TfleetError | None:
        """Returns the error that says why the job did not end well, or None when it did."""
        if self.code == ExitCode.DONE:
            return None
        if self.code == ExitCode.INTERRUPTED:
            step = self.status.get("step", 0)
            where = f"at step {step:,}, all of it committed" if step else "before the first step"
            return Interrupted(f"interrupted {where}; {how_to_resume(run)}")
        reason = str(self.status.get("reason", "")) or "the job ended before it could say why"
        if self.code == ExitCode.WRONG_INPUT and self.status.get("reason"):
            return error_for(self.code, reason)
        if str(run.logs) in reason:
            return error_for(self.code, reason)
        return error_for(self.code, f"{reason.rstrip('. ')}; read {log_to_read(run, reason)}")


@dataclass
class Interrupts:
    """Counts Ctrl-C (and SIGTERM, SIGHUP); the second one raises KeyboardInterrupt at once."""

    count: int = 0
    _before: dict[signal.Signals, Any] = field(default_factory=dict)

    @contextlib.contextmanager
    def caught(self) -> Iterator[Interrupts]:
        """Catches signals while inside; does nothing outside the main thread, where Python allows no handlers."""
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
                # nohup and shells' background jobs ask for a signal to be ignored: it stays so.
                if signal.getsignal(number) not in (signal.SIG_IGN, None):
                    self._before[number] = signal.signal(number, self._count)
        try:
            yield self
        finally:
            for number, handler in self._before.items():
                signal.signal(number, handler)
            self._before.clear()

    def _count(self, number: int, frame: FrameType | None) -> None:
        self.count += 1
        if self.count > 1:
            raise KeyboardInterrupt


def follow(
    job: Job,
    display: Display,
    interrupts: Interrupts,
    *,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> Outcome:
    """Shows the job's progress until it has ended; blocks.

    The first Ctrl-C asks the job for a final commit and goes on following it.

    Args:
        job: the started job.
        display: where its progress is shown.
        interrupts: the signals caught since before the job was started.
        clock: gives the time in seconds.
        sleep: waits for a time in seconds.

    Raises:
        KeyboardInterrupt: at the second Ctrl-C; the caller ends the job.
    """
    asked = False
    while (code := job.poll()) is None:
        display.show(job.status(), clock())
        if interrupts.count and not asked:
            asked = True
            display.say("interrupted: waiting for the final commit (Ctrl-C again kills the job at once)")
            with contextlib.suppress(WrongInput):
                job.end("interrupt", "interrupted by Ctrl-C")
        sleep(INTERVAL)
    status = job.status()
    display.show(status, clock())
    return Outcome(code, status)


def how_to_resume(run: RunDir) -> str:
    """Says how to go on with a run."""
    return f"go on with 'tfleet train --resume --run-dir {shown(run.path)}'"


def log_to_read(run: RunDir, reason: str) -> Path:
    """Returns the log of the replica that a reason names, else that of ps 0, else the folder of all."""
    named = re.search(r"\b(ps|worker|evaluator)[ -](\d+)\b", reason)
    guess = run.log(named[1], int(named[2])) if named else run.log("ps", 0)
    return shown(guess if guess.exists() else run.logs)


def shown(path: Path) -> Path:
    """Returns a path as people like it: relative where it is below the working directory."""
    with contextlib.suppress(ValueError):
        return path.relative_to(Path.cwd())
    return path
