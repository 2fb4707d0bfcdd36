"""When commits are made: by time, by steps, for evaluations, and at the end."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from tfleet.checkpoint.store import Store
from tfleet.server.calls import Call, Calls
from tfleet.server.commits import Commits, Facts

if TYPE_CHECKING:
    from tfleet.server.coordinator import Coordinator


class Checkpointing:
    """The part of the coordinator that decides about commits.

    Under sync a commit waits for the boundary between two steps, and leases wait until every partition has its copy.

    Attributes:
        commits: makes them.
        blocked: whether no lease may be given now.
        calls: see `tfleet.server.control`.
        on_kept: called before those are told who waited for a commit to leave: ps 0 itself may be ended at once.
    """

    def __init__(self, job: Coordinator, store: Store) -> None:
        self.commits = Commits(job.loop, store, job.links, job.generation, job.spec.checkpoint.keep)
        self.blocked = False
        self.calls: Calls = {"commit": self._asked}
        self.on_kept: Callable[[], None] = lambda: None
        self._job = job
        self._promised: list[tuple[int, Call]] = []
        self._wanted = False
        self._evaluate = False
        self._failing = False
        self._step = 0
        if job.spec.checkpoint.every_seconds:
            job.loop.call_every(job.spec.checkpoint.every_seconds, self.want)

    def begin(self) -> None:
        """Training begins: what there is now needs no commit."""
        self._step = self._job.step

    def stepped(self, before: int) -> None:
        """The global step has advanced from `before`."""
        step = self._job.step
        if _crossed(self._job.spec.checkpoint.every_steps, before, step):
            self._wanted = True
        if _crossed(self._job.spec.evaluation.every_steps, before, step):
            self._wanted = self._evaluate = True
        if self._wanted:
            self._now()

    def want(self) -> None:
        """Makes a commit at the next moment at which one can be made, if there was a step since the last."""
        job = self._job
        if job.phase != "training" or job.step <= self._step:
            return
        self._wanted = True
        if job.ledger and job.ledger.at_boundary:
            self._now()

    def _asked(self, call: Call) -> None:
        """Somebody is about to leave, and wants what there is now to be kept."""
        self._promised.append((self._job.step, call))
        self.want()
        self._keep_promises()

    def _keep_promises(self, *, failed: bool = False) -> None:
        """Answers who waits for a commit, once it is made, cannot be made, or needs not be made."""
        reached = (self.commits.last or {}).get("step", -1)
        idle = self._job.phase != "training" or (self.commits.busy < 0 and not self._wanted)
        promised = self._promised
        kept = [call for step, call in promised if idle or failed or reached >= step]
        self._promised = [entry for entry in promised if entry[1] not in kept]
        if kept:
            self.on_kept()
        for call in kept:
            call.reply({"step": reached})

    def start(self, done: Callable[[int], None], failed: Callable[[str], None]) -> None:
        """Begins a commit; the caller sees to it that none is under way."""
        job = self._job
        self._wanted = False
        self._step = job.step
        self.blocked = job.strategy.aggregates
        self.commits.start(
            self._facts,
            step=job.step,
            hold=not job.strategy.aggregates,
            protect=job.evaluating.protected,
            copied=self._unblock,
            done=done,
            failed=failed,
        )

    def _now(self) -> None:
        if self.commits.busy >= 0:
            return
        evaluate, self._evaluate = self._evaluate, False
        self.start(lambda number: self._done(number, evaluate), lambda why: self._failed(why, evaluate))

    def _done(self, number: int, evaluate: bool) -> None:
        if self._failing:
            self._failing = False
            self._job.note(f"commits are made again, since commit {number}")
        self._job.evaluating.committed(number, evaluate)
        self._job.ending.finish_if_done()
        if self._wanted:
            self.want()
        self._keep_promises()

    def _failed(self, why: str, evaluate: bool) -> None:
        # A disk that stays full would fill the notes too: the first failure of a row is told, each is in the log.
        if self._failing:
            print(f"tfleet: {why}", flush=True)
        else:
            self._failing = True
            self._job.note(f"{why}; training goes on, the commit is tried again")
        self._evaluate = self._evaluate or evaluate
        self._step = -1
        self._unblock()
        self._job.ending.finish_if_done()
        self._keep_promises(failed=True)

    def _unblock(self) -> None:
        self.blocked = False
        self._job.serve_parked()

    def _facts(self) -> Facts:
        job = self._job
        assert job.plan is not None
        assert job.ledger is not None
        return Facts(
            step=job.step,
            ledger=job.ledger.to_json(),
            settings=job.starting.settings,
            layout=job.plan.layout.to_json(),
            optimizer=job.plan.optimizer,
            metrics={
                "training": job.progress.metrics() if job.progress else {},
                "evaluations": job.evaluating.evaluations.to_json(),
                "partial_updates": job.partial_updates,
            },
            parameters=job.plan.layout.parameters,
            state=job.state.copy(),
            frozen=job.starting.frozen,
        )


def _crossed(every: int, before: int, now: int) -> bool:
    return bool(every) and now // every > before // every
