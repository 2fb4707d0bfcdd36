"""Who evaluates which commit: a worker under the evaluation lease, or the evaluator, which follows all commits."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING

from tfleet.server.calls import Call, Calls, Values
from tfleet.server.evaluations import Evaluations
from tfleet.server.members import Member
from tfleet.spec.errors import WrongInput

if TYPE_CHECKING:
    from tfleet.server.coordinator import Coordinator


class Evaluating:
    """The part of the coordinator that has commits evaluated.

    Attributes:
        evaluations: what came of it.
    """

    def __init__(self, job: Coordinator) -> None:
        self.evaluations = Evaluations(job.spec.evaluation)
        self.calls: Calls = {"evaluation": self._evaluation, "report": self._report, "follow": self._follow}
        self._job = job
        self._next = -1
        self._holder: Member | None = None
        self._held = -1
        self._followed: dict[int, int] = {}
        self._odd: set[str] = set()
        self._followers: list[tuple[Member, int, Callable[[Values], None]]] = []

    @property
    def busy(self) -> bool:
        """Whether a worker evaluates a commit, or is to."""
        return self._next >= 0 or self._holder is not None

    def lease(self, member: Member) -> bool:
        """Gives the evaluation lease to a worker when a commit waits for it."""
        if self._next < 0 or self._holder is not None:
            return False
        self._holder, self._held, self._next = member, self._next, -1
        return True

    def release(self, member: Member) -> None:
        """Forgets a member that is gone."""
        if member is self._holder:
            self._next = max(self._next, self._held)
            self._holder, self._held = None, -1
        self._followed.pop(member.number, None)
        self._followers = [entry for entry in self._followers if entry[0] is not member]

    def committed(self, number: int, evaluate: bool) -> None:
        """There is a new commit; the last one of all is evaluated by whoever finalises."""
        job = self._job
        self.answer()
        if not evaluate or job.spec.evaluation.evaluator or not (job.plan and job.plan.evaluates):
            return
        made = job.checkpointing.commits.last
        if made and job.ledger and not (job.ledger.finished and made["step"] == job.step):
            self._next = number
            job.serve_parked()

    def protected(self) -> set[int]:
        """Returns commits that must not be removed: the best, and those that are evaluated or to be."""
        return {self.evaluations.best, self._next, self._held, *self._followed.values()} - {-1}

    def answer(self) -> None:
        """Answers the evaluators that wait for a newer commit, or for the end."""
        last = self._job.checkpointing.commits.last
        newest = last["number"] if last else -1
        waiting = []
        for member, seen, reply in self._followers:
            if self._job.ending.over:
                reply({"over": True})
            elif newest > seen:
                self._followed[member.number] = newest
                reply({"over": False, "commit": newest})
            else:
                waiting.append((member, seen, reply))
        self._followers = waiting

    def _evaluation(self, call: Call) -> None:
        if call.caller is not self._holder:
            raise WrongInput(f"{call.caller.role} {call.caller.index} was not asked to evaluate a commit")
        call.reply({"commit": self._held})

    def _report(self, call: Call) -> None:
        job, member = self._job, call.caller
        metrics = {str(k): float(v) for k, v in call.values["metrics"].items()}  # "nan" is text in JSON
        step, commit = int(call.values["step"]), int(call.values["commit"])
        if member is self._holder:
            self._holder, self._held = None, -1
        self._followed.pop(member.number, None)
        try:
            stop = self.evaluations.report(step, commit, metrics)
        except KeyError as error:
            raise WrongInput(
                f"the held-out data give no metric {error}; name one of {', '.join(sorted(metrics))} "
                "in --keep-best or --stop-metric"
            ) from None
        if odd := {name for name, value in metrics.items() if not math.isfinite(value)} - self._odd:
            self._odd |= odd
            job.note(f"held out at step {step:,}: {', '.join(sorted(odd))} is not a finite number; look at those data")
        if job.progress and job.ledger:
            finite = {name: value for name, value in metrics.items() if math.isfinite(value)}
            job.progress.write_metrics("eval", step, job.ledger.epoch, finite, commit=commit)
        best = self.evaluations.best
        call.reply({"export": best if best >= 0 else commit})
        if stop and job.phase == "training":
            job.note(f"stopped early at step {job.step}: {job.spec.evaluation.stop_metric} no longer got better")
            job.ending.stop("done")
        job.serve_parked()

    def _follow(self, call: Call) -> None:
        self._followers.append((call.caller, int(call.values["seen"]), call.reply))
        self.answer()
