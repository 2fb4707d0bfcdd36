"""The ledger of bounded against a plain model: nobody is ever too far ahead, nobody waits for ever."""

import copy
import json
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from tfleet.spec.job import STALENESS, JobSpec
from tfleet.strategies import strategy
from tfleet.strategies.bounded import BoundedLedger

members = st.integers(1, 4)


class BoundedModel(RuleBasedStateMachine):
    """BoundedLedger against: what each member has completed and holds, and who is counted."""

    @initialize(batches=st.integers(1, 6), total=st.sampled_from([0, 0, 4, 40]), staleness=st.integers(0, 3))
    def start(self, batches, total, staleness):
        self.batches, self.staleness = batches, staleness
        self.ledger = BoundedLedger(batches, total, staleness)
        self.saved = self.ledger.to_json()
        self.forget()

    def forget(self):
        self.completed, self.held, self.counted = {}, {}, set()
        self.slowest = self.lead = 0

    @property
    def left(self):
        leased = sum(map(len, self.held.values()))
        return self.ledger.total - self.ledger.step - leased if self.ledger.total else 99

    @rule(member=members, want=st.integers(1, 3))
    def lease(self, member, want):
        if member not in self.counted:
            self.counted.add(member)
            self.completed[member] = max(self.completed.get(member, 0), self.slowest)
        mine = self.held.setdefault(member, [])
        first = self.completed[member] + len(mine)
        allowed = [n for n in range(first, first + want) if n - self.slowest <= self.staleness]
        leases = self.ledger.lease(member, want, 0.0)
        assert len(leases) == min(len(allowed), max(0, self.left))
        mine += [(lease.epoch, lease.batch) for lease in leases]
        if leases:
            self.lead = max(self.lead, first + len(leases) - 1 - self.slowest)

    @rule(member=members, data=st.data())
    def acknowledge(self, member, data):
        if self.held.get(member):
            key = data.draw(st.sampled_from(self.held[member]))
            assert self.ledger.acknowledge(member, key, 0.0)
            self.held[member].remove(key)
            self.completed[member] += 1

    @rule(member=members, key=st.tuples(st.integers(0, 3), st.integers(0, 7)))
    def acknowledge_what_it_does_not_hold(self, member, key):
        if key not in self.held.get(member, []):
            assert not self.ledger.acknowledge(member, key, 0.0)

    @rule(member=members)
    def rest(self, member):
        self.ledger.rest(member)
        if not self.held.get(member):
            self.counted.discard(member)

    @rule(member=members)
    def drain(self, member):
        assert self.ledger.lease(member, 0, 0.0) == []
        if not self.held.get(member):
            self.counted.discard(member)

    @rule(member=members)
    def die(self, member):
        assert self.ledger.give_back(member) == len(self.held.pop(member, []))
        self.completed.pop(member, None)
        self.counted.discard(member)

    @rule()
    def commit(self):
        self.saved = json.loads(json.dumps(self.ledger.to_json()))

    @rule(anew=st.booleans(), rare=st.integers(0, 9))
    def roll_back(self, anew, rare):
        if rare:
            return
        if anew:
            self.ledger = BoundedLedger(self.batches, self.ledger.total, self.staleness)
            self.forget()
        self.ledger.restore(self.saved)
        self.completed, self.held, self.counted = {}, {}, set()

    @rule(rare=st.integers(0, 49))
    def cap(self, rare):
        if rare == 0:
            self.ledger.cap()

    @invariant()
    def nobody_is_too_far_ahead(self):
        if not hasattr(self, "ledger"):
            return
        if self.counted:
            now = min(self.completed[member] for member in self.counted)
            assert now >= self.slowest  # it never falls
            self.slowest = now
        for member, held in self.held.items():
            for number in range(len(held)):
                assert self.completed[member] + number - self.slowest <= self.staleness
        assert self.ledger.counts()["lead"] == self.lead <= self.staleness
        assert self.ledger.counts()["leased"] == sum(map(len, self.held.values()))

    @invariant()
    def somebody_can_go_on(self):
        if not hasattr(self, "ledger") or self.left <= 0:
            return
        ledger = copy.deepcopy(self.ledger)
        slow = [m for m in self.counted if self.completed[m] == self.slowest and not self.held.get(m)]
        # Each of the slowest, and also who has just joined; with steps enough for all of them.
        for member in [*slow, 99][: self.left]:
            assert len(ledger.lease(member, 1, 0.0)) == 1


TestBoundedModel = BoundedModel.TestCase
TestBoundedModel.settings = settings(max_examples=150, stateful_step_count=60, deadline=None, derandomize=True)


