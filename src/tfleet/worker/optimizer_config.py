"""Reads the optimizer of a compiled Keras model: what the parameter servers apply, and what the worker does itself."""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from typing import Any

import keras
import tensorflow as tf

from tfleet.optimizers import OptimizerSpec, registry
from tfleet.spec.errors import WrongInput
from tfleet.worker.learning_rate import LearningRate

_READ = {"name", "kwargs", "weight_decay", "clipnorm", "clipvalue", "global_clipnorm"}
_WITHOUT_EFFECT = {"ema_momentum", "ema_overwrite_frequency"}
"""Options that do nothing without `use_ema`."""
_REFUSED = {
    "use_ema": "an average of the weights is not kept",
    "gradient_accumulation_steps": "every push is one update; use a larger batch, or strategy sync",
    "loss_scale_factor": "the loss is not scaled",
}


@dataclass(frozen=True)
class Clipping:
    """How gradients are clipped before they are pushed; at most one is not 0.

    Attributes:
        clipnorm: greatest norm of the gradient of one variable; 0: none.
        clipvalue: greatest absolute value of an element; 0: none.
        global_clipnorm: greatest norm of the whole gradient; 0: none.
    """

    clipnorm: float = 0.0
    clipvalue: float = 0.0
    global_clipnorm: float = 0.0

    def __bool__(self) -> bool:
        """Whether anything is clipped."""
        return bool(self.clipnorm or self.clipvalue or self.global_clipnorm)


@dataclass(frozen=True)
class DescribedOptimizer:
    """The optimizer of a model, in the parts that different processes carry out.

    Attributes:
        spec: what the parameter servers apply.
        decay: for each trainable variable, in order, whether weight decay applies to it.
        clipping: what the worker does to the gradient before it pushes.
        learning_rate: the learning rate of the update after so many updates, as the float32 value that Keras uses.
    """

    spec: OptimizerSpec
    decay: list[bool]
    clipping: Clipping
    learning_rate: LearningRate


def describe(model: keras.Model, override: float = 0.0) -> DescribedOptimizer:
    """Reads everything that the compiled optimizer of `model` would do, or refuses it by name.

    Args:
        model: compiled, with its variables made.
        override: learning rate of the job, in place of the compiled one; 0: none.

    Raises:
        WrongInput: when the model is not compiled, when the optimizer is not one of those that the parameter servers
            have (a subclass is another optimizer), or when it or a variable has an option that is not carried.
    """
    optimizer = getattr(model, "optimizer", None)
    if optimizer is None:
        raise WrongInput(f"the model has no optimizer; compile it with one: {_allowed()}")
    name = _name(optimizer)
    options = _options(optimizer)
    hyper = {key: _number(optimizer, options, key) for key in registry()[name].defaults}
    _refuse_options(optimizer, options, _READ | _WITHOUT_EFFECT | set(hyper))
    _refuse_variables(model)
    return DescribedOptimizer(
        spec=OptimizerSpec(name, hyper, _number_or_none(optimizer, options, "weight_decay")),
        decay=[bool(optimizer._use_weight_decay(variable.value)) for variable in model.trainable_variables],
        clipping=_clipping(optimizer, options),
        learning_rate=LearningRate(_rate(optimizer, override)),
    )


def clip(gradients: list[tf.Tensor], clipping: Clipping) -> list[tf.Tensor]:
    """Clips as the Keras optimizer would: one dense tensor for each trainable variable; works within `tf.function`."""
    if clipping.clipnorm:
        return [tf.clip_by_norm(g, clipping.clipnorm) for g in gradients]
    if clipping.clipvalue:
        return [tf.clip_by_value(g, -clipping.clipvalue, clipping.clipvalue) for g in gradients]
    if clipping.global_clipnorm:
        # TensorFlow's own norm sums in another order than Keras does.
        norm = tf.sqrt(tf.reduce_sum(tf.stack([tf.reduce_sum(tf.square(g)) for g in gradients])))
        return list(tf.clip_by_global_norm(gradients, clipping.global_clipnorm, use_norm=norm)[0])
    return gradients


