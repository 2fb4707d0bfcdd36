"""Who evaluates which commit: a worker under the evaluation lease, or the evaluator, which follows all commits."""

from __future__ import annotations

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
        self._commit = -1
        self._holder: Member | None = None
        self._followers: list[tuple[Member, int, Callable[[Values], None]]] = []

    def lease(self, member: Member) -> bool:
        """Gives the evaluation lease to a worker when a commit waits for it."""
        if self._commit < 0 or self._holder is not None:
            return False
        self._holder = member
        return True

    def release(self, member: Member) -> None:
        """Forgets a member that is gone."""
        if member is self._holder:
            self._holder = None
        self._followers = [entry for entry in self._followers if entry[0] is not member]

    def committed(self, number: int, evaluate: bool) -> None:
        """There is a new commit."""
        job = self._job
        self.answer()
        if evaluate and not job.spec.evaluation.evaluator and job.plan and job.plan.evaluates:
            self._commit = number
            job.serve_parked()

    def protected(self) -> set[int]:
        """Returns commits that must not be removed: the best, and the one to be evaluated."""
        return {self.evaluations.best, self._commit} - {-1}

    def answer(self) -> None:
        """Answers the evaluators that wait for a newer commit, or for the end."""
        last = self._job.checkpointing.commits.last
        newest = last["number"] if last else -1
        waiting = []
        for member, seen, reply in self._followers:
            if self._job.ending.over:
                reply({"over": True})
            elif newest > seen:
                reply({"over": False, "commit": newest})
            else:
                waiting.append((member, seen, reply))
        self._followers = waiting

    def _evaluation(self, call: Call) -> None:
        call.reply({"commit": self._commit})

    def _report(self, call: Call) -> None:
        job, member = self._job, call.caller
        metrics = {str(k): float(v) for k, v in call.values["metrics"].items()}
        step, commit = int(call.values["step"]), int(call.values["commit"])
        if member is self._holder:
            self._holder, self._commit = None, -1
        try:
            stop = self.evaluations.report(step, commit, metrics)
        except KeyError as error:
            raise WrongInput(
                f"the held-out data give no metric {error}; name one of {', '.join(sorted(metrics))} "
                "in --keep-best or --stop-metric"
            ) from None
        if job.progress and job.ledger:
            job.progress.write_metrics("eval", step, job.ledger.epoch, metrics, commit=commit)
        best = self.evaluations.best
        call.reply({"export": best if best >= 0 else commit})
        if stop and job.phase == "training":
            job.note(f"stopped early at step {job.step}: {job.spec.evaluation.stop_metric} no longer got better")
            job.ending.stop("done")

    def _follow(self, call: Call) -> None:
        self._followers.append((call.caller, int(call.values["seen"]), call.reply))
        self.answer()
