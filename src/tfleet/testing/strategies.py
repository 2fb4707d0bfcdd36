"""A conformance suite for strategies: exactly once, nothing beyond the end, and a rule that keeps to its partition.

```python
class TestMine(StrategyConformance):
    @pytest.fixture
    def strategy(self) -> Strategy:
        return Mine()
```
"""

from __future__ import annotations

import random
from collections import Counter

import numpy as np
import pytest

from tfleet.strategies.base import Strategy
from tfleet.strategies.ledger import Key, Ledger
from tfleet.strategies.rule import Vector
from tfleet.wire.frames import Lease, Push

BATCHES = 7
"""In an epoch of the suite; no multiple of `AGGREGATE`, so that epochs end with a smaller step."""
AGGREGATE = 3
BATCH_SIZE = 10


class _Sum:
    """A partition whose optimizer subtracts the gradient times the rate, so that it shows what was applied."""

    def __init__(self, size: int) -> None:
        self.parameters: Vector = np.zeros(size, np.float32)
        self.slots: dict[str, Vector] = {}
        self.state: Vector = np.zeros(1, np.float32)
        self.iteration = 0

    @property
    def size(self) -> int:
        """Number of parameters."""
        return len(self.parameters)

    def apply(self, gradient: Vector, learning_rate: float) -> None:
        """Plain gradient descent."""
        self.parameters -= np.float32(learning_rate) * gradient
        self.iteration += 1


def _batches(lease: Lease) -> list[Key]:
    return [(lease.epoch, lease.batch + number) for number in range(lease.length)]


class StrategyConformance:
    """What every strategy must do; override the fixture `strategy`."""

    @pytest.fixture
    def strategy(self) -> Strategy:
        """Returns the strategy under test."""
        raise NotImplementedError("override the fixture `strategy`")

    def ledger(self, strategy: Strategy, total: int = 0) -> Ledger:
        """Returns a new ledger of the suite's size."""
        return strategy.ledger(BATCHES, total, AGGREGATE if strategy.aggregates else 1)

    @pytest.mark.parametrize("seed", range(5))
    def test_every_batch_is_acknowledged_once_an_epoch_whoever_dies(self, strategy: Strategy, seed: int) -> None:
        """Members that are chosen by chance lease, acknowledge, and die, for three epochs."""
        ledger, chance, now = self.ledger(strategy), random.Random(seed), 0.0
        held: dict[int, list[Lease]] = {1: [], 2: [], 3: []}
        counted: Counter[Key] = Counter()
        while ledger.epoch < 3 or min(counted[e, b] for e in range(3) for b in range(BATCHES)) < 1:
            now += 1.0
            member = chance.choice(sorted(held))
            if chance.random() < 0.1:
                ledger.give_back(member)
                held[max(held) + 1] = []
                del held[member]
            elif held[member]:
                lease = held[member].pop(0)
                if ledger.acknowledge(member, (lease.epoch, lease.batch), now):
                    counted.update(_batches(lease))
            else:
                held[member] += ledger.lease(member, 1, now)
        assert set(counted.values()) == {1}

    def test_no_more_is_leased_than_steps_remain(self, strategy: Strategy) -> None:
        """However many members ask, training ends exactly at the last step."""
        ledger, now = self.ledger(strategy, total=5), 0.0
        while not ledger.finished:
            now += 1.0
            leases = [(m, lease) for m in range(1, 12) for lease in ledger.lease(m, 1, now)]
            assert leases
            for member, lease in leases:
                ledger.acknowledge(member, (lease.epoch, lease.batch), now)
            assert ledger.step <= 5
        assert ledger.lease(1, 1, now) == []
        assert ledger.counts()["leased"] == 0

    def test_a_batch_that_was_not_leased_is_not_acknowledged_twice(self, strategy: Strategy) -> None:
        """The second acknowledgement of one batch changes nothing but the count of duplicates."""
        ledger = self.ledger(strategy)
        (lease,) = ledger.lease(1, 1, 0.0)
        assert ledger.acknowledge(1, (lease.epoch, lease.batch), 1.0)
        before = ledger.counts()
        assert not ledger.acknowledge(1, (lease.epoch, lease.batch), 2.0)
        assert ledger.counts() == before
        assert ledger.duplicates == 1

    def test_a_restored_ledger_goes_on_where_a_commit_can_be_made(self, strategy: Strategy) -> None:
        """From each boundary: what was acknowledged is not given out again, everything else is."""
        ledger = self.ledger(strategy)
        done: set[Key] = set()
        for now in range(40):
            if ledger.at_boundary:
                again = self.ledger(strategy, total=ledger.step + 2 * BATCHES)
                again.restore(ledger.to_json())
                assert again.step == ledger.step
                assert not {key for x in again.lease(9, 1, 0.0) for key in _batches(x)} & done
            for lease in ledger.lease(1, 1, float(now)):
                ledger.acknowledge(1, (lease.epoch, lease.batch), float(now))
                done.update(_batches(lease))

    def test_capped_ledger_ends_with_what_is_leased(self, strategy: Strategy) -> None:
        """After `cap` the leased batches, or the step or round that they belong to, are the last."""
        ledger, now = self.ledger(strategy), 0.0
        (lease,) = ledger.lease(1, 1, now)
        ledger.cap()
        ledger.acknowledge(1, (lease.epoch, lease.batch), now)
        batches = lease.length
        for now in range(1, BATCHES):
            for more in ledger.lease(1, 1, float(now)):
                ledger.acknowledge(1, (more.epoch, more.batch), float(now))
                batches += more.length
        assert ledger.finished
        assert ledger.step == (batches if strategy.local else 1)
        assert batches <= BATCHES

    def test_rule_applies_full_steps_and_leaves_the_gradient_alone(self, strategy: Strategy) -> None:
        """Equal gradients of all batches of a step move the parameters by one of them, or by each.

        Where workers update by themselves, equal parameters of all runs of a round are those that it ends with.
        """
        partition = _Sum(4)
        rule = strategy.rule(partition, BATCH_SIZE)
        batches = AGGREGATE if strategy.aggregates else 1
        gradient = np.arange(4, dtype=np.float32)
        for batch in range(batches):
            push = Push(1, 1 + batch, 1, 0.5, BATCH_SIZE, 0, 0, batch, batches, 1, 0)
            rule.take(push, gradient, np.zeros(1, np.float32))
        rule.reach(1)
        assert partition.iteration == 1
        assert np.array_equal(partition.parameters, (1.0 if strategy.local else -0.5) * np.arange(4, dtype=np.float32))
        assert np.array_equal(gradient, np.arange(4, dtype=np.float32))

    def test_rule_takes_an_empty_partition(self, strategy: Strategy) -> None:
        """More ps than chunks leave some without parameters; they still count updates."""
        partition = _Sum(0)
        rule = strategy.rule(partition, BATCH_SIZE)
        rule.take(Push(1, 1, 1, 0.5, BATCH_SIZE, 0, 0, 0, 1, 1, 0), np.zeros(0, np.float32), np.zeros(1, np.float32))
        rule.reach(1)
        assert partition.iteration == 1
