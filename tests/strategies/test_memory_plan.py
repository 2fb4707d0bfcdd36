"""Where a worker's vectors lie: apart from each other, and aligned."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tfleet.strategies.memory import MemoryPlan, Shared, private

sizes = st.integers(0, 70)


@given(sizes, sizes, sizes, st.integers(1, 2))
@settings(max_examples=60, deadline=None, derandomize=True)
def test_vectors_lie_apart_and_parameters_are_aligned(state, parameters, metrics, slots):
    plan = MemoryPlan(state, parameters, metrics, slots)
    memory = private(plan.size)
    parts = [part for n in range(slots) for part in plan.slot(memory, n)] + list(plan.push(memory))
    assert [len(p) for p in parts] == [state, parameters] * slots + [parameters, state, metrics]
    for number, part in enumerate(parts, 1):
        part[:] = number
    for number, part in enumerate(parts, 1):
        assert np.all(part == number)
    for number in range(slots):
        assert not parameters or plan.slot(memory, number).parameters.ctypes.data % 64 == 0
        assert plan.whole(memory, number).tolist() == [*parts[2 * number], *parts[2 * number + 1]]


def test_a_partition_sees_its_part_only():
    plan = MemoryPlan(2, 10, 4, 2)
    memory = private(plan.size)
    plan.push(memory)[0][:] = np.arange(10)
    plan.slot(memory, 1).parameters[:] = np.arange(10) * 2
    second = Shared.of(plan, memory, 6, 10, first=False)
    assert second.gradient.tolist() == [6, 7, 8, 9]
    assert second.slots[1].parameters.tolist() == [12, 14, 16, 18]
    assert [len(second.state), len(second.metrics), len(second.slots[0].state)] == [0, 0, 0]
    first = Shared.of(plan, memory, 0, 6, first=True)
    assert [len(first.state), len(first.metrics), len(first.slots[0].state)] == [2, 4, 2]


def test_a_plan_comes_back():
    plan = MemoryPlan(2, 10, 4, 2)
    assert MemoryPlan.from_json(plan.to_json()) == plan


@pytest.mark.parametrize("wrong", [{"state": -1}, {"slots": 0}, {"slots": 3}])
def test_what_can_be_no_plan_is_refused(wrong):
    with pytest.raises(ValueError, match="is no plan"):
        MemoryPlan.from_json({**MemoryPlan(2, 10, 4, 1).to_json(), **wrong})
