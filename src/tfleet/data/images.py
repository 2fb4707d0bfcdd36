"""What the readers of labelled images give."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray


class LabelledImages(NamedTuple):
    """Grey images with classes, for training and held out.

    Attributes:
        x_train: uint8 [N, 28, 28], 0..255.
        y_train: int64 [N], 0..9.
        x_test: uint8 [M, 28, 28].
        y_test: int64 [M].
    """

    x_train: NDArray[np.uint8]
    y_train: NDArray[np.int64]
    x_test: NDArray[np.uint8]
    y_test: NDArray[np.int64]

    def as_inputs(self) -> dict[str, tuple[Any, Any]]:
        """Returns `train` and `test` as (x float32 [N, 28, 28, 1] in 0..1, y int64 [N])."""

        def scaled(images: NDArray[np.uint8]) -> NDArray[np.float32]:
            return np.divide(images[..., None], np.float32(255), dtype=np.float32)

        return {"train": (scaled(self.x_train), self.y_train), "test": (scaled(self.x_test), self.y_test)}
