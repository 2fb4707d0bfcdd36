"""How the arrays of a batch become the tensors of one compiled function."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tfleet.data.source import Batch
from tfleet.spec.errors import WrongInput

Shape = tuple[int | None, ...]


class Signature:
    """The structure, dtypes and shapes that the batches of a job have, taken from an example of the full size.

    Dtypes are those of `fit`: floating-point numbers of other widths become float32, everything else stays (the model
    casts its inputs, the loss its targets). A function has one dtype for each array; a later batch is cast only where
    that loses nothing.
    """

    def __init__(self, example: Batch) -> None:
        parts = (example.x, example.y, example.sample_weight)
        arrays = [_standard(leaf) for leaf in keras.tree.flatten(parts) if leaf is not None]
        if not arrays or any(a.ndim == 0 or len(a) != example.size for a in arrays):
            raise WrongInput(
                f"a batch of {example.size} samples has arrays of shapes {[list(a.shape) for a in arrays]}; "
                "the first axis of each must be the samples"
            )
        self.full_shapes: list[tuple[int, ...]] = [a.shape for a in arrays]
        """Shapes of a full batch."""
        self.relaxed_shapes: list[Shape] = [(None, *a.shape[1:]) for a in arrays]
        """Shapes of every batch so far; None where they differ, and for the number of samples."""
        self._structure = _skeleton(parts)
        self._numpy_dtypes = [a.dtype for a in arrays]
        self._dtypes = [_tensor_dtype(a) for a in arrays]

    def arrays(self, batch: Batch) -> list[np.ndarray]:
        """Returns the arrays of `batch` in the order of the function's arguments, with the dtypes of the example.

        Raises:
            WrongInput: when the structure differs from that of the example, or a dtype that cannot be cast.
        """
        parts = (batch.x, batch.y, batch.sample_weight)
        # Without a tree of arrays there is no need of Keras's slow functions on trees.
        plain = all(type(part) is np.ndarray or part is None for part in parts)
        skeleton = tuple([part is not None for part in parts]) if plain else _skeleton(parts)
        if skeleton != self._structure:
            raise WrongInput(
                f"a batch has the structure {skeleton} (inputs, targets, weights), but the first had "
                f"{self._structure}; give all batches the same structure"
            )
        arrays = [leaf for leaf in (parts if plain else keras.tree.flatten(parts)) if leaf is not None]
        return [
            a if type(a) is np.ndarray and a.dtype == dtype else _cast(a, dtype)
            for a, dtype in zip(arrays, self._numpy_dtypes, strict=True)
        ]

    def is_full(self, arrays: list[np.ndarray]) -> bool:
        """Tells whether `arrays` have exactly the shapes of the example."""
        return [a.shape for a in arrays] == self.full_shapes

    def relax(self, arrays: list[np.ndarray]) -> bool:
        """Makes `relaxed_shapes` admit `arrays`; tells whether they had to change, so that a new trace is needed.

        Raises:
            WrongInput: when an array has another number of axes than in the example.
        """
        relaxed = [_common(shape, a.shape) for shape, a in zip(self.relaxed_shapes, arrays, strict=True)]
        changed = relaxed != self.relaxed_shapes
        self.relaxed_shapes = relaxed
        return changed

    def specs(self, full: bool) -> list[tf.TensorSpec]:
        """Returns what a function over full batches, or over any batches so far, takes."""
        shapes = self.full_shapes if full else self.relaxed_shapes
        return [tf.TensorSpec(shape, dtype) for shape, dtype in zip(shapes, self._dtypes, strict=True)]

    def pack(self, tensors: list[Any]) -> tuple[Any, Any, Any]:
        """Returns x, y and sample_weight in the structure of the example, made of `tensors`."""
        rest = iter(tensors)
        return keras.tree.map_structure(lambda there: next(rest) if there else None, self._structure)  # type: ignore[no-any-return]


def describe(part: Any) -> str:
    """Returns shape and dtype of each array in `part`, for a message."""

    def one(leaf: Any) -> Any:
        return None if leaf is None else f"{list(leaf.shape)} {getattr(leaf.dtype, 'name', leaf.dtype)}"

    return str(keras.tree.map_structure(one, part)).replace("'", "")


def _skeleton(parts: Any) -> Any:
    return keras.tree.map_structure(lambda leaf: leaf is not None, parts)


def _standard(leaf: Any) -> np.ndarray:
    array = np.asarray(leaf)
    return array.astype(np.float32) if array.dtype.kind == "f" and array.dtype != np.float32 else array


def _tensor_dtype(array: np.ndarray) -> tf.DType:
    if array.dtype.kind in "USO":
        return tf.string
    try:
        return tf.as_dtype(array.dtype)
    except TypeError:
        raise WrongInput(
            f"an array of the data has the dtype {array.dtype}, which TensorFlow does not have; give numbers, booleans "
            "or strings"
        ) from None


def _cast(leaf: Any, dtype: np.dtype[Any]) -> np.ndarray:
    array = _standard(leaf)
    if array.dtype == dtype or (array.dtype.kind in "USO" and dtype.kind in "USO"):
        return array
    if not np.can_cast(array.dtype, dtype, "safe"):
        raise WrongInput(
            f"a batch has an array of dtype {array.dtype}, but in the first it was {dtype}; give all batches one dtype"
        )
    return array.astype(dtype)


def _common(shape: Shape, given: tuple[int, ...]) -> Shape:
    if len(shape) != len(given):
        raise WrongInput(
            f"a batch has an array of shape {list(given)}, but before it was {list(shape)}; "
            "give all batches the same number of axes"
        )
    return tuple(old if old == new else None for old, new in zip(shape, given, strict=True))
