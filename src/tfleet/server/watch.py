"""Who is silent: workers, other ps, or everybody; what the coordinator does about it."""

from __future__ import annotations

from tfleet.server.coordinator import Coordinator

TICK = 0.25
PING_EVERY = 2.0


class Watch:
    """Looks after the members of a job, a few times a second.

    Attributes:
        abandoned: the job was ended because no worker was there for `join_timeout`.
    """

    def __init__(self, job: Coordinator) -> None:
        self.abandoned = False
        self._job = job
        self._answered = {index: job.loop.now() for index in range(1, job.spec.ps)}
        self._next_ping = 0.0
        job.loop.call_every(TICK, self._tick)

    def _tick(self) -> None:
        job = self._job
        if job.ending.over:
            return
        now = job.loop.now()
        job.members.tick(now)
        if job.progress:
            job.progress.tick(now, job.step)
        for member in job.members.silent(now, job.spec.peer_timeout):
            seconds = job.spec.peer_timeout
            job.remove(member, "lost", f"{member.role} {member.index} is dropped: silent for more than {seconds:g} s")
        self._check_workers(now)
        if job.links.complete and now >= self._next_ping:
            self._next_ping = now + PING_EVERY
            self._ping(now)

    def _check_workers(self, now: float) -> None:
        job = self._job
        if job.members.workers:
            job.last_worker = now
        elif now - job.last_worker > job.spec.join_timeout:
            self.abandoned = True
            job.ending.fail(
                f"no worker was there for {job.spec.join_timeout:g} s; start workers and go on with --resume, "
                "or give a longer --join-timeout"
            )

    def _ping(self, now: float) -> None:
        job = self._job
        for index, answered in self._answered.items():
            if now - answered > max(job.spec.peer_timeout, 2 * PING_EVERY):
                job.ending.fail(
                    f"ps {index} is silent for more than {job.spec.peer_timeout:g} s; "
                    "the last commit is kept: go on from it with --resume"
                )
                return
            job.links.ask(index, "ping", {}, lambda _, index=index: self._pong(index))  # type: ignore[misc]

    def _pong(self, index: int) -> None:
        self._answered[index] = self._job.loop.now()
