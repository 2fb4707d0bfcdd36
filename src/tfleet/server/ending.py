"""How a job ends: what was asked for, what came of it, and when ps 0 may leave."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tfleet.spec.errors import ExitCode

if TYPE_CHECKING:
    from tfleet.server.coordinator import Coordinator

GRACE = 10.0
"""Seconds that replicas have to notice that the job is over."""
INTERRUPT_GRACE = 20.0
"""Seconds for the final commit of an interrupted job."""


class Ending:
    """The end of one job.

    Attributes:
        wish: the phase that was asked for before training was finished: stopped, interrupted, done (stopped early).
        over: {"phase", "exit_code", "reason"} once the job is over, else None.
        reason: one sentence for the user, or empty.
        export: folder of the exported version, or empty.
        metrics: held-out metrics of the exported model.
    """

    def __init__(self, coordinator: Coordinator) -> None:
        self.wish = ""
        self.over: dict[str, Any] | None = None
        self.reason = ""
        self.export = ""
        self.metrics: dict[str, float] = {}
        self._coordinator = coordinator

    def ask(self, how: str, reason: str) -> None:
        """Ends the job as a user or the launcher asks: stop, interrupt, or fail."""
        if self.over:
            return
        if how == "fail":
            self.fail(reason)
            return
        self.reason = reason
        self.stop("interrupted" if how == "interrupt" else "stopped")

    def stop(self, phase: str) -> None:
        """Lets leased batches be finished, commits, and ends the job in this phase."""
        job = self._coordinator
        self.wish = phase
        if phase == "interrupted":
            job.loop.call_later(INTERRUPT_GRACE, self._give_up)
        if job.phase == "starting" or job.ledger is None:
            code = ExitCode.INTERRUPTED if phase == "interrupted" else ExitCode.DONE
            self.end(phase, code, self.reason or "the job was ended before its first step")
        elif job.phase == "training":
            job.ledger.cap()
            job.finish_if_done()
        elif phase == "interrupted":
            self.end(phase, ExitCode.INTERRUPTED, self.reason)

    def fail(self, reason: str, exit_code: int = ExitCode.FAILED) -> None:
        """Ends the job at once; the last commit is kept."""
        self.end("failed", exit_code, reason)

    def end(self, phase: str, exit_code: int, reason: str) -> None:
        """The job is over; the second time nothing happens."""
        if self.over:
            return
        job = self._coordinator
        job.phase, self.reason = phase, reason
        self.over = {"phase": phase, "exit_code": int(exit_code), "reason": reason}
        print(f"tfleet: {phase}{': ' + reason if reason else ''}", flush=True)
        job.end_waiting()
        job.loop.call_later(GRACE, job.loop.stop)
        job.loop.call_later(0, self.check)

    def check(self) -> None:
        """Leaves as soon as no member is left."""
        if self.over and not self._coordinator.members.living:
            self._coordinator.loop.stop()

    def _give_up(self) -> None:
        self.end("interrupted", ExitCode.INTERRUPTED, self.reason)
