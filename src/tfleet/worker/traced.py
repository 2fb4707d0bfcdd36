"""Traces the training call of a model into one TensorFlow graph over flat vectors."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any

import keras
import tensorflow as tf

from tfleet.spec.errors import WrongInput
from tfleet.worker.graph_check import check_graph
from tfleet.worker.metric_totals import MeanMetric
from tfleet.worker.model_check import in_short
from tfleet.worker.optimizer_config import Clipping, clip
from tfleet.worker.signature import Signature
from tfleet.worker.sparse import Place
from tfleet.worker.training_call import Roles, Scope, predict_and_loss

Compiled = Callable[..., Sequence[Any]]
"""Takes tensors: dense parameters, compact tables, state unless it is empty, seeds unless there are none, then the
arrays of the batch."""


class TableUsed(Exception):
    """A table is used by something else than the lookup of its layer, so it cannot be compact.

    Attributes:
        position: of the table among the trainable variables.
    """

    def __init__(self, position: int) -> None:
        super().__init__()
        self.position = position


class Tracer:
    """Makes functions that differ in nothing but the shapes of the batch, and whether XLA compiles them.

    Each returns one float32 vector: gradient [N] without tables, that of each compact table, state [S], (total, count)
    of the loss and of each metric, then the loss, and a number that is finite when the gradient is.

    Attributes:
        connected: for each trainable variable, whether the loss depends on it; empty before the first trace.
    """

    def __init__(
        self,
        model: keras.Model,
        roles: Roles,
        metrics: Sequence[MeanMetric],
        signature: Signature,
        clipping: Clipping,
        tables: Sequence[Place] = (),
    ) -> None:
        self.connected: tuple[bool, ...] = ()
        self._model = model
        self._roles = roles
        self._metrics = metrics
        self._signature = signature
        self._clipping = clipping
        self._tables = tables
        compact = {place.position for place in tables}
        self._dense = [v for i, v in enumerate(roles.trainable) if i not in compact]

    def compile(self, xla: bool) -> Compiled:
        """Traces for full batches, compiled by XLA at the first call, or for all batches so far, as a graph.

        Raises:
            WrongInput: when the model cannot be traced, or does what `check_graph` refuses.
            TableUsed: when a table cannot be compact.
        """
        roles = self._roles
        specs = [tf.TensorSpec([_size(self._dense)], tf.float32)]
        # XLA compiles for one shape; a graph takes as many rows as there are.
        specs += [tf.TensorSpec([place.most if xla else None, place.width], tf.float32) for place in self._tables]
        if roles.state:
            specs.append(tf.TensorSpec([_size(roles.state)], tf.float32))
        if roles.seeds:
            specs.append(tf.TensorSpec([len(roles.seeds), 2], tf.int64))
        specs += self._signature.specs(full=xla)
        function = tf.function(self._compute, input_signature=specs, autograph=False, jit_compile=xla)
        try:
            concrete = function.get_concrete_function()
        except WrongInput:
            raise
        except Exception as error:
            raise WrongInput(
                f"the model {self._model.name} cannot be compiled into a graph ({in_short(error)}); correct its call, "
                "its loss or its metrics"
            ) from error
        check_graph(self._model.name, concrete.graph, roles)
        for place, tensor in zip(self._tables, concrete.inputs[1:], strict=False):
            if not _only_looked_up(tensor):
                raise TableUsed(place.position)
        return _callable(concrete)

    def _compute(self, flat: tf.Tensor, *rest: tf.Tensor) -> tf.Tensor:
        roles = self._roles
        left = list(rest)
        tables = [left.pop(0) for _ in self._tables]
        state = _split(left.pop(0), roles.state) if roles.state else []
        seeds = tf.unstack(left.pop(0)) if roles.seeds else []
        samples = tf.cast(tf.shape(left[0])[0], tf.float32)
        x, y, weight = self._signature.pack(left)
        compact = {place.position: table for place, table in zip(self._tables, tables, strict=True)}
        dense = iter(_split(flat, self._dense))
        parameters = [compact[i] if i in compact else next(dense) for i in range(len(roles.trainable))]
        pairs = list(enumerate(zip(roles.trainable, parameters, strict=True)))
        given = [
            *(pair for i, pair in pairs if i not in compact),
            *zip(roles.state, state, strict=True),
            *zip(roles.seeds, seeds, strict=True),
            *((v, tf.zeros(v.shape, v.dtype)) for v in roles.metrics),
        ]
        with Scope(given, [pair for i, pair in pairs if i in compact]) as scope:
            with tf.GradientTape() as tape:
                tape.watch(parameters)
                predicted, loss = predict_and_loss(self._model, x, y, weight)
            gradient = self._join(tape.gradient(loss, parameters), parameters)
            self._model.compute_metrics(x, y, predicted, sample_weight=weight)
        roles.check_assigned(self._model, scope.assigned)
        totals = [loss * samples, samples]
        for metric in self._metrics:
            totals += metric.pair(scope.get_current_value, samples)
        # A sum of absolute values is finite when all of them are; a sum of squares would overflow early.
        check = [loss, tf.reduce_sum(tf.abs(gradient))]
        states = [tf.reshape(scope.get_current_value(v), [-1]) for v in roles.state]
        return tf.concat([gradient, *states, tf.stack(totals + check)], 0)

    def _join(self, gradients: list[Any], parameters: list[tf.Tensor]) -> tf.Tensor:
        """Clips and joins the gradients; those of embeddings become dense, and where there is none, zeros."""
        self.connected = tuple(g is not None for g in gradients)
        if not any(self.connected):
            raise WrongInput(
                f"the loss of the model {self._model.name} depends on none of its trainable variables; "
                "correct the loss, or the layers between it and the inputs"
            )
        whole = [_as_tensor(g, p) for g, p in zip(gradients, parameters, strict=True) if g is not None]
        clipped = iter(clip(whole, self._clipping))
        parts = [
            tf.reshape(next(clipped) if connected else tf.zeros_like(p), [-1])
            for connected, p in zip(self.connected, parameters, strict=True)
        ]
        compact = [place.position for place in self._tables]
        return tf.concat([*(p for i, p in enumerate(parts) if i not in compact), *(parts[i] for i in compact)], 0)


def _size(variables: Sequence[Any]) -> int:
    return sum(v.shape.num_elements() for v in variables)


def _split(flat: tf.Tensor, variables: Sequence[Any]) -> list[tf.Tensor]:
    sizes = [v.shape.num_elements() for v in variables]
    return [tf.reshape(part, v.shape) for part, v in zip(tf.split(flat, sizes), variables, strict=True)]


def _as_tensor(gradient: Any, parameter: tf.Tensor) -> tf.Tensor:
    if not isinstance(gradient, tf.IndexedSlices):
        return gradient
    # What TensorFlow does to make it dense, which warns where it does not know the number of rows yet.
    return tf.math.unsorted_segment_sum(gradient.values, gradient.indices, tf.shape(parameter)[0])


def _only_looked_up(table: tf.Tensor) -> bool:
    """Tells whether in its graph a table is the table of one lookup, and is asked for nothing else but its shape."""
    uses = [op for op in table.consumers() if op.type != "Shape"]
    return len(uses) == 1 and uses[0].type == "GatherV2" and uses[0].inputs[0] is table


def _callable(concrete: Any) -> Compiled:
    """Returns `concrete` as a function of flat tensors, where it can without what TensorFlow's Python does each call.

    That is about 45 us: binding arguments, serialising options, looking for a gradient tape. What the runtime is asked
    to do is the same, as TensorFlow itself prepared it.
    """
    direct = _direct(concrete)
    if direct is None:
        return lambda *tensors: [concrete(*tensors)]
    captured = concrete.captured_inputs
    return (lambda *tensors: direct(*tensors, *captured)) if captured else direct


def _direct(concrete: Any) -> Compiled | None:
    # Parts of TensorFlow that it does not promise; another version may lack them.
    try:
        from tensorflow.python.eager import context, execute

        here = context.context()
        inner = concrete.inference_fn
        name, outputs = inner.name.decode(), len(inner.function_type.flat_outputs)
        attributes = tuple(itertools.chain(*here.function_call_options.as_attrs().items()))
        run = execute.quick_execute
    except (ImportError, AttributeError):
        return None

    def call(*tensors: Any, kept: Any = inner) -> Sequence[Any]:
        # TensorFlow forgets the function when nobody holds it any more.
        return run(name, outputs, list(tensors), attributes, here)  # type: ignore[no-any-return]

    return call
