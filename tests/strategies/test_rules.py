"""How pushes meet in a partition: at once under async, together under sync."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tfleet.optimizers import OptimizerSpec, build
from tfleet.server.partition import Partition
from tfleet.strategies import strategy as strategy_of
from tfleet.strategies.asynchronous import ApplyAtOnce
from tfleet.strategies.synchronous import ApplyTogether
from tfleet.wire.frames import ProtocolError, Push

SIZE, BATCH = 300, 8


def partition(name="sgd", state=2, **hyper):
    made = Partition(1024, 1024 + SIZE, build(OptimizerSpec(name, hyper)), [(0, 100)], state)
    made.parameters[:] = np.random.default_rng(1).normal(size=SIZE)
    return made


def push(batch=0, batches=1, samples=BATCH, step=0, epoch=0, rate=0.1):
    return Push(1, 1, 1, rate, samples, step, epoch, batch, batches, 1, 0)


def vectors(seed):
    generator = np.random.default_rng(seed)
    return generator.normal(size=SIZE).astype(np.float32), generator.normal(size=2).astype(np.float32)


def test_at_once_each_push_is_an_update():
    one, other = partition(), partition()
    rule = ApplyAtOnce(one)
    for number in range(3):
        gradient, state = vectors(number)
        rule.take(push(rate=0.1 * number), gradient, state)
        other.apply(gradient, 0.1 * number)
    assert one.parameters.tobytes() == other.parameters.tobytes()
    assert one.iteration == 3


def test_at_once_a_difference_of_state_is_added():
    one = partition()
    one.state[:] = [1, 2]
    rule = ApplyAtOnce(one)
    for change in ([1, 0], [0.5, -1]):
        rule.take(push(), np.zeros(SIZE, np.float32), np.array(change, np.float32))
    assert one.state.tolist() == [2.5, 1.0]


@pytest.mark.parametrize("name", ["sgd", "adam"])
def test_together_one_full_batch_has_the_bits_of_at_once(name):
    one, other = partition(name), partition(name)
    together, at_once = ApplyTogether(one, BATCH), ApplyAtOnce(other)
    for step in range(5):
        gradient, _ = vectors(step)
        together.take(push(step=step), gradient, np.zeros(2, np.float32))
        together.reach(step + 1)
        at_once.take(push(), gradient, np.zeros(2, np.float32))
    assert one.parameters.tobytes() == other.parameters.tobytes()
    assert all(one.slots[slot].tobytes() == other.slots[slot].tobytes() for slot in one.slots)


@given(st.lists(st.integers(1, BATCH), min_size=1, max_size=5), st.randoms(use_true_random=False))
@settings(max_examples=50, deadline=None, derandomize=True)
def test_together_batches_are_weighted_by_samples_in_any_order(samples, random):
    one, start = partition(), partition().parameters
    rule, order = ApplyTogether(one, BATCH), list(range(len(samples)))
    random.shuffle(order)
    for number in order:
        rule.take(push(number, len(samples), samples[number], rate=1.0), *vectors(number))
        assert one.parameters.tobytes() == start.tobytes()
    rule.reach(1)
    weights = np.array(samples) / sum(samples)
    gradient = sum(w * vectors(number)[0].astype(np.float64) for number, w in enumerate(weights))
    state = sum(w * vectors(number)[1].astype(np.float64) for number, w in enumerate(weights))
    np.testing.assert_allclose(one.parameters, start - gradient, rtol=0, atol=1e-6)
    np.testing.assert_allclose(one.state, state, rtol=0, atol=1e-6)
    assert one.iteration == 1


def test_together_the_first_answer_for_a_batch_counts():
    one, other = partition(), partition()
    rule, plain = ApplyTogether(one, BATCH), ApplyTogether(other, BATCH)
    for batch, values in ((0, 0), (0, 9), (1, 1)):
        rule.take(push(batch, 2), *vectors(values))
    for batch in (0, 1):
        plain.take(push(batch, 2), *vectors(batch))
    rule.reach(1), plain.reach(1)
    assert one.parameters.tobytes() == other.parameters.tobytes()
    assert one.state.tobytes() == other.state.tobytes()


@pytest.mark.parametrize("step", [0, 2])
def test_together_a_push_of_another_step_is_left_out(step):
    one = partition()
    rule = ApplyTogether(one, BATCH)
    rule.take(push(0, 1, step=0), *vectors(0))
    rule.reach(1)
    after = one.parameters.copy()
    rule.take(push(0, 1, step=step), *vectors(1))
    with pytest.raises(ProtocolError, match="lacks a part"):
        rule.reach(2)
    assert one.parameters.tobytes() == after.tobytes()
    rule.take(push(0, 1, step=1), *vectors(1))
    rule.reach(2)
    assert one.iteration == 2


@pytest.mark.parametrize(("taken", "step"), [(0, 1), (1, 1), (2, 2)])
def test_together_a_step_that_is_not_complete_cannot_be_over(taken, step):
    one = partition()
    rule = ApplyTogether(one, BATCH)
    for batch in range(taken):
        rule.take(push(batch, 2), *vectors(batch))
    with pytest.raises(ProtocolError, match="lacks a part"):
        rule.reach(step)
    assert one.iteration == 0


def test_together_nothing_of_a_step_is_left_in_the_next():
    one, other = partition(), partition()
    rule, fresh = ApplyTogether(one, BATCH), ApplyTogether(other, BATCH)
    for step, samples in enumerate([(3, 8, 1), (8, 8), (5,)]):
        for batch, count in enumerate(samples):
            rule.take(push(batch, len(samples), count, step=step), *vectors(10 * step + batch))
        rule.reach(step + 1)
        fresh = ApplyTogether(other, BATCH)
        for batch, count in enumerate(samples):
            fresh.take(push(batch, len(samples), count, step=step), *vectors(10 * step + batch))
        fresh.reach(step + 1)
        assert one.parameters.tobytes() == other.parameters.tobytes()
        assert one.state.tobytes() == other.state.tobytes()


def test_a_copy_is_a_copy_and_loads_back():
    one, other = partition("adam"), partition("adam")
    one.apply(vectors(0)[0], 0.1)
    copied = one.copy()
    one.apply(vectors(1)[0], 0.1)
    other.load(*copied)
    other.apply(vectors(1)[0], 0.1)
    assert other.parameters.tobytes() == one.parameters.tobytes()
    assert other.iteration == one.iteration == 2


@pytest.mark.parametrize("name", ["async", "sync"])
def test_an_empty_partition_counts_its_updates(name):
    empty = Partition(5, 5, build(OptimizerSpec("adam")), [])
    rule = strategy_of(name).rule(empty, BATCH)
    nothing = np.zeros(0, np.float32)
    rule.take(push(), nothing, nothing)
    rule.reach(1)
    assert (empty.size, empty.iteration) == (0, 1)


def test_decay_applies_to_its_ranges_only():
    spec = OptimizerSpec("sgd", {}, weight_decay=0.5)
    made = Partition(0, 4, build(spec), [(1, 3)])
    made.parameters[:] = 1
    made.apply(np.zeros(4, np.float32), 0.1)
    np.testing.assert_allclose(made.parameters, [1, 0.95, 0.95, 1])
