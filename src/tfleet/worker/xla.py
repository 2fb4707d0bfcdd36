"""Whether the gradient function is compiled with XLA: a fixed rule on model, batch and device, never a timing."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Iterator
from typing import Any, Literal

import keras

from tfleet.spec.errors import WrongInput

Choice = Literal["auto", "always", "never"]

GREATEST_WORK = 8_000_000
"""Parameters times samples in a batch up to which `auto` chooses XLA.

XLA fuses the many small operations of a step into a few kernels, which pays while their overhead is most of the time;
its matrix products are slower than Eigen's, which decides as they grow. Measured with TensorFlow 2.21 on one thread
(microseconds a step, XLA against graph): dense 784-100-10 with batch 20 (1.6e6) 225 against 313; dense 784-1000-10 with
batch 20 (1.6e7) 1246 against 901. Convolutions are never compiled: a small CNN with batch 50 took 17.6 against 5.4 ms.
"""

_DENSE = """
InputLayer Identity Dense Activation ReLU LeakyReLU PReLU ELU Softmax
Dropout AlphaDropout GaussianDropout GaussianNoise SpatialDropout1D SpatialDropout2D ActivityRegularization
BatchNormalization LayerNormalization RMSNormalization UnitNormalization Normalization Rescaling
Flatten Reshape Permute RepeatVector Add Subtract Multiply Average Maximum Minimum Concatenate Dot
"""
DENSE_KIND = frozenset(_DENSE.split())
"""Layers of Keras that are matrix products and element-wise operations, for which the rule was measured."""

_CONTAINERS = frozenset({"Functional", "Sequential"})
_GIVEN = "_tfleet_jit_compile"


def remember_jit_compile() -> None:
    """Makes every later `compile` keep the `jit_compile` that it was given; more calls change nothing.

    Keras replaces "auto" by False on a machine without accelerator and keeps nothing that tells it from a False that
    the user wrote, which is to be obeyed. So `compile` of Keras's own base class is wrapped.
    """
    owner = next(c for c in keras.Model.__mro__ if "compile" in vars(c))
    original = vars(owner)["compile"]
    if hasattr(original, _GIVEN):
        return
    signature = inspect.signature(original)

    @functools.wraps(original)
    def compile(self: Any, *args: Any, **kwargs: Any) -> Any:
        result = original(self, *args, **kwargs)
        setattr(self, _GIVEN, signature.bind(self, *args, **kwargs).arguments.get("jit_compile", "auto"))
        return result

    setattr(compile, _GIVEN, True)
    owner.compile = compile


def given_jit_compile(model: keras.Model) -> bool | None:
    """Returns the `jit_compile` that `model` was compiled with; None for "auto".

    A model compiled before `remember_jit_compile` gives True or None: its False may have been "auto".
    """
    given = getattr(model, _GIVEN, model.jit_compile or "auto")
    return None if given in ("auto", None) else bool(given)


def decide(model: keras.Model, choice: Choice, parameters: int, batch_size: int, accelerator: bool) -> bool:
    """Decides whether the gradient function of `model` is compiled with XLA.

    `jit_compile` of the model's `compile` is obeyed; else the job's `always` and `never`; else, for `auto`: XLA on a
    CPU when all layers are of the dense kind and `parameters` * `batch_size` is at most `GREATEST_WORK`. On an
    accelerator `auto` is never XLA, as nothing was measured there.

    Args:
        model: compiled and built.
        choice: `xla` of the job.
        parameters: trainable parameters.
        batch_size: samples in a full batch.
        accelerator: whether it runs on something else than a CPU.

    Raises:
        WrongInput: when the job and `compile` contradict each other.
    """
    given = given_jit_compile(model)
    if given is not None:
        if choice != "auto" and (choice == "always") != given:
            raise WrongInput(
                f"xla={choice} is given, but the model is compiled with jit_compile={given}; "
                "leave out one of the two, or make them agree"
            )
        return given
    if choice != "auto":
        return choice == "always"
    return not accelerator and parameters * batch_size <= GREATEST_WORK and dense_kind(model)


def dense_kind(model: keras.Model) -> bool:
    """Tells whether all that `model` computes are Keras's own layers in `DENSE_KIND`; a layer of one's own is not."""
    return all(_own(part) and type(part).__name__ in DENSE_KIND for part in _parts(model))


def _own(part: Any) -> bool:
    # Operations on tensors have names of layers too: `a * b` is a Multiply.
    return isinstance(part, keras.Layer) and type(part).__module__.startswith("keras.")


def _parts(model: Any) -> Iterator[Any]:
    """Yields all layers, and all operations on tensors between them, without the containers."""
    if not _own(model) or type(model).__name__ not in _CONTAINERS:
        yield model
        return
    for part in getattr(model, "operations", model.layers):
        yield from _parts(part)
