"""What workers tell between two exchanges, where they train alone for a while: how far they are, and their metrics.

Nothing is applied and nothing is acknowledged by it; status and logs show it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from tfleet.server.calls import Call, Calls
from tfleet.server.members import Member

if TYPE_CHECKING:
    from tfleet.server.coordinator import Coordinator


class LocalSteps:
    """The part of the coordinator that hears of steps which are not acknowledged yet.

    Attributes:
        under_way: steps of the present round that living workers have told of; those of copies too.
    """

    def __init__(self, job: Coordinator) -> None:
        self.under_way = 0
        self.calls: Calls = {"progress": self._told}
        self._job = job

    def release(self, member: Member) -> None:
        """A worker has pushed what it told of, or is gone."""
        self.under_way -= member.under_way
        member.under_way = 0

    def clear(self) -> None:
        """A round is complete: whoever is still computing for it does so in vain."""
        if self.under_way:
            for worker in self._job.members.workers:
                self.release(worker)

    def payload_limit(self) -> int:
        """Bytes of metrics that come with a call."""
        plan = self._job.plan
        return 8 * len(plan.layout.metrics) if plan else 0

    def _told(self, call: Call) -> None:
        job, member = self._job, call.caller
        metrics = np.frombuffer(call.payload, np.float32)
        if job.progress is None or 4 * len(metrics) != self.payload_limit():
            raise ValueError(f"{len(metrics)} values of metrics")
        go_on = int(call.values["step"]) == job.step and job.phase == "training"
        if go_on:
            steps = int(call.values["steps"])
            member.under_way += steps
            self.under_way += steps
            job.progress.pushed(member.index, member.steps + member.under_way, job.told_step, metrics)
        call.reply({"go_on": go_on})
