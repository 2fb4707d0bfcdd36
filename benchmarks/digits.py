"""The bundled digits as a file that the peers read, so that all train on the same samples."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from tfleet.data.digits import load_digits


def write_digits(path: Path) -> Path:
    """Writes the digits: x [N, 784] float32 in 0..1, y [N] int64, and the held-out x_test, y_test; returns the path."""
    digits = load_digits()

    def pixels(images: np.ndarray) -> np.ndarray:
        return images.reshape(len(images), -1).astype(np.float32) / np.float32(255)

    np.savez(path, x=pixels(digits.x_train), y=digits.y_train, x_test=pixels(digits.x_test), y_test=digits.y_test)
    return path
