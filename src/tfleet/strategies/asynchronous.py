"""The strategy async: every push is applied when it arrives; a batch is a step.

After Recht et al., "Hogwild!" (2011), and Dean et al., "Large Scale Distributed Deep Networks" (2012).
"""

from __future__ import annotations

import heapq
from typing import Any

from tfleet.optimizers import OptimizerSpec
from tfleet.spec.job import JobSpec
from tfleet.spec.layout import Layout
from tfleet.strategies.base import Strategy
from tfleet.strategies.exchange import Exchange, Peers, Step
from tfleet.strategies.ledger import Key, Ledger
from tfleet.strategies.rule import Rule, Updatable, Vector
from tfleet.wire.frames import Lease, Order, Push, Take


class AsyncLedger(Ledger):
    """One batch is one step; batches are given in order, returned ones first."""

    def __init__(self, batches: int, total: int) -> None:
        super().__init__(batches, total)
        self._next: Key = (0, 0)
        self._leased: dict[Key, int] = {}
        self._returned: list[Key] = []

    @property
    def epoch(self) -> int:
        """The epoch of the next new batch."""
        return self._next[0]

    def lease(self, member: int, want: int, now: float) -> list[Lease]:
        """Gives returned batches first, never more than steps remain."""
        if self.total:
            want = min(want, self.total - self.step - len(self._leased))
        leases = []
        for _ in range(want):
            key = heapq.heappop(self._returned) if self._returned else self._advance()
            self._leased[key] = member
            leases.append(Lease(*key, 1))
        return leases

    def acknowledge(self, member: int, key: Key, now: float) -> bool:
        """Counts one step."""
        if self._leased.get(key) != member:
            self.duplicates += 1
            return False
        del self._leased[key]
        self.step += 1
        return True

    def give_back(self, member: int) -> int:
        """Puts the member's batches where the next lease finds them."""
        mine = [key for key, holder in self._leased.items() if holder == member]
        for key in mine:
            del self._leased[key]
            heapq.heappush(self._returned, key)
        return len(mine)

    def cap(self) -> None:
        """No new batches; those of the living are awaited."""
        self.total = max(1, self.step + len(self._leased))

    def to_json(self) -> dict[str, Any]:
        """Returns the next batch and those before it that are not acknowledged."""
        return {"step": self.step, "next": list(self._next), "open": sorted([*self._leased, *self._returned])}

    def restore(self, values: dict[str, Any]) -> None:
        """Everything that was open is to do again."""
        self.step = int(values["step"])
        self._next = (int(values["next"][0]), int(values["next"][1]))
        self._leased = {}
        self._returned = [(int(epoch), int(batch)) for epoch, batch in values["open"]]
        heapq.heapify(self._returned)

    def counts(self) -> dict[str, int]:
        """Returns the counts for the status."""
        return {
            "epoch": self.epoch,
            "acknowledged": self.step,
            "leased": len(self._leased),
            "returned": len(self._returned),
        }

    def _advance(self) -> Key:
        key = self._next
        epoch, batch = key
        self._next = (epoch, batch + 1) if batch + 1 < self.batches else (epoch + 1, 0)
        return key


class ApplyAtOnce(Rule):
    """The rule of async: every push is applied when it arrives; a state difference is added."""

    def __init__(self, partition: Updatable) -> None:
        self._partition = partition

    def take(self, push: Push, gradient: Vector, state: Vector) -> None:
        """Applies the push."""
        self._partition.apply(gradient, push.learning_rate)
        if len(state):
            self._partition.state += state

    def reach(self, step: int) -> None:
        """Nothing waits."""


class AsyncExchange(Exchange):
    """Pushes to all partitions at once, ps 0 last, and takes what they answer.

    Where the job overlaps, the answer to a push is only taken when the next gradient is there: so a batch is computed
    on parameters that lack this worker's own last update, and every process has something to do meanwhile. The
    gradient of a push stays where it is until everybody has answered.
    """

    def __init__(self, peers: Peers, layout: Layout, spec: JobSpec) -> None:
        super().__init__(peers, layout, spec)
        self._under_way = False

    def push(self, step: Step, rate: float, samples: int, epoch: int, batch: int, batches: int, held: int) -> Take:
        """See `Exchange.push`; the state travels as a difference."""
        state, computed_at = step.state - self.state, self.step
        before = self._settled() if self._under_way else None
        leases = before.leases if before else ()
        held += len(leases)
        if before and before.order is Order.OVER:
            return before
        if before and before.order is not Order.NONE:
            self.want = False
        self._sequence += 1
        self._into = (self._used + 1) % self._plan.slots
        meta = self._meta(rate, samples, epoch, batch, batches, held)
        self._send_all(meta._replace(step=computed_at), step, state)
        self._under_way = True
        if held and self._plan.slots > 1 and self.want:
            return before or Take(self._peers.generation, self.step, Order.NONE, ())
        after = self._settled()
        order = before.order if before and before.order is not Order.NONE else after.order
        return Take(after.generation, after.step, order, leases + after.leases)

    def _settled(self) -> Take:
        """Takes the answers to the push that is under way; what they bring is computed with next."""
        self._receive_others()
        take = self._receive_first()
        self._under_way = False
        self._used = self._into
        self.state, self.parameters = self._slots[self._used]
        return take


class Async(Strategy):
    """Updates are computed on parameters that may be some updates old; nobody waits for anybody."""

    name = "async"
    aggregates = False
    waits = False

    def ledger(self, batches: int, total: int, aggregate: int) -> Ledger:
        """See `Strategy.ledger`."""
        return AsyncLedger(batches, total)

    def rule(self, partition: Updatable, batch_size: int) -> Rule:
        """See `Strategy.rule`."""
        return ApplyAtOnce(partition)

    def exchange(self, peers: Peers, layout: Layout, spec: JobSpec, optimizer: OptimizerSpec) -> Exchange:
        """See `Strategy.exchange`."""
        return AsyncExchange(peers, layout, spec)
