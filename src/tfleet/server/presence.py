"""What members tell of themselves between two batches: that they live, what they noticed, that they leave."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tfleet.server.calls import Call, Calls

if TYPE_CHECKING:
    from tfleet.server.coordinator import Coordinator


class Presence:
    """The part of the coordinator that hears from members by the way."""

    def __init__(self, job: Coordinator) -> None:
        self.calls: Calls = {"beat": self._beat, "leave": self._leave, "remark": self._remark}
        self._job = job

    def _beat(self, call: Call) -> None:
        job = self._job
        member = job.members.living.get(int(call.values["member"]))
        if member:
            member.seen = job.loop.now()
            if "times" in call.values:
                job.profile.take(member.role, member.index, call.values["times"])
            for text in call.values.get("remarks", ()):
                job.note_once(str(text))
            if call.values.get("draining") and not member.draining:
                member.draining = True
                job.serve_parked()
        first = min(job.members.workers, key=lambda worker: worker.number, default=None)
        known, summaries = member is not None, member is not None and member is first
        over = job.ending.over or {}
        call.reply({"over": over, "known": known, "status": job.status(), "summaries": summaries})

    def _leave(self, call: Call) -> None:
        call.reply({})
        if call.member and call.member.number in self._job.members.living:
            self._job.remove(call.member, "done", str(call.values.get("reason", "")))

    def _remark(self, call: Call) -> None:
        call.reply({})
        self._job.note_once(str(call.values["text"]))  # every worker of a machine meets the same
