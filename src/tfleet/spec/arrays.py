"""Types of arrays, and arrays that TensorFlow takes without a copy."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

ALIGNMENT = 64
"""Bytes that TensorFlow's kernels want memory aligned to, whatever vectors they use; they end the process if not."""

Float32s = np.ndarray[Any, np.dtype[np.float32]]
"""A vector, float32 [n]."""
Ids = np.ndarray[Any, np.dtype[np.int64]]
"""Rows of a table, int64 [n], ascending, each once."""
Matrix = np.ndarray[Any, np.dtype[np.float32]]
"""Rows themselves, or their gradients, float32 [n, width]."""


def aligned(
    shape: tuple[int, ...], dtype: Any = np.float32, allocate: Callable[[int, Any], np.ndarray[Any, Any]] = np.empty
) -> np.ndarray[Any, Any]:
    """Returns an array at an address divisible by `ALIGNMENT`.

    Args:
        shape: of the array.
        dtype: of its elements.
        allocate: `np.empty` or `np.zeros`.
    """
    size = math.prod(shape) * np.dtype(dtype).itemsize
    spare = allocate(size + ALIGNMENT, np.uint8)
    offset = -spare.ctypes.data % ALIGNMENT
    array: np.ndarray[Any, Any] = spare[offset : offset + size].view(dtype).reshape(shape)
    return array
