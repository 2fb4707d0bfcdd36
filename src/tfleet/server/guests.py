"""Guests: workers that `tfleet join` has started, which no backend knows; who may come, and under which number."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

from tfleet.server.calls import Call, Calls
from tfleet.server.members import Member
from tfleet.server.scaling import refuse_colocated
from tfleet.spec.errors import WrongInput
from tfleet.version import __version__

if TYPE_CHECKING:
    from tfleet.server.coordinator import Coordinator


class Guests:
    """The part of the coordinator that workers started by hand talk to.

    They are members like all others, with two differences. Their numbers begin at `elastic.max`, where no backend ever
    starts a worker, so that `tfleet scale` and they never mean the same one. And what goes wrong with one of them is
    its own affair: a machine that lacks the data must not end the job of everybody.

    Attributes:
        most: workers that the job may have, guests included; also the number of the first guest.
    """

    def __init__(self, job: Coordinator) -> None:
        self.most = max(job.spec.elastic.max, job.spec.workers)
        self.calls: Calls = {"invitation": self._invitation}
        self._job = job

    @property
    def members(self) -> list[Member]:
        """The guests that are here."""
        return [member for member in self._job.members.workers if member.guest]

    def admit(self, guest: str, index: int) -> int:
        """Returns the number under which a guest joins.

        Args:
            guest: what it calls itself, different for each process.
            index: the number it had before, after a rollback; -1: none.

        Raises:
            WrongInput: when the job has as many workers as it may have.
        """
        for member in self.members:
            if member.guest == guest:
                return member.index
        self._refuse_full()
        taken = {member.index for member in self.members}
        if index >= self.most and index not in taken:
            return index
        return next(number for number in itertools.count(self.most) if number not in taken)

    def _refuse_full(self) -> None:
        wanted, guests = self._job.scaling.wanted, len(self.members)
        if wanted + guests >= self.most:
            by_hand = f", {guests} of them joined by hand" if guests else ""
            raise WrongInput(
                f"the job has {wanted + guests} workers{by_hand}, and may have {self.most} (elastic.max); "
                "scale it down first with 'tfleet scale', or start a job with a greater --elastic-max"
            )

    def _invitation(self, call: Call) -> None:
        """Tells who wants to join what it has to know, before it has loaded anything large."""
        job = self._job
        refuse_colocated(job.spec)
        if job.ending.over or job.ending.wish or job.phase == "finalising":
            raise WrongInput("the job is ending; only a job that trains can be joined")
        self._refuse_full()
        # Whoever describes the task first decides for all: that is not left to a machine that nobody knows.
        told = {"version": __version__, "run_dir": str(job.run_dir.path), "ready": job.phase == "training"}
        call.reply(told)
