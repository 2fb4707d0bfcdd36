"""The whole of MNIST or Fashion-MNIST from a folder: idx files, gzipped or not, or Keras's mnist.npz.

The idx format (http://yann.lecun.com/exdb/mnist): a big-endian uint32 magic number 0x00000800 + number of dimensions
for bytes, a uint32 for each dimension, then the bytes.
"""

from __future__ import annotations

import gzip
import math
import struct
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tfleet.data.images import LabelledImages
from tfleet.spec.errors import WrongInput

_IMAGES, _LABELS = 3, 1
_UBYTE_MAGIC = 0x00000800
_AGAIN = "download or copy it again"


def load_mnist(folder: str | Path) -> LabelledImages:
    """Reads MNIST or a data set of the same form.

    Args:
        folder: holds mnist.npz (x_train, y_train, x_test, y_test), or the four idx files as they are published
            (train-images-idx3-ubyte, train-labels-idx1-ubyte, t10k-..., or train-images.idx3-ubyte ...), each with
            or without .gz.

    Raises:
        WrongInput: when the folder or a file is missing, a file is truncated or not of its kind, images are not
            28 x 28, labels not 0..9, or the numbers of images and labels differ.
    """
    folder = Path(folder).expanduser()
    if not folder.is_dir():
        raise WrongInput(f"the data folder {folder} does not exist; give the folder of the MNIST files to --data-dir")
    archive = folder / "mnist.npz"
    parts = _read_npz(archive) if archive.is_file() else _read_idx_files(folder)
    for what, x, y in (("training", parts[0], parts[1]), ("test", parts[2], parts[3])):
        _check(folder, what, x, y)
    return LabelledImages(parts[0], parts[1].astype(np.int64), parts[2], parts[3].astype(np.int64))


def _check(folder: Path, what: str, images: NDArray[Any], labels: NDArray[Any]) -> None:
    if images.ndim != 3 or images.shape[1:] != (28, 28) or images.dtype != np.uint8:
        raise WrongInput(
            f"the {what} images in {folder} are {images.dtype} {list(images.shape)}, but uint8 [N, 28, 28] is needed; "
            "give MNIST or a data set of the same form"
        )
    if labels.ndim != 1 or labels.dtype.kind not in "iu" or len(images) != len(labels):
        raise WrongInput(
            f"{folder} holds {len(images)} {what} images, but {labels.dtype} {list(labels.shape)} labels; "
            "give images and labels that belong together"
        )
    if not len(images):
        raise WrongInput(f"{folder} holds no {what} images; give at least one")
    if labels.min() < 0 or labels.max() > 9:
        raise WrongInput(
            f"the {what} labels in {folder} go from {labels.min()} to {labels.max()}, but 0 to 9 is needed; "
            "give MNIST or a data set of the same form"
        )


def _read_idx_files(folder: Path) -> list[NDArray[Any]]:
    return [
        _read_idx(_find(folder, f"{part}-{kind}", dimensions), dimensions)
        for part in ("train", "t10k")
        for kind, dimensions in (("images", _IMAGES), ("labels", _LABELS))
    ]


def _find(folder: Path, stem: str, dimensions: int) -> Path:
    names = [f"{stem}{separator}idx{dimensions}-ubyte{end}" for end in ("", ".gz") for separator in "-."]
    for name in names:
        if (folder / name).is_file():
            return folder / name
    raise WrongInput(
        f"{folder} has neither mnist.npz nor {names[0]} (or {', '.join(names[1:])}); "
        "give the folder of the MNIST files to --data-dir"
    )


def _read_idx(path: Path, dimensions: int) -> NDArray[np.uint8]:
    try:
        data = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    except EOFError:
        raise WrongInput(f"{path} is truncated: its gzip stream does not end; {_AGAIN}") from None
    except (gzip.BadGzipFile, zlib.error) as error:
        raise WrongInput(f"{path} is not a sound gzip file ({error}); {_AGAIN}") from None
    except OSError as error:
        raise WrongInput(f"{path} cannot be read: {error.strerror}; make it readable") from None
    header = 4 + 4 * dimensions
    expected = struct.pack(">I", _UBYTE_MAGIC + dimensions)
    if data[:4] != expected[: len(data)]:
        raise WrongInput(
            f"{path} has the magic number 0x{data[:4].hex()}, but 0x{expected.hex()} is needed; "
            "give the file of that name"
        )
    if len(data) < header:
        raise WrongInput(f"{path} is truncated: it has {len(data)} bytes, less than its header; {_AGAIN}")
    shape = struct.unpack_from(f">{dimensions}I", data, 4)
    needed = header + math.prod(shape)
    if len(data) != needed:
        wrong = "is truncated" if len(data) < needed else "is too long"
        raise WrongInput(f"{path} {wrong}: {len(data)} bytes instead of {needed} for {list(shape)}; {_AGAIN}")
    return np.frombuffer(data, np.uint8, offset=header).reshape(shape)


def _read_npz(path: Path) -> list[NDArray[Any]]:
    try:
        with np.load(path) as stored:
            missing = [name for name in LabelledImages._fields if name not in stored]
            if missing:
                raise WrongInput(f"{path} has no array {missing[0]}; give Keras's mnist.npz")
            return [stored[name] for name in LabelledImages._fields]
    except (ValueError, EOFError, KeyError, OSError, zipfile.BadZipFile, zlib.error) as error:
        detail = " ".join(str(error).split())
        raise WrongInput(f"{path} is damaged or truncated ({detail}); {_AGAIN}") from None
