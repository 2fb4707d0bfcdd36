"""The strategy sync: a step applies a fixed set of batches, each done once by whoever is first.

Batch j of step s within an epoch is number s R + j of the epoch's order, for R batches a step; the last step of an
epoch has the batches that are left. When all are leased and one is overdue, a free worker gets a copy of the oldest
(backup workers: Chen et al., "Revisiting Distributed Synchronous SGD", 2016); the first answer counts. Which worker
computes a batch does not change its gradient, so the result does not depend on who was first.
"""

from __future__ import annotations

import math
import statistics
from collections import deque
from collections.abc import Sequence
from typing import Any

import numpy as np

from tfleet.optimizers import OptimizerSpec
from tfleet.spec.job import JobSpec
from tfleet.spec.layout import Layout
from tfleet.strategies.base import Strategy
from tfleet.strategies.exchange import Exchange, Peers, Step, taken
from tfleet.strategies.ledger import Key, Ledger
from tfleet.strategies.rule import Rule, Updatable, Vector
from tfleet.wire.frames import Lease, ProtocolError, Push, Take

OVERDUE_FACTOR = 3.0
"""A lease is overdue after so many times the median time of a batch."""
OVERDUE_LEAST = 0.1
"""Seconds before which no lease is overdue."""
OVERDUE_UNKNOWN = 10.0
"""Seconds after which a lease is overdue while no batch has been timed (workers compile at first)."""


class SyncLedger(Ledger):
    """Steps of `aggregate` batches; only batches of the present step are leased.

    Attributes:
        aggregate: batches in a full step (R).
        copies: backup leases given so far.
    """

    def __init__(self, batches: int, total: int, aggregate: int) -> None:
        super().__init__(batches, total)
        self.aggregate = aggregate
        self.copies = 0
        self._steps_per_epoch = math.ceil(batches / aggregate)
        self._leases: dict[int, dict[int, float]] = {}
        self._done: set[int] = set()
        self._acknowledged = 0
        self._times: deque[float] = deque(maxlen=32)

    @property
    def epoch(self) -> int:
        """The epoch of the present step."""
        return self.step // self._steps_per_epoch

    @property
    def at_boundary(self) -> bool:
        """Whether no batch of the present step is done or leased."""
        return not self._done and not self._leases

    def lease(self, member: int, want: int, now: float) -> list[Lease]:
        """Gives at most one batch: the first free one, else a copy of the oldest lease if that is overdue."""
        if self.finished or not want:
            return []
        free = (b for b in self._parts() if b not in self._done and not self._leases.get(b))
        batch = next(free, None)
        if batch is None:
            batch = self._overdue(member, now)
            if batch is None:
                return []
            self.copies += 1
        self._leases.setdefault(batch, {})[member] = now
        return [self._lease_of(batch)]

    def acknowledge(self, member: int, key: Key, now: float) -> int:
        """Counts the batch if the member has a lease of it in the present step; the last one completes the step."""
        epoch, batch = key
        holders = self._leases.get(batch, {})  # of the present step, and none once it is done
        if epoch != self.epoch or member not in holders:
            self.duplicates += 1
            return False
        self._times.append(now - holders[member])
        del self._leases[batch]
        self._done.add(batch)
        self._acknowledged += 1
        if len(self._done) == len(self._parts()):
            self._done.clear()
            self._leases.clear()
            self._end_step()
        return True

    def give_back(self, member: int) -> int:
        """Ends the member's leases; batches that nobody else has are free again."""
        mine = [batch for batch, holders in self._leases.items() if member in holders]
        for batch in mine:
            del self._leases[batch][member]
            if not self._leases[batch]:
                del self._leases[batch]
        return len(mine)

    def cap(self) -> None:
        """Lets the present step be finished if it has begun."""
        self.total = max(1, self.step + (0 if self.at_boundary else 1))

    def to_json(self) -> dict[str, Any]:
        """Returns the step; a step that has begun is to do again, since nothing of it was applied."""
        return {"step": self.step}

    def restore(self, values: dict[str, Any]) -> None:
        """Goes back to the start of a step."""
        self.step = int(values["step"])
        self._done.clear()
        self._leases.clear()
        full, rest = divmod(self.step, self._steps_per_epoch)
        self._acknowledged = full * self.batches + min(rest * self.aggregate, self.batches)

    def counts(self) -> dict[str, int]:
        """Returns the counts for the status."""
        return {
            "epoch": self.epoch,
            "acknowledged": self._acknowledged,
            "leased": len(self._leases),
            "returned": 0,
        }

    def _parts(self) -> Sequence[int]:
        """Returns what is leased of the present step: the batches; under average the first of each run."""
        first = (self.step % self._steps_per_epoch) * self.aggregate
        return range(first, min(first + self.aggregate, self.batches))

    def _lease_of(self, part: int) -> Lease:
        return Lease(self.epoch, part, len(self._parts()))

    def _end_step(self) -> None:
        self.step += 1

    def _overdue(self, member: int, now: float) -> int | None:
        limit = OVERDUE_UNKNOWN
        if self._times:
            limit = max(OVERDUE_LEAST, OVERDUE_FACTOR * statistics.median(self._times))
        # By its newest copy: else every free worker would copy the same batch, and no other that is late.
        others = {b: max(holders.values()) for b, holders in self._leases.items() if member not in holders}
        oldest = min(others, key=others.__getitem__, default=None)
        return oldest if oldest is not None and now - others[oldest] > limit else None


