"""What training reads from: samples or batches that have addresses, so that a ledger can give each out exactly once."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Tree = Any
"""An array, a tuple or list of trees, a dict of trees, or None. Leaves are bool, integer or float32 arrays [N, ...]."""

Indices = NDArray[np.int64]


class Batch(NamedTuple):
    """Some samples.

    Attributes:
        x: inputs, a tree of arrays [size, ...].
        y: targets, a tree of arrays [size, ...], or None.
        sample_weight: weights, a tree of arrays [size, ...], or None.
        size: number of samples.
    """

    x: Tree
    y: Tree
    sample_weight: Tree
    size: int


class Source(ABC):
    """Data whose items have addresses 0 .. len - 1.

    An item is one ledger item: an array row, a record of a file, or one whole batch of a `keras.utils.PyDataset`.
    Sources are read-only: reading changes neither the source nor what the user gave.

    Attributes:
        items_are_batches: whether one item is a batch of the dataset's own size rather than one sample.
    """

    items_are_batches: bool = False

    @abstractmethod
    def __len__(self) -> int:
        """Returns the number of ledger items."""

    @abstractmethod
    def batch(self, indices: Indices) -> Batch:
        """Reads items; may block on a disk, may be called from several threads at once.

        Args:
            indices: int64 [K], each in 0 .. len - 1; at least one.

        Returns:
            The items in the given order, as one batch; its arrays belong to the caller. `size` is K, or the number
            of samples in the K items when items are batches.

        Raises:
            WrongInput: when the data turn out to be unusable: damaged file, failing parse function, unequal shapes.
        """
