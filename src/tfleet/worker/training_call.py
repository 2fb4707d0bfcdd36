"""One training call of a Keras model without side effects, and what each of the model's variables is to it."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tfleet.data.source import Batch
from tfleet.spec.errors import WrongInput
from tfleet.worker.metric_totals import metric_variables
from tfleet.worker.model_check import in_short
from tfleet.worker.signature import Signature, describe


class Scope(keras.StatelessScope):  # type: ignore[misc]
    """Values for variables within a `with` block, and what the block assigns to them; the variables stay as they are.

    Args:
        values: pairs of a variable and a tensor of its shape.
        compact: pairs of a variable and a tensor that may have fewer rows, which Keras's own scope refuses.

    Attributes:
        assigned: every variable that was assigned, in the order of the first time, each once.
    """

    def __init__(self, values: Sequence[tuple[Any, Any]] = (), compact: Sequence[tuple[Any, Any]] = ()) -> None:
        super().__init__(list(values), collect_losses=True)
        self.state_mapping.update({id(variable): tensor for variable, tensor in compact})
        self.assigned: list[Any] = []

    def add_update(self, update: tuple[Any, Any]) -> None:
        """Keeps a value; called by Keras for each assignment."""
        if not any(variable is update[0] for variable in self.assigned):
            self.assigned.append(update[0])
        super().add_update(update)


@dataclass(frozen=True)
class Roles:
    """What each variable of a model is to its training call.

    Attributes:
        trainable: what the gradient is taken of, in Keras's order, all float32.
        state: other variables that the call assigns, all float32.
        frozen: other variables that it does not assign; each value is a float32 number exactly.
        seeds: states of seed generators that it draws from, in the order of drawing.
        metrics: variables of metrics.
    """

    trainable: tuple[Any, ...]
    state: tuple[Any, ...]
    frozen: tuple[Any, ...]
    seeds: tuple[Any, ...]
    metrics: tuple[Any, ...]

    def check_assigned(self, model: keras.Model, assigned: Sequence[Any]) -> None:
        """Checks what a call assigned.

        Raises:
            WrongInput: when there is something else in it than state, seeds and metrics.
        """
        allowed = {id(v) for v in (*self.state, *self.seeds, *self.metrics)}
        for variable in assigned:
            if id(variable) in allowed:
                continue
            trains = any(variable is v for v in self.trainable)
            what = "trains too" if trains else "Keras does not know as the model's"
            raise WrongInput(
                f"the model {model.name} assigns the variable {variable.path}, which {what}, in its call, which cannot "
                "be carried; make it with add_weight(trainable=False), or leave that layer out"
            )

    def known(self, raw: tf.Variable) -> bool:
        """Tells whether a TensorFlow variable is the value of one of these."""
        everything = (*self.trainable, *self.state, *self.frozen, *self.seeds, *self.metrics)
        return any(variable.value is raw for variable in everything)


def predict_and_loss(
    model: keras.Model, x: Any, y: Any, sample_weight: Any, training: bool = True
) -> tuple[Any, tf.Tensor]:
    """Calls the model and its loss as one step of `fit` does; regularisers and `add_loss` count once.

    Returns:
        The predictions, and the loss: a float32 scalar.
    """
    predicted = model(x, training=training) if model._call_has_training_arg else model(x)
    loss = _loss(model, x, y, predicted, sample_weight, training)
    return predicted, tf.cast(loss, tf.float32)


def build(model: keras.Model, example: Batch) -> None:
    """Makes all variables of the model, its loss and metrics, by calling it once on a batch, not for training.

    Its state is not changed. More calls do no harm.

    Raises:
        WrongInput: when the batch does not fit the model, its loss or its metrics, or there is no loss.
    """
    signature = Signature(example)
    x, y, weight = signature.pack([tf.convert_to_tensor(a) for a in signature.arrays(example)])
    with _refusing(model, f"inputs {describe(example.x)}", f"the inputs {_inputs(model)}"):
        predicted = model(x, training=False) if model._call_has_training_arg else model(x)
    if model.loss is None and not model.losses and type(model).compute_loss is keras.Model.compute_loss:
        raise WrongInput(f"the model {model.name} is compiled without a loss; call model.compile(..., loss=...)")
    weights = "" if example.sample_weight is None else f" and weights {describe(example.sample_weight)}"
    fits = f"targets {describe(example.y)}{weights}"
    with _refusing(model, fits, f"outputs {describe(predicted)}, loss {_named(model.loss)}"):
        loss = _loss(model, x, y, predicted, weight, training=False)
    if loss is None or tuple(loss.shape) != ():
        given = "nothing" if loss is None else f"a tensor of shape {list(loss.shape)}"
        raise WrongInput(f"compute_loss of the model {model.name} returns {given}; it must return one number, a scalar")
    with _refusing(model, fits, f"outputs {describe(predicted)} and its metrics"):
        model.compute_metrics(x, y, predicted, sample_weight=weight)
    for metric in model.metrics:
        metric.reset_state()


def find_roles(model: keras.Model, example: Batch) -> Roles:
    """Finds what a training call does with each variable of a built model, by making one that changes nothing.

    Raises:
        WrongInput: for variables that cannot be carried, by name.
    """
    signature = Signature(example)
    x, y, weight = signature.pack([tf.convert_to_tensor(a) for a in signature.arrays(example)])
    with _refusing(model, f"inputs {describe(example.x)}", "a training call"), Scope(_values(model)) as scope:
        predicted, _ = predict_and_loss(model, x, y, weight)
        model.compute_metrics(x, y, predicted, sample_weight=weight)
    trainable = tuple(model.trainable_variables)
    metrics = tuple(metric_variables(model))
    seeds = tuple(v for v in scope.assigned if _is_seed(v))
    told = {id(v) for v in (*trainable, *metrics, *seeds)}
    others = [v for v in model.non_trainable_variables if id(v) not in told and not _is_seed(v)]
    assigned = {id(v) for v in scope.assigned}
    roles = Roles(
        trainable=trainable,
        state=tuple(v for v in others if id(v) in assigned),
        frozen=tuple(v for v in others if id(v) not in assigned),
        seeds=seeds,
        metrics=metrics,
    )
    _refuse(model, roles)
    roles.check_assigned(model, scope.assigned)
    return roles


def _values(model: keras.Model) -> list[tuple[Any, Any]]:
    # Regularisers look up the variables they belong to in the scope only.
    return [(v, tf.convert_to_tensor(v.value)) for v in model.trainable_variables]


def _refuse(model: keras.Model, roles: Roles) -> None:
    if not roles.trainable:
        raise WrongInput(f"the model {model.name} has no trainable variables; leave trainable=True on some layer")
    for variable in roles.trainable:
        if variable.dtype != "float32":
            raise WrongInput(
                f"the trainable variable {variable.path} is {variable.dtype}, but only float32 is trained; use the "
                "dtype policy float32 or mixed_bfloat16"
            )
    for variable in roles.state:
        if variable.dtype != "float32":
            raise WrongInput(
                f"the variable {variable.path}, which training assigns, is {variable.dtype}, but only float32 is "
                "carried between workers; make it float32, or leave its layer out"
            )
    for variable in roles.frozen:
        value = variable.numpy()
        if not np.array_equal(value.astype(np.float32).astype(value.dtype), value, equal_nan=value.dtype.kind == "f"):
            raise WrongInput(
                f"the frozen variable {variable.path} is {variable.dtype} with values that float32 does not hold, so "
                "it cannot be carried between workers; make it float32"
            )


def _loss(model: keras.Model, x: Any, y: Any, predicted: Any, sample_weight: Any, training: bool) -> Any:
    # An overridden compute_loss may be older than the argument `training`.
    takes = "training" in inspect.signature(model.compute_loss).parameters
    more = {"training": training} if takes else {}
    return model.compute_loss(x=x, y=y, y_pred=predicted, sample_weight=sample_weight, **more)


def _is_seed(variable: Any) -> bool:
    return bool(variable.name == "seed_generator_state" and tuple(variable.shape) == (2,))


def _inputs(model: keras.Model) -> str:
    shapes = getattr(model, "input_shape", None) if hasattr(model, "inputs") else None
    return "of its own call" if shapes is None else f"of shape {shapes}"


def _named(loss: Any) -> str:
    if keras.tree.is_nested(loss):
        return str(keras.tree.map_structure(_named, loss)).replace("'", "")
    return loss if isinstance(loss, str) else str(getattr(loss, "name", None) or getattr(loss, "__name__", loss))


@contextmanager
def _refusing(model: keras.Model, given: str, asked: str) -> Iterator[None]:
    """Turns what Keras, TensorFlow or the model's own code raises into one sentence with what was given."""
    try:
        yield
    except WrongInput:
        raise
    except Exception as error:
        raise WrongInput(
            f"the data do not fit the model {model.name}: there are {given} for {asked} ({in_short(error)}); "
            "change the data or the model"
        ) from error
