"""Refuses, by name, what a compiled Keras model asks for and training here cannot carry."""

from __future__ import annotations

import re
from typing import Any

import keras

from tfleet.spec.errors import WrongInput

_AROUND = re.compile(r"Exception encountered when|in user code:|Graph execution error:|Detected at node|File \"")
"""Starts of lines that stand before what an error says."""

_OWN_LOOPS = ("train_step", "make_train_function", "fit")


def check_model(model: Any) -> keras.Model:
    """Returns `model` when it is one that can be trained here; looks at no variable, so it may be unbuilt.

    Overridden `call`, `compute_loss`, `compute_metrics` and `test_step` are honoured. The optimizer is looked at by
    `optimizer_config.describe`.

    Raises:
        WrongInput: for something else than a compiled `keras.Model`, or one with a training loop of its own,
            `run_eagerly`, `steps_per_execution`, or a recurrent layer that keeps its state between batches.
    """
    if not isinstance(model, keras.Model):
        raise WrongInput(
            f"the task's model is {_what(model)}, but it must be a compiled keras.Model; return that from the function "
            "that builds it"
        )
    kind = type(model).__name__
    if not model.compiled:
        raise WrongInput(
            f"the model {model.name} ({kind}) is not compiled; "
            "call model.compile(optimizer=..., loss=..., metrics=[...]) before it is returned"
        )
    for method in _OWN_LOOPS:
        if getattr(getattr(model, method), "__func__", None) is not getattr(keras.Model, method):
            raise WrongInput(
                f"the model {model.name} ({kind}) has a {method} of its own, which cannot be carried; "
                "move what it does into call, compute_loss or compute_metrics, which are honoured"
            )
    if model.run_eagerly:
        raise WrongInput(
            f"the model {model.name} is compiled with run_eagerly=True, but training is always compiled; leave it out"
        )
    if model.steps_per_execution != 1:
        raise WrongInput(
            f"the model {model.name} is compiled with steps_per_execution={model.steps_per_execution}, but every step "
            "is executed by itself; leave it out"
        )
    for layer in layers(model):
        if getattr(layer, "stateful", False):
            raise WrongInput(
                f"the layer {layer.name} ({type(layer).__name__}) has stateful=True, but batches go to any worker in "
                "any order, so nothing can be kept from one to the next; use stateful=False"
            )
    return model


def layers(model: keras.Model) -> list[Any]:
    """Returns all layers in `model` at any depth, those in layers of one's own too, each once."""
    found: list[Any] = model._flatten_layers(include_self=False)
    return found


def in_short(error: BaseException) -> str:
    """Returns what an error of Keras, TensorFlow or a user's own code says, on one line and not long."""
    text = re.sub(r"\x1b\[[0-9;]*m|\{\{.*?\}\}", "", str(error))
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    said = [line for line in lines if not _AROUND.match(line)]
    words = (said or lines or ["no message"])[0]
    words = re.sub(r"\s*\[Op:\w+\](\s*name:.*)?$", "", words)
    return f"{type(error).__name__}: {words[:300]}".rstrip(". ")


def _what(value: Any) -> str:
    return "nothing (None)" if value is None else f"of type {type(value).__name__}"