@given(
    st.integers(1, 9),
    st.integers(1, 60),
    st.integers(1, 5),
    st.integers(0, 4),
    st.integers(1, 2),
    st.integers(0, 2**31),
)
@settings(max_examples=100, deadline=None, derandomize=True)
def test_a_job_ends_with_every_batch_once_whoever_joins_dies_rests_or_leaves(
    batches, total, workers, staleness, ahead, seed
):
    """Workers of very different speeds, which hold up to `ahead` leases; only what can happen is chosen from."""
    chance, ledger, done = Random(seed), BoundedLedger(batches, total, staleness), []
    held, speed, waiting, resting = {}, {}, set(), set()

    def join():
        member = len(speed)
        held[member], speed[member] = [], 10.0 ** chance.randrange(-2, 1)

    def ask(member):
        waiting.discard(member)
        leases = ledger.lease(member, 1, 0.0)
        held[member] += [(lease.epoch, lease.batch) for lease in leases]
        if not leases and not held[member]:
            waiting.add(member)

    def leave(member):
        held.pop(member)
        ledger.give_back(member)
        waiting.discard(member)
        resting.discard(member)
        join()

    for _ in range(workers):
        join()
    while not ledger.finished:
        able = [m for m in held if m not in waiting and m not in resting]
        assert able or resting  # else all wait for ever
        member = chance.choices(able, [speed[m] for m in able])[0] if able else None
        event = chance.random()
        if event < 0.03:
            leave(chance.choice(list(held)))
        elif event < 0.06 and member is not None and not held[member]:
            ledger.rest(member)
            resting.add(member)
        elif event < 0.1 and resting:
            resting.discard(chance.choice(sorted(resting)))
        elif member is not None and held[member] and (len(held[member]) == ahead or chance.random() < 0.5):
            key = held[member].pop(0)
            assert ledger.acknowledge(member, key, 0.0)
            done.append(key)
        elif member is not None and len(held[member]) < ahead:
            ask(member)
        for other in sorted(waiting):
            ask(other)
    assert sorted(done) == [divmod(number, batches) for number in range(total)]
    assert ledger.lead <= staleness


def keys(ledger, member, want=1):
    return [(lease.epoch, lease.batch) for lease in ledger.lease(member, want, 0.0)]


def step(ledger, member):
    (key,) = keys(ledger, member)
    ledger.acknowledge(member, key, 0.0)


@pytest.mark.parametrize("staleness", [0, 1, 4])
def test_the_fastest_is_refused_exactly_when_it_would_begin_a_step_too_far_ahead(staleness):
    ledger = BoundedLedger(100, 0, staleness)
    (slow,) = keys(ledger, 1)
    for _ in range(staleness + 1):
        step(ledger, 2)
    assert keys(ledger, 2) == []
    assert ledger.lead == staleness
    ledger.acknowledge(1, slow, 0.0)
    assert len(keys(ledger, 2)) == 1
    assert keys(ledger, 2) == []


def test_leases_that_are_held_are_steps_begun():
    ledger = BoundedLedger(100, 0, 2)
    keys(ledger, 1)
    assert len(keys(ledger, 2, want=9)) == 3
    assert (keys(ledger, 2), ledger.lead) == ([], 2)


def test_without_staleness_no_second_lease_is_held():
    ledger = BoundedLedger(100, 0, 0)
    assert len(keys(ledger, 1)) == 1
    assert keys(ledger, 1) == []  # not even alone: its own step is not complete


def test_alone_a_worker_goes_on_for_ever():
    ledger = BoundedLedger(3, 0, 1)
    for _ in range(20):
        step(ledger, 1)
    assert ledger.lead == 0


def test_who_joins_late_starts_beside_the_slowest():
    ledger = BoundedLedger(100, 0, 1)
    for _ in range(10):
        step(ledger, 1)
    step(ledger, 2)
    step(ledger, 2)
    assert keys(ledger, 2) == []  # 11 completed were two ahead of worker 1
    step(ledger, 1)
    assert len(keys(ledger, 2)) == 1


@pytest.mark.parametrize("how", ["dies", "rests", "leaves"])
def test_the_others_go_on_without_who_is_gone(how):
    ledger = BoundedLedger(100, 0, 0)
    (key,) = keys(ledger, 1)
    step(ledger, 2)
    assert keys(ledger, 2) == []
    if how == "dies":
        ledger.give_back(1)
    elif how == "rests":
        ledger.rest(1)
        assert keys(ledger, 2) == []  # it has a batch to do
        ledger.acknowledge(1, key, 0.0)
        step(ledger, 2)
        ledger.rest(1)
    else:
        assert ledger.lease(1, 0, 0.0) == []
        assert keys(ledger, 2) == []  # its last batch still counts
        ledger.acknowledge(1, key, 0.0)
        step(ledger, 2)
        ledger.lease(1, 0, 0.0)
    for _ in range(5):
        step(ledger, 2)


def test_who_has_rested_goes_on_beside_the_slowest():
    ledger = BoundedLedger(100, 0, 0)
    step(ledger, 1)
    ledger.rest(1)
    for _ in range(7):
        step(ledger, 2)
    step(ledger, 1)
    assert keys(ledger, 1) == []
    step(ledger, 2)
    step(ledger, 1)


def test_who_was_ahead_when_it_rested_is_still_ahead():
    ledger = BoundedLedger(100, 0, 2)
    keys(ledger, 1)
    for _ in range(3):
        step(ledger, 2)
    ledger.rest(2)
    assert ledger._counted == {1}
    assert keys(ledger, 2) == []


def test_commits_know_nothing_of_members():
    ledger = BoundedLedger(100, 0, 0)
    step(ledger, 1)
    keys(ledger, 2)
    values = json.loads(json.dumps(ledger.to_json()))
    assert values == {"step": 1, "next": [0, 2], "open": [[0, 1]]}
    ledger.restore(values)
    assert keys(ledger, 7) == [(0, 1)]
    assert keys(ledger, 8) == [(0, 2)]


def test_the_strategy_takes_the_staleness_of_the_job():
    made = strategy("bounded").of(JobSpec(strategy="bounded", staleness=3)).ledger(5, 7, 1)
    assert (type(made), made.batches, made.total, made.staleness) == (BoundedLedger, 5, 7, 3)
    assert strategy("bounded").of(JobSpec(strategy="bounded")).ledger(5, 7, 1).staleness == STALENESS
