"""The states of a model's seed generators, made from the batch."""

from __future__ import annotations

import numpy as np


def seed_states(seed: int, epoch: int, index: int, generators: int) -> np.ndarray:
    """Returns the states of all seed generators of a model for one batch.

    They depend on nothing else than the arguments, so that a dropout mask is the same whichever worker computes the
    batch, and however often it is computed. NumPy's SeedSequence (O'Neill's `seed_seq`) mixes them.

    Args:
        seed: seed of the job.
        epoch: number of the epoch, from 0.
        index: number of the batch within the epoch, from 0.
        generators: how many seed generators the model has.

    Returns:
        int64 [generators, 2], each below 2**31 - 2, the range that Keras reduces a state to.
    """
    words = np.random.SeedSequence((seed, epoch, index)).generate_state(2 * generators)
    return (words.astype(np.int64) % (2**31 - 2)).reshape(generators, 2)
