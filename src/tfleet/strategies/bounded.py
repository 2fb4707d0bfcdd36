"""The strategy bounded: async, but no worker runs more than `staleness` steps ahead of the slowest.

After Ho et al., "More Effective Distributed ML via a Stale Synchronous Parallel Parameter Server" (2013). A worker's
clock is the number of its batches that are acknowledged. Its step n, from 0, begins when the batch is leased, and only
when every other worker has completed its steps up to n - staleness - 1: what the worker is told then holds those
updates. With `staleness` 0 nobody begins a step before all have completed the one before.
"""

from __future__ import annotations

from typing import Any

from tfleet.optimizers import OptimizerSpec
from tfleet.spec.job import STALENESS, JobSpec
from tfleet.spec.layout import Layout
from tfleet.strategies.asynchronous import ApplyAtOnce, AsyncExchange, AsyncLedger
from tfleet.strategies.base import Strategy
from tfleet.strategies.exchange import Exchange, Peers
from tfleet.strategies.ledger import Key, Ledger
from tfleet.strategies.rule import Rule, Updatable
from tfleet.wire.frames import Lease


class BoundedLedger(AsyncLedger):
    """As async, but a batch is refused to who would run too far ahead; it asks again.

    A worker is counted once it asks for a batch, and starts with the count of the slowest. It is counted no more once
    its batches are given back, it rests, or it has acknowledged its last batch and wants no other; when it asks again
    it goes on with its own count, or that of the slowest if that is more. So the count of the slowest never falls, and
    whoever is the slowest is never refused: there is no deadlock.

    Attributes:
        staleness: the most steps that a worker may be ahead of the slowest.
        lead: the most that one was, when it began a step.
    """

    def __init__(self, batches: int, total: int, staleness: int) -> None:
        super().__init__(batches, total)
        self.staleness = staleness
        self.lead = 0
        self._slowest = 0
        self._completed: dict[int, int] = {}
        self._held: dict[int, int] = {}
        self._counted: set[int] = set()
        self._workers_at: dict[int, int] = {}

    def lease(self, member: int, want: int, now: float) -> list[Lease]:
        """Gives at most so many that the last of them is not more than `staleness` steps ahead."""
        if not want:
            self.rest(member)
            return []
        if member not in self._counted:
            self._count(member)
        ahead = self._completed[member] + self._held[member] - self._slowest
        leases = super().lease(member, min(want, self.staleness + 1 - ahead), now)
        if leases:
            self._held[member] += len(leases)
            self.lead = max(self.lead, ahead + len(leases) - 1)
        return leases

    def acknowledge(self, member: int, key: Key, now: float) -> bool:
        """Counts one step, for the job and for the member."""
        if not super().acknowledge(member, key, now):
            return False
        self._held[member] -= 1
        completed = self._completed[member] = self._completed[member] + 1
        if member in self._counted:
            self._workers_at[completed] = self._workers_at.get(completed, 0) + 1
            self._take_from(completed - 1)
        return True

    def rest(self, member: int) -> None:
        """Lets the others go on without the member until it asks again; not while it has a batch to do."""
        if member in self._counted and not self._held[member]:
            self._counted.remove(member)
            self._take_from(self._completed[member])

    def give_back(self, member: int) -> int:
        """Puts the member's batches where the next lease finds them, and forgets the member."""
        if member in self._completed:
            self._held[member] = 0
            self.rest(member)
            del self._completed[member], self._held[member]
        return super().give_back(member)

    def restore(self, values: dict[str, Any]) -> None:
        """Everything that was open is to do again, by workers that are counted anew."""
        for member in list(self._completed):
            self.give_back(member)
        super().restore(values)

    def counts(self) -> dict[str, int]:
        """Returns the counts for the status, with the largest lead."""
        return {**super().counts(), "lead": self.lead}

    def _count(self, member: int) -> None:
        completed = max(self._completed.get(member, 0), self._slowest)
        self._counted.add(member)
        self._completed[member] = completed
        self._held.setdefault(member, 0)
        self._workers_at[completed] = self._workers_at.get(completed, 0) + 1

    def _take_from(self, completed: int) -> None:
        # The count of the slowest is kept, not searched for: this is done for every batch of every worker.
        left = self._workers_at[completed] - 1
        if left:
            self._workers_at[completed] = left
            return
        del self._workers_at[completed]
        if completed == self._slowest:
            self._slowest = min(self._workers_at, default=completed)


class Bounded(Strategy):
    """Updates may be computed on parameters that are old, but not older than `staleness` steps of any worker."""

    name = "bounded"
    aggregates = False

    def __init__(self, staleness: int = STALENESS) -> None:
        self._staleness = staleness

    def of(self, job: JobSpec) -> Strategy:
        """See `Strategy.of`."""
        return Bounded(job.staleness)

    def ledger(self, batches: int, total: int, aggregate: int) -> Ledger:
        """See `Strategy.ledger`."""
        return BoundedLedger(batches, total, self._staleness)

    def rule(self, partition: Updatable, batch_size: int) -> Rule:
        """See `Strategy.rule`."""
        return ApplyAtOnce(partition)

    def exchange(self, peers: Peers, layout: Layout, spec: JobSpec, optimizer: OptimizerSpec) -> Exchange:
        """See `Strategy.exchange`."""
        return AsyncExchange(peers, layout, spec)
