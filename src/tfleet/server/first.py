"""The process of ps 0, which holds the coordinator: one after the other, for each generation of the job."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from tfleet.server.coordinator import Coordinator
from tfleet.server.history import History
from tfleet.server.process import Parts, Process, on_signal, write_status
from tfleet.server.watch import Watch
from tfleet.spec.errors import ExitCode
from tfleet.spec.lifeline import watch_lifeline
from tfleet.spec.rundir import OVER, RunDir, utc
from tfleet.wire.address import Address
from tfleet.wire.loop import Loop

if TYPE_CHECKING:
    from tfleet.server.http_status import StatusServer

STATUS_EVERY = 0.5
"""Seconds between two writings of status.json."""
TOLD_WITHIN = 0.05
"""Seconds in which the other ps have to answer that they know of the end."""


class FirstPs(Process):
    """ps 0.

    A generation ends when a ps is lost. The next one is a new coordinator that goes on from the newest commit, and
    everybody joins it anew; so a rollback, a restart of ps 0 and `--resume` are the same thing.

    Args:
        run: the run directory.
        resume: go on from the newest commit.
    """

    def __init__(self, run: RunDir, resume: bool) -> None:
        super().__init__(0, run)
        self._resume = resume
        self._status: dict[str, Any] = run.status() if resume else {}
        if self._status and self._status["phase"] not in OVER:
            why = f"ps 0 is lost: nothing was heard of it since {utc(float(self._status['updated']))}"
            self._status["notes"] = [*self._status["notes"], f"{why}; everybody goes back to the last commit"]
        self._http: StatusServer | None = None
        self._loop: Loop | None = None
        self._job: Coordinator | None = None
        self._interrupted = ""

    def run(self) -> int:
        """Blocks until the job is over; returns the exit code."""
        on_signal(lambda: self._interrupt("ps 0 was asked to end (SIGTERM)"))
        watch_lifeline(lambda: self._interrupt("the launcher has died"))
        try:
            while True:
                parts = self.parts()
                try:
                    job, abandoned = self._lead(parts)
                finally:
                    parts.end()
                if not job.rolled_back:
                    return ExitCode.FAILED if abandoned else ExitCode.DONE
                self._resume = True
        finally:
            if self._http:
                self._http.close()

    def _lead(self, parts: Parts) -> tuple[Coordinator, bool]:
        """Leads the job for one generation; returns its coordinator, and whether no worker came."""
        history = History.of(self._status)
        job = self._job = Coordinator(
            self.spec,
            self.run_dir,
            parts.loop,
            parts.replica,
            self.store,
            self.hosts,
            self._resume,
            time.time,
            history,
        )
        watch = Watch(job)
        job.ending.on_over = job.checkpointing.on_kept = self._publish
        self._publish()
        self._open_status_port()
        parts.loop.call_every(STATUS_EVERY, self._report)
        self._loop = parts.loop
        if self._interrupted:
            self._ask_to_end()
        print(f"tfleet: ps 0 is ready, generation {job.generation}", flush=True)
        parts.loop.run()
        self._publish()
        if not job.rolled_back:
            self._write_profile(job)
            self._tell_others(job)
        if job.progress:
            job.progress.close()
        return job, watch.abandoned

    def _interrupt(self, reason: str) -> None:
        # Called by a signal or from another thread, at any moment, also between two generations.
        self._interrupted = reason
        if self._loop:
            self._loop.call_from_thread(self._ask_to_end)

    def _ask_to_end(self) -> None:
        assert self._job is not None
        self._job.ending.ask("interrupt", self._interrupted)

    def _publish(self) -> None:
        assert self._job is not None
        self._status = self._job.status()
        write_status(self.run_dir, self._status)

    def _write_profile(self, job: Coordinator) -> None:
        if not self.spec.profile:
            return
        try:
            self.run_dir.profile.write_text(job.profile.table(), encoding="utf-8")
        except OSError as error:
            print(f"tfleet: {self.run_dir.profile} could not be written: {error.strerror}", flush=True)

    def _report(self) -> None:
        self._publish()
        job = self._job
        if job and job.phase == "training" and job.progress and job.ledger and job.told_step:
            speed = round(job.progress.steps_per_second, 1)
            job.progress.write_metrics(
                "train", job.told_step, job.ledger.epoch, job.progress.metrics(), steps_per_second=speed
            )

    def _open_status_port(self) -> None:
        if self.spec.status_port and self._http is None:
            from tfleet.server.http_status import StatusServer  # only here: a ps without it starts sooner

            # With --listen workers may come from other machines; who asks for the status is still on this one.
            host = "" if self.spec.listen else Address.parse(self.where.listen).host
            host = host or "127.0.0.1"
            self._http = StatusServer(host, self.spec.status_port, self.token, lambda: self._status)

    def _tell_others(self, job: Coordinator) -> None:
        waiting = [index for index in range(1, self.spec.ps) if job.links.has(index)]

        def told(_: dict[str, Any]) -> None:
            waiting.pop()
            if not waiting:
                job.loop.stop()

        for index in list(waiting):
            job.links.ask(index, "over", job.ending.over or {}, told)
        if waiting:
            job.loop.call_later(TOLD_WITHIN, job.loop.stop)
            job.loop.run()
