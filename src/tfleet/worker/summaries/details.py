"""Histograms and images of a model for TensorBoard: what happens inside it at one step."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from tfleet.spec.arrays import Ids
from tfleet.worker.summaries.events import EventWriter, Value
from tfleet.worker.summaries.images import image_shape, kernel_images, sample_images

BUCKETS = 30
"""Buckets of a histogram, as many as `tf.summary.histogram` makes."""

MOST_VALUES = 1_000_000
"""Numbers that a histogram looks at; of a larger array, evenly spaced ones."""

_LOG = logging.getLogger(__name__)


class Details:
    """Writes histograms of weights, biases, gradients and activations, and images of inputs and first-layer weights.

    Tags are `weights/<layer>/<variable>`, `biases/...`, `gradients/...`, `activations/<layer>`, `inputs/<name>` and
    `first_layer/<layer>/<variable>`. Activations are the outputs of the model's own layers that have weights, in
    inference; a subclassed model does not tell them, which is logged once. One thread may use it.
    """

    def __init__(self, folder: Path, model: keras.Model) -> None:
        """Prepares to write about `model`; nothing is created before the first write.

        Args:
            folder: where the event file goes, such as `details_folder(run.summaries)`.
            model: a built model.
        """
        self._events = EventWriter(folder)
        self._model = model
        self._tags = _variable_tags(model)
        self._activations = _activation_model(model)

    def write(self, step: int, x: Any, gradients: Iterable[tuple[Ids | None, NDArray[np.float32]]]) -> None:
        """Writes everything about one step as one record; takes some milliseconds and more for large models.

        The model's variables are read as they are: assign the parameters of the step before.

        Args:
            step: the global step.
            x: the inputs of one batch, NumPy arrays in the structure that the model takes.
            gradients: for each of `model.trainable_variables` which rows are shown (None: all), and their gradient.

        Raises:
            JobFailed: when the file cannot be written.
        """
        values = [*self._variables(gradients), *self._outputs(x), *self._images(x)]
        self._events.write(step, values)

    def purge(self, step: int) -> None:
        """Tells TensorBoard to forget `step` and what came after, as a rollback or a resume will write it again."""
        self._events.purge(step)

    def flush(self) -> None:
        """Writes what was queued to the file."""
        self._events.flush()

    def close(self) -> None:
        """Flushes and closes the file; may be called again."""
        self._events.close()

    def _variables(self, gradients: Iterable[tuple[Ids | None, NDArray[np.float32]]]) -> Iterator[Any]:
        for variable, tag, (rows, gradient) in zip(self._model.trainable_variables, self._tags, gradients, strict=True):
            shown = variable if rows is None else tf.gather(variable.value, rows)
            group = "biases" if variable.name == "bias" else "weights"
            yield from histogram(f"{group}/{tag}", keras.ops.convert_to_numpy(shown))
            yield from histogram(f"gradients/{tag}", gradient)

    def _outputs(self, x: Any) -> Iterator[Any]:
        if self._activations is None:
            return
        for name, output in self._activations(x, training=False).items():
            yield from histogram(f"activations/{name}", keras.ops.convert_to_numpy(output))

    def _images(self, x: Any) -> Iterator[Any]:
        inputs = {path: np.asarray(array) for path, array in _named(x, "input").items()}
        first, features = None, 0
        variables = self._model.trainable_variables
        if variables and np.prod(variables[0].shape) <= MOST_VALUES:
            first = keras.ops.convert_to_numpy(variables[0])
            features = first.shape[0] if first.ndim == 2 else 0
        for name, array in inputs.items():
            shape = image_shape(array.shape[1:]) or (image_shape(array.shape[1:], features) if features else None)
            if shape:
                yield image(f"inputs/{name}", sample_images(array, shape))
        tiles = None if first is None else kernel_images(first, [a.shape[1:] for a in inputs.values()])
        if tiles is not None:
            yield image(f"first_layer/{self._tags[0]}", tiles)


def histogram(tag: str, numbers: NDArray[np.generic]) -> Iterator[Any]:
    """Yields one Summary.Value with the histogram of `numbers`.

    NaN and infinities are left out; nothing is yielded when no number remains.

    Args:
        tag: its name in TensorBoard.
        numbers: any shape, any real dtype.
    """
    flat = np.ravel(numbers)
    flat = flat[:: -(-flat.size // MOST_VALUES)] if flat.size > MOST_VALUES else flat
    flat = flat.astype(np.float64)
    flat = flat[np.isfinite(flat)]
    if not flat.size:
        return
    low, high = float(flat.min()), float(flat.max())
    # NumPy would spread equal numbers over buckets that begin below `min`, which readers take for the first left edge.
    counts, edges = np.histogram(flat, BUCKETS) if low < high else (np.array([flat.size]), np.array([low, high]))
    value = Value(tag=tag)
    histo = value.histo
    histo.min, histo.max, histo.num = low, high, float(flat.size)
    histo.sum, histo.sum_squares = float(flat.sum()), float(flat @ flat)
    histo.bucket_limit.extend(edges[1:].tolist())
    histo.bucket.extend(counts.tolist())
    yield value


def image(tag: str, pixels: NDArray[np.uint8]) -> Any:
    """Returns a Summary.Value with `pixels`, uint8 [height, width, 1, 3 or 4], as PNG."""
    value = Value(tag=tag)
    value.image.height, value.image.width, value.image.colorspace = pixels.shape
    value.image.encoded_image_string = tf.io.encode_png(pixels).numpy()
    return value


def _variable_tags(model: keras.Model) -> list[str]:
    # A Sequential or subclassed model puts its own name first, which is of no use in a tag; a functional one does not.
    tags: list[str] = []
    for variable in model.trainable_variables:
        tags.append(_unique(str(variable.path).removeprefix(f"{model.name}/"), tags))
    return tags


def _unique(tag: str, taken: Any) -> str:
    name, number = tag, 1
    while name in taken:
        name, number = f"{tag}_{number}", number + 1
    return name


def _named(structure: Any, default: str) -> dict[str, Any]:
    """Returns the leaves of a nest by a name made of the keys that lead to them; `default` for a single leaf."""
    names: dict[str, Any] = {}
    for path, leaf in keras.tree.flatten_with_path(structure):
        if leaf is not None:
            names["/".join(str(part) for part in path) or default] = leaf
    return names


def _activation_model(model: keras.Model) -> keras.Model | None:
    outputs: dict[str, Any] = {}
    try:
        source = model.inputs[0] if isinstance(model, keras.Sequential) else model.input
        for layer in model.layers:
            if layer.weights:
                for path, tensor in _named(layer.output, "").items():
                    outputs[_unique(f"{layer.name}/{path}".rstrip("/"), outputs)] = tensor
        return keras.Model(source, outputs, name="activations") if outputs else None
    except (AttributeError, ValueError) as error:
        reason = str(error).split("\n", 1)[0]
        _LOG.warning("no activation histograms: the model %s does not tell its layers' outputs: %s", model.name, reason)
        return None
