"""Following a job until it has ended, Ctrl-C included."""

from __future__ import annotations

import contextlib
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from types import FrameType
from typing import Any

from tfleet.api.places import Place
from tfleet.api.progress import Display
from tfleet.backends.base import Job
from tfleet.spec.errors import ExitCode, Interrupted, TfleetError, WrongInput, error_for

INTERVAL = 0.2
"""Seconds between two looks at a job."""


@dataclass(frozen=True)
class Outcome:
    """How a job ended.

    Attributes:
        code: its result.
        status: the last status; empty when it ended before there was one.
        detached: it has not ended: only the following has.
    """

    code: ExitCode
    status: Mapping[str, Any]
    detached: bool = False

    def error(self, place: Place) -> TfleetError | None:
        """Returns the error that says why the job did not end well, or None when it did."""
        if self.code == ExitCode.DONE:
            return None
        if self.detached:
            return Interrupted(
                f"interrupted, but the job goes on: 'tfleet status {place.name}' tells what it does, "
                f"'tfleet attach {place.name}' follows it again"
            )
        if self.code == ExitCode.INTERRUPTED:
            step = self.status.get("step", 0)
            where = f"at step {step:,}, all of it committed" if step else "before the first step"
            return Interrupted(f"interrupted {where}; {place.how_to_resume()}")
        reason = str(self.status.get("reason", "")) or "the job ended before it could say why"
        if self.code == ExitCode.WRONG_INPUT and self.status.get("reason"):
            return error_for(self.code, reason)
        look = place.where_to_look(reason)
        return error_for(self.code, f"{reason.rstrip('. ')}; {look}" if look else reason)


@dataclass
class Interrupts:
    """Counts Ctrl-C (and SIGTERM, SIGHUP); the second one raises KeyboardInterrupt at once.

    Attributes:
        count: how many came.
        last: what the last one is called.
    """

    count: int = 0
    last: str = "Ctrl-C"
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
        self.last = "Ctrl-C" if number == signal.SIGINT else signal.Signals(number).name
        if self.count > 1:
            raise KeyboardInterrupt


def follow(
    job: Job,
    display: Display,
    interrupts: Interrupts,
    *,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] | None = None,
) -> Outcome:
    """Shows the job's progress until it has ended; blocks.

    The first Ctrl-C asks the job for a final commit and goes on following it; a job that outlives this process is
    left alone.

    Args:
        job: the started job.
        display: where its progress is shown.
        interrupts: the signals caught since before the job was started.
        clock: gives the time in seconds.
        sleep: waits for a time in seconds; None: the job's own `wait`.

    Raises:
        KeyboardInterrupt: at the second Ctrl-C; the caller ends the job.
    """
    asked = False
    while (code := job.poll()) is None:
        display.show(job.status(), clock())
        if interrupts.count and job.outlives:
            return Outcome(ExitCode.INTERRUPTED, job.status(), detached=True)
        if interrupts.count and not asked:
            asked = True
            display.say("interrupted: waiting for the final commit (Ctrl-C again kills the job at once)")
            with contextlib.suppress(WrongInput):
                job.end("interrupt", f"interrupted by {interrupts.last}")
        (sleep or job.wait)(INTERVAL)
    status = job.status()
    display.show(status, clock())
    return Outcome(code, status)
