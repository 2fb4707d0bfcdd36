"""Seed states depend on seed, epoch, batch and generator, and nothing else."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from tfleet.worker.seeds import seed_states

numbers = st.integers(0, 2**31 - 1)


@given(numbers, numbers, numbers, st.integers(1, 5))
def test_in_range_and_repeatable(seed, epoch, index, generators):
    states = seed_states(seed, epoch, index, generators)
    assert states.shape == (generators, 2)
    assert states.dtype == np.int64
    assert 0 <= states.min() <= states.max() < 2**31 - 2
    assert np.array_equal(states, seed_states(seed, epoch, index, generators))


def test_all_different():
    batches = [(seed, epoch, index) for seed in range(5) for epoch in range(5) for index in range(40)]
    states = [tuple(row) for batch in batches for row in seed_states(*batch, 3)]
    assert len(set(states)) == 3000


def test_the_same_on_every_machine():
    assert seed_states(0, 1, 2, 2).tolist() == seed_states(0, 1, 2, 4)[:2].tolist()
