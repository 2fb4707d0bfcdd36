"""What every optimizer of a parameter server must do, as a pytest class to inherit from.

class TestMine(OptimizerConformance):
    @pytest.fixture
    def make(self):
        return lambda: Mine(OptimizerSpec("mine", {"momentum": 0.9}, weight_decay=0.01))
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from tfleet.optimizers import Optimizer, OptimizerSpec
from tfleet.optimizers.base import CHUNK, Vector

SIZE = 2 * CHUNK + 1234
"""More than two chunks and not a multiple, so that the bounds of chunks are crossed."""
STEPS = 5
DECAY = [(100, 3000), (CHUNK - 7, CHUNK + 9), (SIZE - 500, SIZE)]

Slots = dict[str, Vector]


class OptimizerConformance:
    """Inherit from it in a test module and override the fixture `make`."""

    @pytest.fixture
    def make(self) -> Callable[[], Optimizer]:
        """Returns a function that builds the optimizer anew, the same at each call."""
        raise NotImplementedError("override the fixture make")

    def test_describes_its_slots(self, make: Callable[[], Optimizer]) -> None:
        """Slot names are distinct and every slot has a finite start."""
        optimizer = make()
        assert len(set(optimizer.slot_names)) == len(optimizer.slot_names)
        assert all(np.isfinite(np.float32(optimizer.initial(name))) for name in optimizer.slot_names)

    def test_its_spec_survives_json(self, make: Callable[[], Optimizer]) -> None:
        """A ps that gets the spec over the wire builds the same optimizer."""
        optimizer = make()
        again = type(optimizer)(OptimizerSpec.from_json(optimizer.spec.to_json()))
        assert _run(lambda: again) == _run(make)

    def test_changes_parameters_and_slots_in_place(self, make: Callable[[], Optimizer]) -> None:
        """The given arrays themselves are changed, and stay float32 and finite."""
        optimizer = make()
        params, slots = _start(optimizer)
        before, arrays = params.copy(), dict(slots)
        first = {name: slot.copy() for name, slot in slots.items()}
        optimizer.apply(params, _gradient(0), slots, 0, 0.01, DECAY)
        assert np.mean(params != before) > 0.99
        assert params.dtype == np.float32
        assert np.isfinite(params).all()
        assert set(slots) == set(optimizer.slot_names)
        for name, slot in slots.items():
            assert slot is arrays[name]
            assert slot.dtype == np.float32
            assert np.isfinite(slot).all()
            assert np.any(slot != first[name])

    def test_goes_downhill(self, make: Callable[[], Optimizer]) -> None:
        """The first update moves each parameter against the sign of its gradient, where nothing decays."""
        optimizer = make()
        params, slots = _start(optimizer)
        before, grad = params.copy(), _gradient(0)
        optimizer.apply(params, grad, slots, 0, 0.01, [])
        clear = np.abs(grad) > 1e-2
        assert np.array_equal(np.sign(before - params)[clear], np.sign(grad)[clear])

    def test_leaves_the_gradient_untouched(self, make: Callable[[], Optimizer]) -> None:
        """The gradient may be a read-only view of a receive buffer."""
        optimizer = make()
        params, slots = _start(optimizer)
        grad = np.frombuffer(_gradient(0).tobytes(), np.float32)
        before = grad.copy()
        optimizer.apply(params, grad, slots, 0, 0.01, DECAY)
        assert grad.tobytes() == before.tobytes()

    @pytest.mark.parametrize("cuts", [[1], [1024, CHUNK, CHUNK + 1024], [5, 5, 4321, SIZE - 1]])
    def test_partitions_get_the_bits_of_the_whole(self, make: Callable[[], Optimizer], cuts: list[int]) -> None:
        """The number of ps does not change a bit, wherever the vector is cut; a partition may be empty."""
        optimizer = make()
        params, slots = _start(optimizer)
        bounds = list(zip([0, *cuts], [*cuts, SIZE], strict=True))
        for step in range(STEPS):
            for low, high in bounds:
                part = {name: slot[low:high] for name, slot in slots.items()}
                decay = [(max(a, low) - low, min(b, high) - low) for a, b in DECAY if max(a, low) < min(b, high)]
                optimizer.apply(params[low:high], _gradient(step)[low:high], part, step, _rate(step), decay)
        assert _bits(params, slots) == _run(make)

    def test_an_empty_partition_stays_empty(self, make: Callable[[], Optimizer]) -> None:
        """More ps than chunks of parameters leave some without any."""
        optimizer = make()
        empty = np.empty(0, np.float32)
        slots = {name: np.empty(0, np.float32) for name in optimizer.slot_names}
        optimizer.apply(empty, np.empty(0, np.float32), slots, 0, 0.01, [])
        assert empty.size == 0

    def test_continues_from_stored_slots(self, make: Callable[[], Optimizer]) -> None:
        """Parameters, slots and the number of updates are the whole state: a new instance goes on with equal bits."""
        first = make()
        params, slots = _start(first)
        for step in range(2):
            first.apply(params, _gradient(step), slots, step, _rate(step), DECAY)
        params, slots = params.copy(), {name: slot.copy() for name, slot in slots.items()}
        second = make()
        for step in range(2, STEPS):
            second.apply(params, _gradient(step), slots, step, _rate(step), DECAY)
        assert _bits(params, slots) == _run(make)

    def test_one_instance_serves_two_vectors(self, make: Callable[[], Optimizer]) -> None:
        """Nothing of one vector stays in the instance and reaches another."""
        optimizer = make()
        other, other_slots = _start(optimizer)
        params, slots = _start(optimizer)
        for step in range(STEPS):
            optimizer.apply(other, _gradient(step + 100), other_slots, step, 0.5, [])
            optimizer.apply(params, _gradient(step), slots, step, _rate(step), DECAY)
        assert _bits(params, slots) == _run(make)

    def test_decays_within_the_ranges_only(self, make: Callable[[], Optimizer]) -> None:
        """Weight decay changes the parameters in the given ranges and no other; without it ranges mean nothing."""
        with_ranges, without = make(), make()
        (p, p_slots), (q, q_slots) = _start(with_ranges), _start(without)
        grad = _gradient(0)
        with_ranges.apply(p, grad, p_slots, 0, 0.5, DECAY)
        without.apply(q, grad, q_slots, 0, 0.5, [])
        inside = np.zeros(SIZE, bool)
        for low, high in DECAY:
            inside[low:high] = True
        assert np.array_equal(p[~inside], q[~inside])
        if with_ranges.spec.weight_decay:
            assert np.mean(p[inside] != q[inside]) > 0.9
        else:
            assert np.array_equal(p[inside], q[inside])

    def test_nothing_happens_at_rest(self, make: Callable[[], Optimizer]) -> None:
        """Without gradients so far, a zero gradient moves no parameter outside the decay ranges."""
        optimizer = make()
        params, slots = _start(optimizer)
        before = params.copy()
        optimizer.apply(params, np.zeros(SIZE, np.float32), slots, 0, 0.1, [])
        assert np.array_equal(params, before)

    def test_passes_nan_on_in_silence(self, make: Callable[[], Optimizer], recwarn: pytest.WarningsRecorder) -> None:
        """A NaN stays where it is: the worker names its batch, the ps does not warn and does not spread it."""
        optimizer = make()
        params, slots = _start(optimizer)
        grad = _gradient(0)
        grad[7], grad[8] = np.nan, np.inf
        optimizer.apply(params, grad, slots, 0, 0.01, DECAY)
        assert np.isnan(params[7])
        assert np.isfinite(np.delete(params, [7, 8])).all()
        assert not recwarn.list


def _gradient(step: int) -> Vector:
    return np.random.default_rng(step).standard_normal(SIZE, np.float32)


def _rate(step: int) -> float:
    return float(np.float32(0.01 / (1 + step)))


def _start(optimizer: Optimizer) -> tuple[Vector, Slots]:
    params = np.random.default_rng(12345).standard_normal(SIZE, np.float32)
    slots = {name: np.full(SIZE, optimizer.initial(name), np.float32) for name in optimizer.slot_names}
    return params, slots


def _run(make: Callable[[], Optimizer]) -> bytes:
    optimizer = make()
    params, slots = _start(optimizer)
    for step in range(STEPS):
        optimizer.apply(params, _gradient(step), slots, step, _rate(step), DECAY)
    return _bits(params, slots)


def _bits(params: Vector, slots: Slots) -> bytes:
    return params.tobytes() + b"".join(slots[name].tobytes() for name in sorted(slots))
