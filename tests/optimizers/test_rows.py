"""Updates of touched rows give the bits of dense updates of the whole table; Adam's are lazy, and differ."""

from __future__ import annotations

import numpy as np
import pytest

from tfleet.optimizers import OptimizerSpec, build
from tfleet.optimizers.denormals import FlushDenormals, available
from tfleet.optimizers.rows import RowTable, fade

ROWS, WIDTH, STEPS = 50, 7, 200
EXACT = [
    OptimizerSpec("sgd"),
    OptimizerSpec("rmsprop"),
    OptimizerSpec("rmsprop", {"rho": 0.5, "epsilon": 1e-3}),
    OptimizerSpec("rmsprop", {"rho": 0.99}),
    OptimizerSpec("adagrad"),
    OptimizerSpec("adagrad", {"initial_accumulator_value": 1e-39, "epsilon": 1e-6}),
]
OTHERS = [
    OptimizerSpec("sgd", {"momentum": 0.9}),
    OptimizerSpec("rmsprop", {"momentum": 0.1}),
    OptimizerSpec("rmsprop", {"centered": True}),
    OptimizerSpec("rmsprop", {"epsilon": 0.0}),
    OptimizerSpec("adagrad", {"epsilon": 1e-40}),
    OptimizerSpec("adam"),
    OptimizerSpec("adamw"),
]


def start(size: int = ROWS * WIDTH) -> np.ndarray:
    values = np.random.default_rng(3).standard_normal(size).astype(np.float32)
    values[:: WIDTH + 1] = np.float32(1e-40)  # a denormal, which a dense update makes zero
    values[3] = -0.0
    return values


def touched(step: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows, some of them rarely, with gradients of all magnitudes, and sometimes none at all."""
    rng = np.random.default_rng(step)
    weights = 1.0 / np.arange(1, ROWS + 1) ** 2
    count = int(rng.integers(0, 9))
    ids = np.sort(rng.choice(ROWS, count, replace=False, p=weights / weights.sum()))
    scale = 10.0 ** rng.uniform(-25, 1, (count, WIDTH))
    return ids.astype(np.int64), (rng.standard_normal((count, WIDTH)) * scale).astype(np.float32)


def table_of(spec: OptimizerSpec) -> RowTable:
    table = RowTable(ROWS, WIDTH, build(spec))
    table.load(start(), {}, 0)
    return table


def flat_slots(table: RowTable, iteration: int) -> dict[str, np.ndarray]:
    catch_up, copies = table.catch_up(iteration), {}
    for name, slot in table.slots.items():
        copies[name] = slot.reshape(-1).copy()
        catch_up(name, copies[name])
    return copies


def bits(vector: np.ndarray) -> bytes:
    return vector.astype(np.float32).tobytes()


@pytest.mark.parametrize("spec", EXACT, ids=str)
def test_the_bits_of_dense_updates(spec):
    optimizer, table = build(spec), table_of(spec)
    params = start()
    slots = {name: np.full(params.size, optimizer.initial(name), np.float32) for name in optimizer.slot_names}
    for step in range(STEPS):
        ids, gradient = touched(step)
        dense = np.zeros((ROWS, WIDTH), np.float32)
        dense[ids] = gradient
        rate = 0.05 / (1 + step % 7)
        optimizer.apply(params, dense.reshape(-1), slots, step, rate, [])
        table.apply(ids, gradient, step, rate)
        if step in (0, 5, 77, STEPS - 1):
            assert bits(table.parameters) == bits(params)
            assert {n: bits(s) for n, s in flat_slots(table, step + 1).items()} == {
                n: bits(s) for n, s in slots.items()
            }
    assert np.any(params != start())


@pytest.mark.parametrize("spec", EXACT, ids=str)
def test_goes_on_from_a_commit_with_equal_bits(spec):
    whole, first, second = table_of(spec), table_of(spec), table_of(spec)
    for step in range(60):
        whole.apply(*touched(step), step, 0.1)
        if step == 25:
            second.load(first.parameters.reshape(-1).copy(), flat_slots(first, step), step)
        (first if step < 25 else second).apply(*touched(step), step, 0.1)
    assert bits(second.parameters) == bits(whole.parameters)
    assert {n: bits(s) for n, s in flat_slots(second, 60).items()} == {
        n: bits(s) for n, s in flat_slots(whole, 60).items()
    }


@pytest.mark.parametrize("spec", EXACT, ids=str)
def test_at_rest_is_what_a_zero_gradient_does(spec):
    optimizer, size = build(spec), 500
    params, grad = np.abs(start(size)) + 1, np.random.default_rng(0).standard_normal(size).astype(np.float32)
    slots = {name: np.full(size, optimizer.initial(name), np.float32) for name in optimizer.slot_names}
    optimizer.apply(params, grad, slots, 0, 0.1, [])
    before, old = params.copy(), {name: slot.copy() for name, slot in slots.items()}
    optimizer.apply(params, np.zeros(size, np.float32), slots, 1, 0.1, [])
    assert bits(params) == bits(before)
    rest = optimizer.at_rest()
    for name, slot in slots.items():
        with FlushDenormals():
            expected = old[name] * np.float32(rest[name]) if name in rest else old[name]
        assert bits(slot) == bits(expected)


@pytest.mark.parametrize("spec", OTHERS, ids=str)
def test_what_moves_at_rest_says_so(spec):
    assert build(spec).at_rest() is None


@pytest.mark.parametrize("name", ["adam", "adamw"])
def test_lazy_updates_touched_rows_as_adam_does_and_no_others(name):
    spec = OptimizerSpec(name)
    optimizer, table = build(spec), table_of(spec)
    assert optimizer.lazy
    ids, gradient = np.array([2, 5, 49]), np.ones((3, WIDTH), np.float32)
    table.apply(ids, gradient, 0, 0.1)
    params = start().reshape(ROWS, WIDTH)[ids].reshape(-1)
    slots = {n: np.zeros(params.size, np.float32) for n in optimizer.slot_names}
    optimizer.apply(params, gradient.reshape(-1), slots, 0, 0.1, [])
    assert bits(table.parameters[ids]) == bits(params)
    others = np.delete(np.arange(ROWS), ids)
    assert bits(table.parameters[others]) == bits(start().reshape(ROWS, WIDTH)[others])
    table.apply(np.array([1]), np.ones((1, WIDTH), np.float32), 1, 0.1)
    assert bits(table.parameters[ids]) == bits(params), "the dense Adam would move them on"


def test_fade_multiplies_as_often_as_missed_and_flushes():
    rng = np.random.default_rng(0)
    slot, missed = rng.random((40, 3)).astype(np.float32), rng.integers(0, 3000, 40)
    slot[4], missed[:3] = 0, [0, 1, 100_000]
    expected, left, flush = slot.copy(), missed.copy(), FlushDenormals()
    with flush:
        while left.any():
            expected[left > 0] *= np.float32(0.99)
            left[left > 0] -= 1
            if left.max() > 5000 and not expected[2].any():
                left[2] = 0
    fade(slot, missed, np.float32(0.99), flush)
    assert bits(slot) == bits(expected)
    assert not available() or not slot[2].any()


def test_the_gradient_may_be_a_read_only_view():
    table = table_of(OptimizerSpec("rmsprop"))
    gradient = np.frombuffer(np.ones((2, WIDTH), np.float32).tobytes(), np.float32).reshape(2, WIDTH)
    table.apply(np.array([0, 1]), gradient, 0, 0.1)
    assert gradient.tobytes() == np.ones((2, WIDTH), np.float32).tobytes()
