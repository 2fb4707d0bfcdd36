"""How a job ends: what was asked for, the final commit, finalisation by one worker, and when ps 0 may leave."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from tfleet.server.calls import Call, Calls
from tfleet.server.members import Member
from tfleet.spec.errors import ExitCode, WrongInput, nearest

if TYPE_CHECKING:
    from tfleet.server.coordinator import Coordinator

GRACE = 10.0
"""Seconds that replicas have to notice that the job is over."""
INTERRUPT_GRACE = 20.0
"""Seconds for the final commit of an interrupted job."""
PATIENCE = 60.0
"""Seconds for which the final commit is tried again, where there is no room for it."""
AGAIN = 2.0
"""Seconds between two tries."""
_HOW = ("stop", "interrupt", "fail")


class Ending:
    """The part of the coordinator that ends the job.

    Attributes:
        over: {"phase", "exit_code", "reason"} once the job is over, else None.
        reason: one sentence for the user, or empty.
        export: folder of the exported version, or empty.
        wish: the phase that the job is to end in before its last step: stopped, interrupted, or done (stopped early);
            or empty.
        on_over: called once the job is over, before anybody is told.
    """

    def __init__(self, job: Coordinator) -> None:
        self.over: dict[str, Any] | None = None
        self.reason = job.history.reason
        self.wish = job.history.ending
        self.on_over: Callable[[], None] = lambda: None
        self.export = ""
        self.calls: Calls = {
            "end": self._asked,
            "fail": self._failed,
            "finalise": self._finalise,
            "finalised": self._finalised,
            "outcome": self._outcome,
        }
        self._job = job
        self._committed = False
        self._fails_at: float | None = None
        self._finaliser: Member | None = None
        if self.wish == "interrupted":
            job.loop.call_later(0, self.give_up)

    def lease(self, member: Member) -> bool:
        """Gives the finalisation lease to a worker once the final commit is made."""
        if not self._committed or self._finaliser is not None or self._job.evaluating.busy:
            return False
        self._finaliser = member
        return True

    def release(self, member: Member) -> None:
        """Takes the finalisation lease back from a member that is gone."""
        if member is self._finaliser:
            self._finaliser = None

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
        job = self._job
        if self.wish != "interrupted":  # who interrupts waits for no evaluation or export
            self.wish = phase
        if phase == "interrupted":
            job.loop.call_later(INTERRUPT_GRACE, self.give_up)
        if job.phase == "starting" and job.history.rollbacks and phase != "interrupted":
            return  # there are steps to evaluate and export, once the ps that was lost is back: see `begin`
        if job.phase == "starting" or job.ledger is None:
            code = ExitCode.INTERRUPTED if phase == "interrupted" else ExitCode.DONE
            self.end(phase, code, self.reason or "the job was ended before its first step")
        elif job.phase == "training":
            self._cap()
            self.finish_if_done()
            job.serve_parked()
        elif phase == "interrupted" and self._committed:
            self.give_up()

    def begin(self) -> None:
        """Training begins: it ends at once where the generation before was asked to end."""
        if self.wish:
            self._cap()

    def given_back(self) -> None:
        """Batches were given back: a job that is about to end does not wait for another worker to do them."""
        job = self._job
        if self.wish and job.phase == "training":
            self._cap()
            self.finish_if_done()

    def _cap(self) -> None:
        ledger = self._job.ledger
        assert ledger is not None
        ledger.cap()
        if not self._job.members.workers:  # nobody is left to finish a step that has begun
            ledger.total = max(1, ledger.step)

    def finish_if_done(self) -> None:
        """Ends training when every step is acknowledged and no commit is under way."""
        job = self._job
        if not (job.ledger and job.ledger.finished and job.phase == "training"):
            return
        if job.checkpointing.commits.busy >= 0:
            return
        job.phase = "finalising"
        if job.training_started is not None and job.progress:
            job.training_elapsed += job.clock() - job.training_started
            job.progress.training_ended(job.training_elapsed)
        self._finish()

    def _finish(self) -> None:
        """Training is over: makes the final commit, then has one worker finalise."""
        job = self._job
        last = job.checkpointing.commits.last
        if last and last["step"] == job.step:
            self._final_commit(last["number"])
        else:
            self._commit()

    def _commit(self) -> None:
        if not self.over:
            self._job.checkpointing.start(self._final_commit, self._commit_again)

    def _commit_again(self, why: str) -> None:
        loop = self._job.loop
        if self._fails_at is None:
            self._fails_at = loop.now() + PATIENCE
            self._job.note(f"{why}; the final commit is tried again for {PATIENCE:g} s")
        elif loop.now() >= self._fails_at:
            self.fail(f"{why}, then go on with --resume")
            return
        loop.call_later(AGAIN, self._commit)

    def fail(self, reason: str, exit_code: int = ExitCode.FAILED) -> None:
        """Ends the job at once; the last commit is kept."""
        self.end("failed", exit_code, reason)

    def end(self, phase: str, exit_code: int, reason: str) -> None:
        """The job is over; the second time nothing happens."""
        job = self._job
        if self.over or job.rolled_back:
            return
        job.phase, self.reason = phase, reason
        self.over = {"phase": phase, "exit_code": int(exit_code), "reason": reason}
        print(f"tfleet: {phase}{': ' + reason if reason else ''}", flush=True)
        self.on_over()
        job.serve_parked()
        job.evaluating.answer()
        job.starting.end()
        job.loop.call_later(GRACE, job.loop.stop)
        job.loop.call_later(0, self.check)

    def check(self) -> None:
        """Leaves as soon as no member is left."""
        if self.over and not self._job.members.living:
            self._job.loop.stop()

    def _final_commit(self, number: int) -> None:
        self._committed = True
        self._job.evaluating.committed(number, evaluate=False)
        if self.wish == "interrupted":
            self.give_up()
        else:
            self._job.serve_parked()

    def give_up(self) -> None:
        """Ends an interrupted job with what is committed."""
        self.end("interrupted", ExitCode.INTERRUPTED, self.reason)

    def _asked(self, call: Call) -> None:
        how, reason = str(call.values["how"]), str(call.values["reason"])
        if how not in _HOW:
            raise WrongInput(f"a job cannot end by {how!r}{nearest(how, _HOW)}; the ways are {', '.join(_HOW)}")
        call.reply({})
        self.ask(how, reason)

    def _failed(self, call: Call) -> None:
        message, code = str(call.values["message"]), int(call.values["exit_code"])
        if call.member and call.member.guest:  # its machine's fault: the others would have met it if it were the job's
            call.reply({})
            if call.member.number in self._job.members.living:
                self._job.remove(
                    call.member, "lost", f"worker {call.member.index}, which joined by hand, ends: {message}"
                )
            return
        self.fail(message, code)  # before the answer: whoever fails ends then, and the reason must be known by then
        call.reply({})

    def _finalise(self, call: Call) -> None:
        self._check_holder(call)
        last = self._job.checkpointing.commits.last
        assert last is not None
        call.reply({"commit": last["number"]})

    def _finalised(self, call: Call) -> None:
        self._check_holder(call)
        self.export = str(call.values["export"])
        call.reply({})
        self.end(self.wish or "done", ExitCode.DONE, self.reason)

    def _check_holder(self, call: Call) -> None:
        if call.caller is not self._finaliser:
            raise WrongInput(f"{call.caller.role} {call.caller.index} was not asked to finalise the job")

    def _outcome(self, call: Call) -> None:
        job, values = self._job, call.values
        why = job.dropped.why(int(values.get("generation", 0)), int(values.get("member", 0)))
        call.reply(self.over or {"phase": job.phase, "why": why})
