"""Pictures for TensorBoard: many small images as tiles of one, samples of a batch, kernels of a first layer.

NumPy only; pixels come out as uint8.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

MOST_TILES = 100
"""Tiles in one picture at most."""

SMALLEST_TILE = 24
"""Pixels: a tile whose longer side is smaller is enlarged by whole pixels."""

SMALLEST_FLAT_IMAGE = 64
"""Features: a flat input of at least that many, and a square number of them, is taken for a square image."""

CHANNELS = (1, 3, 4)
"""Channels that a picture can have: grey, RGB, RGBA."""


def tile(images: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Puts images beside each other in a grid as square as possible, one black pixel between them.

    Args:
        images: uint8 [n, height, width, channels], n >= 1; the first `MOST_TILES` are shown.

    Returns:
        uint8 [rows * (height * k + 1) - 1, columns * (width * k + 1) - 1, channels], where k is the whole number by
        which small images are enlarged.
    """
    images = images[:MOST_TILES]
    k = max(1, SMALLEST_TILE // max(images.shape[1:3]))
    images = images.repeat(k, axis=1).repeat(k, axis=2)
    n, height, width, channels = images.shape
    columns = math.ceil(math.sqrt(n))
    rows = math.ceil(n / columns)
    cells = np.zeros((rows * columns, height + 1, width + 1, channels), np.uint8)
    cells[:n, :height, :width] = images
    grid = cells.reshape(rows, columns, height + 1, width + 1, channels).transpose(0, 2, 1, 3, 4)
    whole: NDArray[np.uint8] = grid.reshape(rows * (height + 1), columns * (width + 1), channels)[:-1, :-1]
    return whole


def sample_images(array: NDArray[np.generic], shape: tuple[int, int, int]) -> NDArray[np.uint8]:
    """Returns samples of an input as one picture.

    Args:
        array: [n, ...], any numeric dtype, each sample of prod(shape) numbers.
        shape: height, width, channels of a sample; channels one of `CHANNELS`.

    Returns:
        uint8 [height, width, channels] of `tile`: uint8 as they are, floats in 0..1 times 255, others stretched
        from their least to their greatest number.
    """
    images = np.asarray(array)[:MOST_TILES].reshape(-1, *shape)
    return tile(images if images.dtype == np.uint8 else _pixels(images, stretch=False))


def kernel_images(kernel: NDArray[np.generic], inputs: Sequence[tuple[int, ...]]) -> NDArray[np.uint8] | None:
    """Returns the kernel of a model's first layer as one picture, a tile for each unit or filter.

    All tiles share one scale, from the least number of the kernel (black) to the greatest (white). Channels that no
    picture has (2, or more than 4) are averaged.

    Args:
        kernel: [height, width, channels, filters] of a convolution, or [features, units] of a dense layer.
        inputs: shapes of the model's inputs without the batch: a dense kernel has tiles when an input is an image
            with as many numbers as the kernel has rows.

    Returns:
        uint8 [height, width, channels], or None when the kernel cannot be shown.
    """
    if kernel.ndim == 4:
        images = kernel.transpose(3, 0, 1, 2)
    elif kernel.ndim == 2:
        shape = next((s for s in (image_shape(i, kernel.shape[0]) for i in inputs) if s), None)
        if shape is None:
            return None
        images = kernel.T.reshape(-1, *shape)
    else:
        return None
    if images.shape[3] not in CHANNELS:
        images = images.mean(axis=3, keepdims=True)
    return tile(_pixels(images[:MOST_TILES], stretch=True))


def image_shape(shape: tuple[int, ...], features: int = 0) -> tuple[int, int, int] | None:
    """Says how samples of `shape` (without the batch) are seen as images: (height, width, channels), or None.

    Args:
        shape: [height, width, channels] is an image. [height, width] and [height * height] may as well be
            a sequence or a table, so they count only when `features` says that a dense layer takes all of it.
        features: rows of the first layer's kernel; with them, only a shape with as many numbers is an image.
    """
    if features and math.prod(shape) != features:
        return None
    if len(shape) == 3 and shape[2] in CHANNELS:
        return shape[0], shape[1], shape[2]
    if features and len(shape) == 2:
        return shape[0], shape[1], 1
    side = math.isqrt(features)
    if len(shape) == 1 and features >= SMALLEST_FLAT_IMAGE and side * side == features:
        return side, side, 1
    return None


def _pixels(values: NDArray[np.generic], stretch: bool) -> NDArray[np.uint8]:
    numbers = np.nan_to_num(values.astype(np.float64), posinf=0.0, neginf=0.0)
    low, high = (float(numbers.min()), float(numbers.max())) if numbers.size else (0.0, 1.0)
    if stretch or low < 0 or high > 1:
        numbers = (numbers - low) / ((high - low) or 1.0)
    return np.rint(numbers * 255).astype(np.uint8)
