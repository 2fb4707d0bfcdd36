"""The ledgers against plain models of what they promise: each batch acknowledged exactly once an epoch."""

import json
from random import Random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from tfleet.strategies.asynchronous import AsyncLedger
from tfleet.strategies.ledger import batches_in_epoch, permutation
from tfleet.strategies.synchronous import OVERDUE_FACTOR, OVERDUE_LEAST, OVERDUE_UNKNOWN, SyncLedger

members = st.integers(1, 4)


@given(st.integers(0, 2**31 - 1), st.integers(0, 1000), st.integers(1, 500))
@settings(max_examples=50, deadline=None, derandomize=True)
def test_the_order_of_an_epoch_is_a_permutation_of_seed_and_epoch(seed, epoch, items):
    order = permutation(seed, epoch, items)
    assert order.dtype == np.int64
    assert sorted(order) == list(range(items))
    assert (order == permutation(seed, epoch, items)).all()


def test_the_order_differs_between_epochs_and_seeds():
    orders = {tuple(permutation(seed, epoch, 50)) for seed in range(4) for epoch in range(4)}
    assert len(orders) == 16


@pytest.mark.parametrize(
    ("items", "batch", "batches"), [(1, 1, 1), (20, 20, 1), (21, 20, 2), (9000, 20, 450), (5, 20, 1)]
)
def test_the_last_batch_of_an_epoch_may_be_smaller(items, batch, batches):
    assert batches_in_epoch(items, batch) == batches


