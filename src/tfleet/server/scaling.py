"""How many workers the job is to have; whoever starts them (a launcher) reads it from the status and obeys."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tfleet.server.calls import Call, Calls
from tfleet.spec.errors import WrongInput

if TYPE_CHECKING:
    from tfleet.server.coordinator import Coordinator


class Scaling:
    """The part of the coordinator that `tfleet scale` talks to.

    Attributes:
        wanted: number of workers.
    """

    def __init__(self, job: Coordinator) -> None:
        self.wanted = job.history.workers_wanted or job.spec.workers
        self.calls: Calls = {"scale": self._scale}
        self._job = job

    def _scale(self, call: Call) -> None:
        job, workers = self._job, int(call.values["workers"])
        low, high = job.spec.elastic.min, max(job.spec.elastic.max, job.spec.workers)
        if not low <= workers <= high:
            raise WrongInput(
                f"{workers} workers are asked for, but this job may have {low} to {high} (elastic.min, elastic.max); "
                "ask for a number between, or start a job with other limits"
            )
        if job.ending.over or job.ending.wish:
            raise WrongInput("the job is ending; only a job that trains can be scaled")
        if workers != self.wanted:
            job.note(f"scaled from {self.wanted} to {workers} workers")
        self.wanted = workers
        call.reply({"workers": workers})