class ApplyTogether(Rule):
    """The rule of sync: a step's batches are summed, weighted by samples, and applied once ps 0 has them all.

    The first answer for each batch counts: every worker computes the same gradient for it, so partitions need not
    agree on whose they took. But they must agree on when: a partition that went ahead of ps 0 (a worker died between
    its pushes) would give a worker that joins then parameters of two steps. State is averaged over the batches,
    weighted alike.
    """

    def __init__(self, partition: Updatable, batch_size: int) -> None:
        self._partition = partition
        self._batch_size = batch_size
        self._sum: Vector = np.zeros(partition.size, np.float32)
        self._state: Vector = np.zeros(len(partition.state), np.float32)
        self._weight = 0.0
        self._got: set[tuple[int, int]] = set()
        self._batches = 0
        self._rate = 0.0

    def take(self, push: Push, gradient: Vector, state: Vector) -> None:
        """Adds the push to its step."""
        key = (push.epoch, push.batch)
        if push.step != self._partition.iteration or key in self._got:
            return
        weight = push.samples / self._batch_size
        self._add(gradient, state, weight)
        self._got.add(key)
        self._batches, self._rate = push.batches, push.learning_rate

    def reach(self, step: int) -> None:
        """Applies the step that is complete."""
        if step <= self._partition.iteration:
            return
        if step > self._partition.iteration + 1 or not self._got or len(self._got) < self._batches:
            raise ProtocolError(f"step {step} is said to be reached, but this partition lacks a part of the one before")
        self._finish(self._rate)

    def _add(self, gradient: Vector, state: Vector, weight: float) -> None:
        first = not self._got
        if weight == 1.0 and first:
            np.copyto(self._sum, gradient)
        elif weight == 1.0:
            self._sum += gradient
        else:
            np.add(0 if first else self._sum, gradient * np.float32(weight), out=self._sum)
        np.add(0 if first else self._state, state * np.float32(weight), out=self._state)
        self._weight += weight

    def _finish(self, learning_rate: float) -> None:
        if self._weight != 1.0:
            self._sum /= np.float32(self._weight)
            self._state /= np.float32(self._weight)
        self._partition.apply(self._sum, learning_rate)
        self._partition.state[:] = self._state
        self._weight = 0.0
        self._got.clear()


class SyncExchange(Exchange):
    """Pushes to everybody at once; ps 0 counts a push when the others have told that they have it too.

    When a step is complete ps 0 tells the other ps, which answer the pushes of that step with new parameters: each push
    once, the last of a step with parameters, so answers may be owed while this worker has more batches of one step.
    """

    def __init__(self, peers: Peers, layout: Layout, spec: JobSpec) -> None:
        super().__init__(peers, layout, spec)
        self._owed = 0

    def push(self, step: Step, rate: float, samples: int, epoch: int, batch: int, batches: int, held: int) -> Take:
        """See `Exchange.push`; the state travels as it is."""
        self._sequence += 1
        self._send_all(self._meta(rate, samples, epoch, batch, batches, held), step, step.state)
        self._owed += 1
        before = self.step
        take = self._receive_first()
        if self.step != before:
            self._receive_others()
        return take

    def _pull_others(self) -> None:
        self._owed += 1
        super()._pull_others()

    def _receive_others(self) -> None:
        """Takes what is owed: the parameters of the present step, from every other ps."""
        owed, self._owed = self._owed, 0
        for number, (channel, view) in enumerate(zip(self._peers.others, self._views[0][1:], strict=True), 1):
            for _ in range(owed):
                take = taken(channel, view)
            if take.step < self.step:  # answered when an earlier step was done, for which ps 0 had no lease for us
                self._ask(channel)
                taken(channel, view)
            self._arrived(number)

    def _arrived(self, number: int) -> None:
        """The present parameters of one of the other ps are in its view."""


class Sync(Strategy):
    """Steps of R batches, equal to one worker with R times the batch; workers wait for each other at each step."""

    name = "sync"
    aggregates = True

    def ledger(self, batches: int, total: int, aggregate: int) -> Ledger:
        """See `Strategy.ledger`."""
        return SyncLedger(batches, total, aggregate)

    def rule(self, partition: Updatable, batch_size: int) -> Rule:
        """See `Strategy.rule`."""
        return ApplyTogether(partition, batch_size)

    def exchange(self, peers: Peers, layout: Layout, spec: JobSpec, optimizer: OptimizerSpec) -> Exchange:
        """See `Strategy.exchange`."""
        return SyncExchange(peers, layout, spec)
