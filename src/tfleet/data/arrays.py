"""Arrays in memory or memory-mapped: an item is a row."""

from __future__ import annotations

from typing import Any

import numpy as np

from tfleet.data.source import Batch, Indices, Source, Tree
from tfleet.data.tree import Array, convert, map_tree, numbers, rows
from tfleet.spec.arrays import aligned
from tfleet.spec.errors import WrongInput


class ArraySource(Source):
    """Rows of NumPy arrays.

    Floats become float32 once, at the start; those of a memory-mapped file when they are read, so that the file is
    never loaded whole.

    Args:
        data: (x,), (x, y) or (x, y, sample_weight); each a tree of arrays [N, ...] (y and sample_weight may be None).
        what: whose they are, for messages.

    Raises:
        WrongInput: when a leaf is no array of numbers, lengths differ, or there is no row.
    """

    def __init__(self, data: tuple[Any, ...], what: str = "train") -> None:
        x, y, weight = convert(data, what, _prepare)
        self._rows = rows((x, y, weight), what)
        if not self._rows:
            raise WrongInput(f"the arrays of {what} are empty; give at least one sample")
        self._x, self._y, self._weight = x, y, weight

    def __len__(self) -> int:
        """Returns the number of rows."""
        return self._rows

    def batch(self, indices: Indices) -> Batch:
        """Copies rows out; see `Source.batch`."""
        return Batch(_take(self._x, indices), _take(self._y, indices), _take(self._weight, indices), len(indices))


def _take(tree: Tree, indices: Indices) -> Tree:
    if isinstance(tree, np.ndarray):
        return _take_rows("", tree, indices)
    return map_tree(lambda name, array: _take_rows(name, array, indices), tree)


def _take_rows(name: str, array: Array, indices: Indices) -> Array:
    # ndarray.take is measured faster than array[indices] for batches of small rows (1.0 against 1.7 us).
    chosen = array.take(indices, axis=0, out=aligned((len(indices), *array.shape[1:]), array.dtype), mode="clip")
    return numbers(name, chosen) if chosen.dtype.kind == "f" and chosen.dtype != np.float32 else chosen


def _prepare(name: str, leaf: Any) -> Array:
    if not isinstance(leaf, np.ndarray):
        raise WrongInput(f"{name} is a {type(leaf).__name__}, but a NumPy array is needed; convert it with np.asarray")
    if not _mapped(leaf):
        return np.ascontiguousarray(numbers(name, leaf)) if leaf.ndim else numbers(name, leaf)
    numbers(name, leaf[:0])
    return leaf.view(np.ndarray)


def _mapped(array: Any) -> bool:
    while array is not None:
        if isinstance(array, np.memmap):
            return True
        array = getattr(array, "base", None)
    return False