class AsyncModel(RuleBasedStateMachine):
    """AsyncLedger against: who holds which batch, what is done, and what was ever given."""

    @initialize(batches=st.integers(1, 6), total=st.integers(0, 25))
    def start(self, batches, total):
        self.batches = batches
        self.ledger = AsyncLedger(batches, total)
        self.done, self.held, self.open = set(), {}, set()
        self.given = 0
        self.saved = None
        self.refused = 0

    @rule(member=members, want=st.integers(0, 4))
    def lease(self, member, want):
        left = self.ledger.total - len(self.done) - len(self.held) if self.ledger.total else want
        leases = self.ledger.lease(member, want, 0.0)
        assert len(leases) == max(0, min(want, left))
        for lease in leases:
            key = lease.epoch, lease.batch
            assert lease.batches == 1
            if self.open:
                assert key == min(self.open)  # what was returned comes first
                self.open.remove(key)
            else:
                assert key == divmod(self.given, self.batches)  # then the next in order
                self.given += 1
            assert key not in self.held
            assert key not in self.done
            self.held[key] = member

    @rule(member=members, data=st.data())
    def acknowledge(self, member, data):
        if self.held:
            key = data.draw(st.sampled_from(sorted(self.held)))
            mine = self.held[key] == member
            assert self.ledger.acknowledge(member, key, 0.0) is mine
            if mine:
                del self.held[key]
                self.done.add(key)
            else:
                self.refused += 1

    @rule(member=members, key=st.tuples(st.integers(0, 3), st.integers(0, 7)))
    def acknowledge_anything(self, member, key):
        if self.held.get(key) != member:
            assert self.ledger.acknowledge(member, key, 0.0) is False
            self.refused += 1

    @rule(member=members)
    def die(self, member):
        mine = {key for key, holder in self.held.items() if holder == member}
        assert self.ledger.give_back(member) == len(mine)
        self.held = {key: holder for key, holder in self.held.items() if holder != member}
        self.open |= mine

    @rule()
    def commit(self):
        self.saved = json.loads(json.dumps(self.ledger.to_json())), set(self.done), self.given

    @rule()
    def roll_back(self):
        if self.saved:
            values, done, self.given = self.saved
            total = self.ledger.total
            self.ledger = AsyncLedger(self.batches, total)
            self.ledger.restore(values)
            self.done, self.held, self.refused = set(done), {}, 0
            every = {divmod(number, self.batches) for number in range(self.given)}
            self.open = every - self.done  # only what was not acknowledged is to do again

    @rule()
    def cap(self):
        self.ledger.cap()
        assert self.ledger.total == max(1, len(self.done) + len(self.held))

    @invariant()
    def agrees(self):
        ledger = self.ledger
        assert ledger.step == len(self.done)
        assert ledger.duplicates == self.refused
        counts = {"acknowledged": len(self.done), "leased": len(self.held), "returned": len(self.open)}
        assert ledger.counts() == {"epoch": self.given // self.batches, **counts}
        assert ledger.finished == bool(ledger.total and len(self.done) >= ledger.total)


class SyncModel(RuleBasedStateMachine):
    """SyncLedger against: the batches of the present step, who holds copies of which, and what is done of it."""

    @initialize(batches=st.integers(1, 7), total=st.integers(0, 12), aggregate=st.integers(1, 4))
    def start(self, batches, total, aggregate):
        self.batches, self.aggregate, self.now = batches, aggregate, 50.0
        self.ledger = SyncLedger(batches, total, aggregate)
        self.step, self.acknowledged, self.copies = 0, 0, 0
        self.done, self.held = set(), {}
        self.refused = 0

    @property
    def per_epoch(self):
        return -(-self.batches // self.aggregate)

    def of_step(self):
        first = self.step % self.per_epoch * self.aggregate
        return range(first, min(first + self.aggregate, self.batches))

    @rule(seconds=st.floats(0, 30))
    def wait(self, seconds):
        self.now += seconds

    @rule(member=members, want=st.integers(0, 2))
    def lease(self, member, want):
        finished = self.ledger.total and self.step >= self.ledger.total
        leases = self.ledger.lease(member, want, self.now)
        if finished or not want:
            assert leases == []
            return
        free = [b for b in self.of_step() if b not in self.done and not self.held.get(b)]
        if free:
            assert [lease.batch for lease in leases] == free[:1]
        elif leases:  # a copy, of a batch that others have had for long
            (lease,) = leases
            assert lease.batch not in self.done
            assert member not in self.held[lease.batch]
            oldest = {b: max(h.values()) for b, h in self.held.items() if h and member not in h}
            assert oldest[lease.batch] == min(oldest.values())
            assert self.now - oldest[lease.batch] > OVERDUE_LEAST
            self.copies += 1
        for lease in leases:
            assert (lease.epoch, lease.batches) == (self.step // self.per_epoch, len(self.of_step()))
            self.held.setdefault(lease.batch, {})[member] = self.now

    @rule(member=members, data=st.data())
    def acknowledge(self, member, data):
        batch = data.draw(st.sampled_from(self.of_step()))
        right = member in self.held.get(batch, {})
        assert self.ledger.acknowledge(member, (self.step // self.per_epoch, batch), self.now) is right
        if not right:
            self.refused += 1
            return
        del self.held[batch]
        self.done.add(batch)
        self.acknowledged += 1
        if self.done == set(self.of_step()):
            self.step += 1
            self.done, self.held = set(), {}

    @rule(member=members, key=st.tuples(st.integers(0, 3), st.integers(0, 9)))
    def acknowledge_anything(self, member, key):
        if key[0] != self.step // self.per_epoch or member not in self.held.get(key[1], {}):
            assert self.ledger.acknowledge(member, key, self.now) is False
            self.refused += 1

    @rule(member=members)
    def die(self, member):
        mine = [b for b, holders in self.held.items() if holders.pop(member, None) is not None]
        assert self.ledger.give_back(member) == len(mine)

    @rule()
    def commit_and_roll_back(self):
        values = json.loads(json.dumps(self.ledger.to_json()))
        total = self.ledger.total
        self.ledger = SyncLedger(self.batches, total, self.aggregate)
        self.ledger.restore(values)
        self.acknowledged -= len(self.done)
        self.done, self.held, self.refused, self.copies = set(), {}, 0, 0

    @rule()
    def cap(self):
        self.ledger.cap()
        begun = bool(self.done) or any(self.held.values())
        assert self.ledger.total == max(1, self.step + begun)

    @invariant()
    def agrees(self):
        ledger = self.ledger
        assert (ledger.step, ledger.duplicates, ledger.copies) == (self.step, self.refused, self.copies)
        assert ledger.at_boundary == (not self.done and not any(self.held.values()))
        leased = sum(1 for holders in self.held.values() if holders)
        counts = {"acknowledged": self.acknowledged, "leased": leased, "returned": 0}
        assert ledger.counts() == {"epoch": self.step // self.per_epoch, **counts}


for model in (AsyncModel, SyncModel):
    model.TestCase.settings = settings(max_examples=60, stateful_step_count=40, deadline=None, derandomize=True)
TestAsyncLedger = AsyncModel.TestCase
TestSyncLedger = SyncModel.TestCase


@given(st.integers(1, 9), st.integers(1, 30), st.integers(1, 4), st.integers(0, 2**32))
@settings(max_examples=50, deadline=None, derandomize=True)
def test_an_async_job_acknowledges_every_batch_once_whoever_dies(batches, total, workers, seed):
    ledger, held, done, random = AsyncLedger(batches, total), {}, [], Random(seed)
    while not ledger.finished:
        member = random.randrange(workers)
        if member in held and random.random() < 0.2:
            ledger.give_back(member)
            del held[member]
        elif member in held:
            assert ledger.acknowledge(member, held[member], 0.0)
            done.append(held.pop(member))
        else:
            for lease in ledger.lease(member, 1, 0.0):
                held[member] = lease.epoch, lease.batch
    assert sorted(done) == [divmod(number, batches) for number in range(total)]


@pytest.mark.parametrize("ledger", [AsyncLedger(5, 7), SyncLedger(5, 7, 2)])
def test_nothing_is_leased_when_every_step_is_done(ledger):
    while not ledger.finished:
        (lease,) = ledger.lease(1, 1, 0.0)
        assert ledger.acknowledge(1, (lease.epoch, lease.batch), 0.0)
    assert ledger.lease(1, 1, 0.0) == []
    assert ledger.step == 7


def test_without_a_total_there_is_no_end():
    ledger = AsyncLedger(3, 0)
    for number in range(20):
        (lease,) = ledger.lease(1, 1, 0.0)
        assert (lease.epoch, lease.batch) == divmod(number, 3)
        ledger.acknowledge(1, (lease.epoch, lease.batch), 0.0)
    assert not ledger.finished


def take(ledger, member, now):
    return [lease.batch for lease in ledger.lease(member, 1, now)]


def test_copies_are_given_only_when_a_batch_is_overdue():
    ledger = SyncLedger(10, 0, 2)
    assert (take(ledger, 1, 0.0), take(ledger, 2, 1.0)) == ([0], [1])
    assert take(ledger, 3, OVERDUE_UNKNOWN) == []  # not a moment too soon
    assert take(ledger, 3, OVERDUE_UNKNOWN + 0.01) == [0]  # the oldest
    assert take(ledger, 4, OVERDUE_UNKNOWN + 0.02) == []  # not twice, and the other is not overdue
    assert take(ledger, 4, OVERDUE_UNKNOWN + 1.02) == [1]
    assert take(ledger, 5, OVERDUE_UNKNOWN + 1.02) == []  # both have copies, which are new
    assert ledger.copies == 2


def test_what_is_overdue_follows_from_the_time_a_batch_takes():
    ledger, now = SyncLedger(100, 0, 1), 0.0
    for _ in range(5):
        (batch,) = take(ledger, 1, now)
        now += 2.0
        ledger.acknowledge(1, (0, batch), now)
    take(ledger, 1, now)
    assert take(ledger, 2, now + OVERDUE_FACTOR * 2.0) == []
    assert take(ledger, 2, now + OVERDUE_FACTOR * 2.0 + 0.01) == [5]


def test_quick_batches_are_not_overdue_at_once():
    ledger = SyncLedger(100, 0, 1)
    take(ledger, 1, 0.0)
    ledger.acknowledge(1, (0, 0), 0.001)
    take(ledger, 1, 0.001)
    assert take(ledger, 2, 0.001 + OVERDUE_LEAST) == []
    assert take(ledger, 2, 0.002 + OVERDUE_LEAST) == [1]


def test_the_first_answer_counts_and_the_copy_is_refused():
    ledger = SyncLedger(4, 0, 2)
    take(ledger, 1, 0.0), take(ledger, 2, 0.0)
    take(ledger, 3, 60.0)
    assert ledger.acknowledge(3, (0, 0), 61.0)
    assert not ledger.acknowledge(1, (0, 0), 62.0)
    assert ledger.acknowledge(2, (0, 1), 63.0)
    assert (ledger.step, ledger.duplicates) == (1, 1)
    assert not ledger.acknowledge(1, (0, 0), 64.0)  # of a step that is over


def test_a_batch_counts_for_nobody_who_had_no_lease_of_it():
    ledger = SyncLedger(4, 0, 2)
    take(ledger, 1, 0.0)
    assert not ledger.acknowledge(2, (0, 0), 1.0)
    assert not ledger.acknowledge(1, (0, 1), 1.0)
    assert ledger.acknowledge(1, (0, 0), 1.0)


@pytest.mark.parametrize(("batches", "aggregate"), [(5, 2), (4, 2), (3, 5), (1, 1)])
def test_the_last_step_of_an_epoch_has_the_batches_that_are_left(batches, aggregate):
    ledger, sizes = SyncLedger(batches, 2 * -(-batches // aggregate), aggregate), []
    while not ledger.finished:
        before, leases = ledger.step, []
        while ledger.step == before:
            (lease,) = ledger.lease(1, 1, 0.0)
            leases.append(lease)
            ledger.acknowledge(1, (lease.epoch, lease.batch), 0.0)
        assert {lease.batches for lease in leases} == {len(leases)}
        sizes.append(len(leases))
    full, rest = divmod(batches, aggregate)
    assert sizes == ([aggregate] * full + [rest] * bool(rest)) * 2
    assert ledger.counts()["acknowledged"] == 2 * batches
