"""How many workers the job is to have, and which are given up; whoever starts them reads the status and obeys."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tfleet.server.calls import Call, Calls
from tfleet.spec.errors import WrongInput
from tfleet.spec.job import JobSpec

if TYPE_CHECKING:
    from tfleet.server.coordinator import Coordinator


def refuse_colocated(spec: JobSpec) -> None:
    """Refuses to scale a job that has a ps beside each worker: the number of ps is fixed.

    Raises:
        WrongInput: says what to do instead.
    """
    if spec.ps_placement == "colocated":
        raise WrongInput(
            f"this job has a ps beside each of its {spec.workers} workers (ps_placement=colocated), and the number of "
            "ps cannot change while it runs; stop it, and go on with --resume and other --workers and --ps"
        )


class Scaling:
    """The part of the coordinator that `tfleet scale`, and those who start workers one by one, talk to.

    Attributes:
        wanted: number of workers.
        asked: how often somebody has asked, so that whoever starts workers sees that the same number was asked again.
    """

    def __init__(self, job: Coordinator) -> None:
        self.wanted = job.history.workers_wanted or job.spec.workers
        self.asked = job.history.workers_asked
        self.calls: Calls = {"scale": self._scale, "spent": self._spent}
        self._job = job
        self._given_up: set[int] = set()

    def _scale(self, call: Call) -> None:
        job, workers = self._job, int(call.values["workers"])
        refuse_colocated(job.spec)
        low, high = job.spec.elastic.min, job.guests.most
        guests = len(job.guests.members)
        if not low <= workers <= high - guests:
            besides = f", {guests} of which joined by hand" if guests else ""
            raise WrongInput(
                f"{workers} workers are asked for, but this job may have {low} to {high} (elastic.min, elastic.max)"
                f"{besides}; ask for a number between, or start a job with other limits"
            )
        if job.ending.over or job.ending.wish:
            raise WrongInput("the job is ending; only a job that trains can be scaled")
        if workers != self.wanted:
            job.note(f"scaled from {self.wanted} to {workers} workers")
        self.wanted = workers
        self.asked += 1
        call.reply({"workers": workers})

    def _spent(self, call: Call) -> None:
        """A worker in a pod of its own will not be started again; the job goes on while enough others may come.

        Nobody else counts them there: each pod keeps up its own process only.
        """
        job, index = self._job, int(call.values["index"])
        if index not in self._given_up:
            self._given_up.add(index)
            job.note(f"worker {index} is given up: {call.values['reason']}")
        call.reply({})
        left = len(set(range(self.wanted)) - self._given_up) + len(job.guests.members)
        if left < job.spec.elastic.min:
            few = "no worker is left" if not left else f"fewer than {job.spec.elastic.min} workers are left"
            job.ending.fail(f"{few}: {call.values['reason']}; the last commit is kept, go on with --resume")
