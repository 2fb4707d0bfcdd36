"""The ledger of average against a plain model, its rule against means in float64, and how long a job is."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from tfleet.optimizers import OptimizerSpec, build
from tfleet.server.partition import Partition
from tfleet.strategies.average import ApplyMean, Average, AverageLedger
from tfleet.wire.frames import ProtocolError, Push

members = st.integers(1, 4)


class AverageModel(RuleBasedStateMachine):
    """AverageLedger against: the batches that are done, the runs of the present round, and who holds which."""

    @initialize(
        batches=st.integers(1, 9), total=st.integers(0, 25), runs=st.integers(1, 4), local_steps=st.integers(0, 3)
    )
    def start(self, batches, total, runs, local_steps):
        self.batches, self.runs, self.local_steps, self.now = batches, runs, local_steps, 50.0
        self.ledger = AverageLedger(batches, total, runs, local_steps)
        self.applied, self.updates, self.refused = 0, 0, 0
        self.round, self.done, self.held = {}, set(), {}
        self.counted = []
        self.saved = None

    def begin_round(self):
        """Cuts the round that the first lease of it begins: as long as epoch, job and local steps let it be."""
        first = self.applied % self.batches
        limits = [self.batches - first]
        limits += [self.runs * self.local_steps] if self.local_steps else []
        limits += [self.ledger.total - self.applied] if self.ledger.total else []
        size = min(limits)
        parts = np.array_split(np.arange(first, first + size), min(self.runs, size))
        lengths = sorted((len(part) for part in parts), reverse=True)
        self.round = {"size": size, "runs": len(parts), "longest": lengths[0]}

    @rule(seconds=st.floats(0, 30))
    def wait(self, seconds):
        self.now += seconds

    @rule(member=members, want=st.integers(0, 2))
    def lease(self, member, want):
        finished = self.ledger.total and self.applied >= self.ledger.total
        if not finished and want and not self.round:
            self.begin_round()
        leases = self.ledger.lease(member, want, self.now)
        if finished or not want:
            assert leases == []
        for lease in leases:
            assert (lease.epoch, lease.batches) == (self.applied // self.batches, self.round["runs"])
            assert lease.updates == self.updates
            assert self.round["longest"] - 1 <= lease.length <= self.round["longest"]
            key = lease.batch, lease.length
            assert key not in self.done
            assert member not in self.held.get(key, set())
            taken = {b for first, length in {*self.done, *self.held} for b in range(first, first + length)}
            if key not in self.held:
                assert not taken & set(range(lease.batch, lease.batch + lease.length))
            self.held.setdefault(key, set()).add(member)

    @rule(member=members, data=st.data())
    def acknowledge(self, member, data):
        if not self.held:
            return
        key = data.draw(st.sampled_from(sorted(self.held)))
        right = member in self.held[key]
        epoch = self.applied // self.batches
        assert self.ledger.acknowledge(member, (epoch, key[0]), self.now) == (key[1] if right else 0)
        if not right:
            self.refused += 1
            return
        del self.held[key]
        self.done.add(key)
        self.counted += [(epoch, key[0] + number) for number in range(key[1])]
        if sum(length for _, length in self.done) == self.round["size"]:
            self.applied += self.round["size"]
            self.updates += self.round["longest"]
            self.round, self.done, self.held = {}, set(), {}

    @rule(member=members, key=st.tuples(st.integers(0, 3), st.integers(0, 9)))
    def acknowledge_anything(self, member, key):
        mine = {first for (first, _), holders in self.held.items() if member in holders}
        if key[0] != self.applied // self.batches or key[1] not in mine:
            assert self.ledger.acknowledge(member, key, self.now) == 0
            self.refused += 1

    @rule(member=members)
    def die(self, member):
        mine = [key for key, holders in self.held.items() if member in holders]
        assert self.ledger.give_back(member) == sum(length for _, length in mine)
        for key in mine:
            self.held[key].discard(member)
            if not self.held[key]:
                del self.held[key]

    @rule()
    def roll_back(self):
        """Between two rounds what a commit stores is all there is to know; what the round has done is lost."""
        values = json.loads(json.dumps(self.ledger.to_json()))
        total = self.ledger.total
        self.ledger = AverageLedger(self.batches, total, self.runs, self.local_steps)
        self.ledger.restore(values)
        lost = sum(length for _, length in self.done)
        self.counted = self.counted[: len(self.counted) - lost]
        self.round, self.done, self.held, self.refused = {}, set(), {}, 0

    @rule()
    def cap(self):
        self.ledger.cap()
        begun = self.round["size"] if self.done or self.held else 0
        assert self.ledger.total == max(1, self.applied + begun)

    @invariant()
    def agrees(self):
        ledger = self.ledger
        assert (ledger.step, ledger.updates, ledger.duplicates) == (self.applied, self.updates, self.refused)
        assert ledger.at_boundary == (not self.done and not self.held)
        assert sorted(set(self.counted)) == sorted(self.counted)  # nothing twice
        under_way = sum(length for _, length in self.done)
        every = [divmod(number, self.batches) for number in range(self.applied)]
        assert sorted(self.counted)[: self.applied] == every  # and nothing left out
        counts = {"acknowledged": self.applied + under_way, "leased": sum(length for _, length in self.held)}
        assert ledger.counts() == {"epoch": self.applied // self.batches, "returned": 0, **counts}
        assert ledger.finished == bool(ledger.total and self.applied >= ledger.total)


AverageModel.TestCase.settings = settings(max_examples=80, stateful_step_count=40, deadline=None, derandomize=True)
TestAverageLedger = AverageModel.TestCase


@pytest.mark.parametrize(
    ("runs", "local_steps", "rounds", "steps"),
    [
        (2, 0, 1, 10),  # an epoch
        (2, 0, 3, 30),
        (2, 2, 1, 4),
        (2, 2, 2, 8),
        (2, 2, 3, 10),  # the last round of an epoch has what is left
        (2, 2, 4, 14),
        (20, 0, 1, 10),  # more workers than batches
        (20, 3, 2, 20),
    ],
)
def test_the_rounds_say_how_many_steps_there_are(runs, local_steps, rounds, steps):
    strategy = Average(local_steps, rounds)
    assert strategy.steps(10, runs) == steps
    ledger, done = strategy.ledger(10, steps, runs), 0
    while not ledger.finished:
        before = ledger.step
        while ledger.step == before:
            for lease in ledger.lease(1, 1, 0.0):
                assert ledger.acknowledge(1, (lease.epoch, lease.batch), 0.0)
        done += 1
    assert (done, ledger.step) == (rounds, steps)


SIZE, BATCH = 300, 8


def partition(name="adam", state=2):
    made = Partition(1024, 1024 + SIZE, build(OptimizerSpec(name)), [], state)
    made.parameters[:] = np.random.default_rng(1).normal(size=SIZE)
    return made


def push(batch=0, runs=1, samples=BATCH, step=0):
    return Push(1, 1, 1, 0.1, samples, step, 0, batch, runs, 1, 0)


def result(seed, vectors=3):
    generator = np.random.default_rng(seed)
    return generator.normal(size=vectors * SIZE).astype(np.float32), generator.normal(size=2).astype(np.float32)


@given(st.lists(st.integers(1, 5000), min_size=1, max_size=6), st.randoms(use_true_random=False))
@settings(max_examples=50, deadline=None, derandomize=True)
def test_parameters_slots_and_state_are_means_by_samples_in_any_order(samples, random):
    made, start = partition(), partition().parameters
    rule, order = ApplyMean(made, BATCH), list(range(len(samples)))
    random.shuffle(order)
    for number in order:
        rule.take(push(number, len(samples), samples[number]), *result(number))
        assert made.parameters.tobytes() == start.tobytes()
        assert made.iteration == 0
    rule.reach(17)
    weights = np.array(samples) / sum(samples)
    expected = sum(w * result(number)[0].astype(np.float64) for number, w in enumerate(weights))
    state = sum(w * result(number)[1].astype(np.float64) for number, w in enumerate(weights))
    got = np.concatenate([made.parameters, made.slots["momentum"], made.slots["velocity"]])
    assert (np.abs(got - expected) <= 1e-5 * np.abs(expected) + 1e-6).all()
    assert (np.abs(made.state - state) <= 1e-5 * np.abs(state) + 1e-6).all()
    assert made.iteration == 17


@pytest.mark.parametrize("samples", [1, 7, 20, 333])
def test_a_run_alone_keeps_its_bits(samples):
    made = partition()
    rule = ApplyMean(made, BATCH)
    values, state = result(3)
    rule.take(push(0, 1, samples), values, state)
    rule.reach(5)
    got = np.concatenate([made.parameters, made.slots["momentum"], made.slots["velocity"]])
    assert got.tobytes() == values.tobytes()
    assert made.state.tobytes() == state.tobytes()


def test_the_first_answer_for_a_run_counts_and_late_ones_of_another_round_do_not():
    made, other = partition(), partition()
    rule, plain = ApplyMean(made, BATCH), ApplyMean(other, BATCH)
    for batch, values in ((0, 0), (0, 9), (4, 1)):
        rule.take(push(batch, 2), *result(values))
    for batch in (0, 4):
        plain.take(push(batch, 2), *result(batch // 4))
    rule.reach(8), plain.reach(8)
    assert made.parameters.tobytes() == other.parameters.tobytes()
    rule.take(push(0, 1, step=0), *result(7))
    with pytest.raises(ProtocolError, match="lacks a run"):
        rule.reach(12)
    assert made.parameters.tobytes() == other.parameters.tobytes()


@pytest.mark.parametrize("taken", [0, 1])
def test_a_round_that_is_not_complete_cannot_be_over(taken):
    made = partition()
    rule = ApplyMean(made, BATCH)
    for batch in range(taken):
        rule.take(push(batch, 2), *result(batch))
    with pytest.raises(ProtocolError, match="lacks a run"):
        rule.reach(2)
    assert made.iteration == 0
    rule.reach(0)  # nothing new


def test_what_is_given_is_left_alone():
    made = partition()
    values, state = result(0)
    values.flags.writeable = state.flags.writeable = False
    rule = ApplyMean(made, BATCH)
    rule.take(push(0, 2, 3), values, state)
    rule.take(push(1, 2, 3), values, state)
    rule.reach(2)
    np.testing.assert_allclose(made.parameters, values[:SIZE], rtol=1e-6)
