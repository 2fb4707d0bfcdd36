"""The signatures that an export has when its task defines none."""

from __future__ import annotations

import inspect
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tfleet.spec.errors import WrongInput


def default_signatures(model: keras.Model, example: Any = None) -> dict[str, Any]:
    """Returns `serving_default` and `predict`: the model's inputs by name to its outputs by name, in inference.

    Names are the keys where the model takes or returns a dict; else the names of the model's Input tensors and output
    layers, where it has them; else `inputs` or `input_0`, `input_1`, ... and `outputs` or `output_0`, `output_1`, ...
    The batch dimension is free.

    Args:
        model: a built model.
        example: inputs of some batch (arrays, in the structure that the model takes); only a subclassed model, which
            knows no shapes, needs it.

    Raises:
        WrongInput: when a subclassed model comes without `example`.
    """
    structure, specs = _functional_inputs(model) or _example_inputs(model, example)
    keywords = {"training": False} if _takes_training(model) else {}

    def predict(**inputs: Any) -> dict[str, Any]:
        x = keras.tree.pack_sequence_as(structure, [inputs[name] for name in specs])
        return _outputs(model, model(x, **keywords))

    function = tf.function(predict, autograph=False)
    function.get_concrete_function(**specs)
    return {"serving_default": function, "predict": function}


def _functional_inputs(model: keras.Model) -> tuple[Any, dict[str, tf.TensorSpec]] | None:
    tensors = getattr(model, "inputs", None)
    if not tensors:
        return None
    structure = tensors[0] if isinstance(model, keras.Sequential) else model.input
    specs = {}
    for path, tensor in keras.tree.flatten_with_path(structure):
        name = _key(path) or tensor.name
        specs[name] = tf.TensorSpec((None, *tensor.shape[1:]), tensor.dtype, name=name)
    return structure, specs


def _example_inputs(model: keras.Model, example: Any) -> tuple[Any, dict[str, tf.TensorSpec]]:
    if example is None:
        raise WrongInput(
            f"the model {model.name} does not tell its inputs, as it is subclassed; give the task signatures of its own"
        )
    leaves = keras.tree.flatten_with_path(example)
    specs = {}
    for i, (path, leaf) in enumerate(leaves):
        array = np.asarray(leaf)
        name = _key(path) or ("inputs" if len(leaves) == 1 else f"input_{i}")
        dtype = keras.config.floatx() if array.dtype.kind == "f" else array.dtype
        specs[name] = tf.TensorSpec((None, *array.shape[1:]), dtype, name=name)
    return example, specs


def _outputs(model: keras.Model, y: Any) -> dict[str, Any]:
    leaves = keras.tree.flatten_with_path(y)
    known = getattr(model, "output_names", None) or []
    if len(known) != len(leaves):
        known = ["outputs"] if len(leaves) == 1 else [f"output_{i}" for i in range(len(leaves))]
    return {_key(path) or name: leaf for (path, leaf), name in zip(leaves, known, strict=True)}


def _key(path: tuple[Any, ...]) -> str:
    return "_".join(str(part) for part in path) if any(isinstance(part, str) for part in path) else ""


def _takes_training(model: keras.Model) -> bool:
    parameters = inspect.signature(model.call).parameters
    return "training" in parameters or any(p.kind is p.VAR_KEYWORD for p in parameters.values())
