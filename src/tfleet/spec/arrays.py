"""Types of the arrays that rows of tables travel in."""

from __future__ import annotations

from typing import Any

import numpy as np

Ids = np.ndarray[Any, np.dtype[np.int64]]
"""Rows of a table, int64 [n], ascending, each once."""
Matrix = np.ndarray[Any, np.dtype[np.float32]]
"""Rows themselves, or their gradients, float32 [n, width]."""
