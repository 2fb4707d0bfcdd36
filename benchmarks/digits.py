"""The bundled digits as a file that the peers read, so that all train on the same samples."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from tfleet.data.digits import load_digits


def write_digits(path: Path) -> Path:
    """Writes the training digits: x [N, 784] float32 in 0..1, y [N] int64; returns the path."""
    digits = load_digits()
    images = digits.x_train.reshape(len(digits.x_train), -1).astype(np.float32)
    np.savez(path, x=images / np.float32(255), y=digits.y_train)
    return path
