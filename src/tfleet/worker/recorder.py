"""When a worker writes summaries for TensorBoard, so that its steps hardly notice."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np

from tfleet.data import Batch
from tfleet.spec.arrays import Float32s
from tfleet.spec.errors import JobFailed
from tfleet.spec.job import SummarySpec
from tfleet.spec.rundir import RunDir
from tfleet.strategies.exchange import Exchange, Step
from tfleet.worker.built import Built
from tfleet.worker.session import Heart
from tfleet.worker.summaries import Budget, Details, Scalars, details_folder, eval_folder, job_folder, worker_folder

DETAILS_SHARE = 0.015
"""Part of the wall time that histograms and images may take."""


class Recorder:
    """Writes this worker's scalars, and those of the whole job while it holds that lease.

    A full disk costs summaries, not the job: the user is told once, and each later write is tried.

    Args:
        spec: what is written, and how often.
        run: the run directory.
        index: of the worker.
        built: the task.
        heart: tells the job's status and who holds the lease.
        clock: seconds.
    """

    def __init__(
        self,
        spec: SummarySpec,
        run: RunDir,
        index: int,
        built: Built,
        heart: Heart,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._every = spec.every_steps
        self._histograms = spec.histograms and bool(spec.every_steps)
        self._run = run
        self._built = built
        self._heart = heart
        self._clock = clock
        self._own = Scalars(worker_folder(run.summaries, index))
        self._job = Scalars(job_folder(run.summaries))
        self._held_out = Scalars(eval_folder(run.summaries))
        self._details: Details | None = None
        self._frozen: Float32s | None = None
        self._details_folder = details_folder(run.summaries)
        self._budget: Budget | None = None
        self._names = built.plan.layout.metrics
        self._sum = np.zeros(2 * len(self._names))
        self._next = 0
        self._steps = 0
        self._since = 0.0
        self._job_step = -1
        self._failing = False
        self._last: tuple[Step, Batch] | None = None

    def step(self, exchange: Exchange, step: Step, batch: Batch, rate: float) -> None:
        """Takes one step; writes when it is time. Nothing at all is done when summaries are off."""
        if not self._every:
            return
        if self._budget is None:
            self._since = self._clock()
            self._budget = Budget(self._since, DETAILS_SHARE)
        self._sum += step.metrics
        self._steps += 1
        if exchange.step < self._next:
            return
        now = self._clock()
        self._next = (exchange.step // self._every + 1) * self._every
        self._last = (step, batch)
        self._try(lambda: self._write_scalars(exchange.step, rate, now))
        if self._heart.summaries:
            self._try(lambda: self._write_job(rate))
            if self._histograms and self._budget.may(now):
                built = self._built
                if self._frozen is None:
                    self._frozen = built.gradient.initial()[2]
                built.gradient.assign_seen(exchange.parameters, exchange.state, self._frozen)
                self._try(lambda: self._write_details(exchange.step))
                self._budget.spent(now, self._clock())

    def evaluated(self, step: int, metrics: dict[str, float]) -> None:
        """Writes held-out metrics."""
        if self._every and metrics:
            self._try(lambda: self._held_out.write(step, metrics))
            self._try(self._held_out.flush)

    def finished(self, step: int) -> None:
        """Writes the details of the final model, which the task's model holds now, and closes everything."""
        if self._histograms and self._last:
            self._try(lambda: self._write_details(step))
        self.close()

    def purge(self, step: int) -> None:
        """Tells TensorBoard to forget what came after `step`, which will be written again."""
        self._try(lambda: self._own.purge(step))
        self._try(lambda: self._job.purge(step))
        if details := self._details:
            self._try(lambda: details.purge(step))

    def close(self) -> None:
        """Writes what is queued."""
        for scalars in (self._own, self._job, self._held_out):
            self._try(scalars.close)
        if self._details:
            self._try(self._details.close)

    def _try(self, write: Callable[[], None]) -> None:
        try:
            write()
        except JobFailed as error:
            if not self._failing:
                self._failing = True
                self._heart.remark(f"{error}; training goes on without them, later ones are tried")

    def _write_scalars(self, step: int, rate: float, now: float) -> None:
        totals, counts = self._sum[0::2], self._sum[1::2]
        values = {n: t / c for n, t, c in zip(self._names, totals, counts, strict=True) if c}
        if now > self._since:
            values["steps_per_second"] = self._steps / (now - self._since)
        self._own.write(step, {**values, "learning_rate": rate})
        self._sum[:] = 0
        self._steps, self._since = 0, now

    def _write_job(self, rate: float) -> None:
        status = self._heart.status
        if not status or status["step"] == self._job_step or status["loss"] is None:
            return
        self._job_step = status["step"]
        values = {**status["metrics"], "loss": status["loss"], "steps_per_second": status["steps_per_second"]}
        self._job.write(self._job_step, {**values, "learning_rate": rate})

    def _write_details(self, step: int) -> None:
        assert self._last is not None
        if self._details is None:
            self._details = Details(self._details_folder, self._built.model)
        last, batch = self._last
        self._details.write(step, batch.x, self._built.gradient.by_variable(last))
