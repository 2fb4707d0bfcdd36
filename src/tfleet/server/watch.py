"""Who is silent: workers, other ps, or everybody; what the coordinator does about it."""

from __future__ import annotations

from typing import Any

from tfleet.server.coordinator import Coordinator
from tfleet.spec.rundir import utc

TICK = 0.25
PING_EVERY = 2.0
LATE = 1.0
"""Seconds by which a look may come late; more, and this process itself stood still, perhaps with the whole machine."""


def silence(peer_timeout: float) -> float:
    """Returns after how many seconds without a ping, or an answer to one, the other end counts as lost."""
    return max(peer_timeout, 2 * PING_EVERY)


class Standstill:
    """Finds out how long this process did nothing, so that others' silence in that time is not held against them.

    Args:
        now: the time in seconds.
        every: seconds between two calls of `lost`.
    """

    def __init__(self, now: float, every: float) -> None:
        self._every = every
        self._last = now

    def lost(self, now: float) -> float:
        """Returns the seconds since the last call that this process stood still; mostly 0."""
        late, self._last = now - self._last - self._every, now
        return late if late > LATE else 0.0


class Watch:
    """Looks after the members of a job, a few times a second.

    Attributes:
        abandoned: the job was ended because no worker was there for `join_timeout`.
    """

    def __init__(self, job: Coordinator) -> None:
        self.abandoned = False
        self._job = job
        self._began = job.loop.now()
        self._answered: dict[int, float] = {}
        self._next_ping = 0.0
        self._standstill = Standstill(self._began, TICK)
        job.loop.call_every(TICK, self._tick)

    def _tick(self) -> None:
        job = self._job
        if job.ending.over:
            return
        now = job.loop.now()
        if lost := self._standstill.lost(now):
            self._forgive(lost)
        job.members.tick(now)
        if job.progress:
            job.progress.tick(now, job.told_step)
        self._check_workers(now)
        self._check_deadline()
        if now >= self._next_ping:
            self._next_ping = now + PING_EVERY
            self._ping(now)
        if not job.links.complete:
            self._check_missing(now)  # until then members wait for an answer, and send nothing
            return
        for member in job.members.silent(now, job.spec.peer_timeout):
            why = f"{member.role} {member.index} is dropped: {self._silence(member.seen)}"
            job.remove(member, "lost", why)

    def _forgive(self, seconds: float) -> None:
        """Counts nobody's silence in the time in which ps 0 could not have heard anybody."""
        job = self._job
        self._began += seconds
        job.last_worker += seconds
        self._answered = {index: heard + seconds for index, heard in self._answered.items()}
        for member in job.members.living.values():
            member.seen += seconds

    def _check_missing(self, now: float) -> None:
        job = self._job
        if now - self._began > job.spec.join_timeout:
            names = ", ".join(f"ps {index}" for index in job.links.missing)
            job.ending.fail(
                f"{names} did not join within {job.spec.join_timeout:g} s; see its log, or give a longer --join-timeout"
            )

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

    def _check_deadline(self) -> None:
        job = self._job
        if job.spec.deadline and job.clock() - job.started > job.spec.deadline and not job.ending.over:
            job.ending.fail(
                f"the job was not done within its deadline of {job.spec.deadline:g} s; the last commit is kept: go on "
                "with --resume, and a longer --deadline"
            )

    def _ping(self, now: float) -> None:
        job = self._job
        for index in set(range(1, job.spec.ps)) - set(job.links.missing):
            if now - self._answered.setdefault(index, now) > silence(job.spec.peer_timeout):
                job.roll_back(f"ps {index} is lost: {self._silence(self._answered[index])}")
                return
            job.links.ask(index, "ping", {}, lambda result, index=index: self._pong(index, result))  # type: ignore[misc]
        job.links.ask(0, "ping", {}, lambda result: self._pong(0, result))

    def _silence(self, heard: float) -> str:
        """Says since when somebody is silent who was last heard of at this time of the loop."""
        seconds = self._job.spec.peer_timeout
        return f"silent for more than {seconds:g} s, since {utc(self._job.epoch + heard)}"

    def _pong(self, index: int, result: dict[str, Any]) -> None:
        self._answered[index] = self._job.loop.now()
        if "profile" in result:
            self._job.profile.take("ps", index, result["profile"])