def _allowed() -> str:
    return ", ".join(sorted(kind.keras_name for kind in registry().values()))


def _name(optimizer: Any) -> str:
    kind = type(optimizer)
    for name, ours in registry().items():
        if kind is getattr(keras.optimizers, ours.keras_name):
            return name
    given = kind.__name__
    if kind is keras.optimizers.LossScaleOptimizer:
        given += " (which Keras makes of any optimizer under the policy mixed_float16; use float32 or mixed_bfloat16)"
    else:
        for ours in registry().values():
            if issubclass(kind, getattr(keras.optimizers, ours.keras_name)):
                given += f", a subclass of {ours.keras_name}"
                break
    raise WrongInput(
        f"the model is compiled with the optimizer {given}, which the parameter servers do not have; "
        f"compile it with one that they have: {_allowed()}"
    )


def _options(optimizer: Any) -> dict[str, Any]:
    """Returns every argument of the optimizer's constructor with its value now.

    Not `get_config`, which fails with a schedule that has none, and warns of a function.
    """
    parameters = inspect.signature(type(optimizer)).parameters.values()
    return {p.name: getattr(optimizer, p.name, p.default) for p in parameters if p.name != "learning_rate"}


def _number(optimizer: Any, options: dict[str, Any], key: str) -> float | bool:
    """Returns an option as a plain number."""
    value = options[key]
    if isinstance(value, bool):
        return value
    try:
        return float(value)
    except (TypeError, ValueError):
        raise WrongInput(
            f"{key}={value!r} of the optimizer {type(optimizer).__name__} is not a number; give a number"
        ) from None


def _number_or_none(optimizer: Any, options: dict[str, Any], key: str) -> float:
    """Returns an option for which None means that there is none, which is 0."""
    return 0.0 if options[key] is None else float(_number(optimizer, options, key))


def _refuse_options(optimizer: Any, options: dict[str, Any], known: set[str]) -> None:
    kind = type(optimizer).__name__
    for key, value in options.items():
        if key not in known and value:
            reason = _REFUSED.get(key, "it is not known here")
            raise WrongInput(f"{key}={value!r} of the optimizer {kind} cannot be carried: {reason}; leave it out")
    if int(optimizer.iterations.numpy()):
        raise WrongInput(
            f"the optimizer {kind} has already made {int(optimizer.iterations.numpy())} updates, whose state cannot be "
            "carried; load the model with compile=False and compile it anew"
        )


def _refuse_variables(model: keras.Model) -> None:
    for variable in model.trainable_variables:
        if variable.constraint is not None:
            raise WrongInput(
                f"the variable {variable.path} has the constraint {type(variable.constraint).__name__}, which cannot "
                "be carried; leave the constraint out of its layer"
            )
        if getattr(variable, "overwrite_with_gradient", False):
            raise WrongInput(
                f"the variable {variable.path} is overwritten with its gradient (float8), which cannot be carried; use "
                "float32 or mixed_bfloat16"
            )


def _clipping(optimizer: Any, options: dict[str, Any]) -> Clipping:
    # Keras takes a limit that is not positive for none.
    limits = {key: max(0.0, _number_or_none(optimizer, options, key)) for key in Clipping.__dataclass_fields__}
    return Clipping(**limits)


def _rate(optimizer: Any, override: float) -> Any:
    """Returns a float or a schedule."""
    rate = optimizer._learning_rate
    scheduled = isinstance(rate, keras.optimizers.schedules.LearningRateSchedule)
    if not scheduled and not isinstance(rate, keras.Variable):
        raise WrongInput(
            f"the learning rate of the optimizer {type(optimizer).__name__} is a function; give a number or a "
            "keras.optimizers.schedules.LearningRateSchedule"
        )
    if scheduled and override:
        raise WrongInput(
            f"learning_rate={override} is given, but the model is compiled with the learning-rate schedule "
            f"{type(rate).__name__}; leave learning_rate out, or compile the model with a number"
        )
    return rate if scheduled else override or float(rate.numpy())
