"""The compiled function of a worker: flat parameters, state and a batch in; flat gradient, state and metrics out."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tfleet.data.source import Batch
from tfleet.spec.errors import JobFailed, WrongInput
from tfleet.spec.layout import Layout, Variable
from tfleet.strategies.exchange import Step
from tfleet.wire.memory import Float32s
from tfleet.worker.metric_totals import mean_metrics
from tfleet.worker.model_check import check_model, in_short
from tfleet.worker.optimizer_config import Clipping
from tfleet.worker.seeds import seed_states
from tfleet.worker.signature import Signature
from tfleet.worker.traced import Compiled, Tracer
from tfleet.worker.training_call import build, find_roles
from tfleet.worker.xla import Choice, decide, given_jit_compile

ALIGNMENT = 64
"""Bytes that TensorFlow's kernels want a tensor aligned to, whatever vectors they use; they end the process if not."""


class GradientFunction:
    """The gradient of a compiled Keras model, as a function without side effects.

    Parameters come as one flat vector and are given to the model by `keras.StatelessScope`: assigning the model's
    variables instead was 15 % slower (384 against 330 us). Frozen variables are read from the model.

    Full batches of the example's shapes go through XLA where `uses_xla`; all others through one TensorFlow graph with
    free batch size, traced when the first comes, so that a partial batch compiles nothing anew. An axis other than the
    first that varies is freed when a batch first differs in it, which traces once more.

    The same arguments give the same bits in every process with the same versions, CPU type, threads and `xla`.

    Attributes:
        layout: what the flat vectors hold.
        uses_xla: whether full batches are compiled with XLA.
    """

    def __init__(
        self,
        model: keras.Model,
        example: Batch,
        *,
        seed: int,
        xla: Choice = "auto",
        clipping: Clipping | None = None,
        decay: Sequence[bool] | None = None,
    ) -> None:
        """Builds the model where it is not yet, and compiles; blocks for some seconds.

        Args:
            model: a compiled model. Its variables keep their values.
            example: a batch of the full size.
            seed: seed of the job, for dropout and all else that is random in the model.
            xla: of the job.
            clipping: from `optimizer_config.describe`.
            decay: from `optimizer_config.describe`, for each trainable variable; None: everywhere. A variable that the
                loss does not depend on never decays, as in Keras. `describe` needs the variables: where the model may
                be unbuilt, call `training_call.build` before it.

        Raises:
            WrongInput: when the model or something in it cannot be carried, or the example does not fit it.
        """
        check_model(model)
        build(model, example)
        self._seed = seed
        self._roles = find_roles(model, example)
        self._signature = Signature(example)
        metrics = mean_metrics(model)
        self._tracer = Tracer(model, self._roles, metrics, self._signature, clipping or Clipping())
        self.layout = self._make_layout(decay, ("loss", *(m.name for m in metrics)))
        self._cuts = np.cumsum((self.layout.parameters, self.layout.state_size)).tolist()
        accelerator = bool(tf.config.list_logical_devices("GPU"))
        self.uses_xla = decide(model, xla, self.layout.parameters, example.size, accelerator)
        self._full: Compiled | None = None
        self._any: Compiled | None = None
        self._warm_up(example, may_fall_back=given_jit_compile(model) is None and xla == "auto")
        self.layout = self._make_layout(decay, self.layout.metrics)

    def __call__(self, parameters: Float32s, state: Float32s, batch: Batch, epoch: int, index: int) -> Step:
        """Computes one batch; blocks until the result is there. The arguments are not changed.

        Args:
            parameters: float32 [N]; without a copy when writable and at an address divisible by `ALIGNMENT`.
            state: float32 [S].
            batch: of the structure of the example, of any size.
            epoch: number of the epoch, from 0; with `index` it decides what is random.
            index: number of the batch within the epoch, from 0.

        Raises:
            WrongInput: when the batch cannot be computed, such as an index outside of an embedding.
            JobFailed: when there is not enough memory.
        """
        arrays = self._signature.arrays(batch)
        compiled = self._full
        if compiled is None or not self._signature.is_full(arrays):
            compiled = self._relaxed(arrays)
        if self._roles.seeds:
            arrays = [seed_states(self._seed, epoch, index, len(self._roles.seeds)), *arrays]
        if self._roles.state:
            arrays = [state, *arrays]
        try:
            (result,) = compiled(*map(_shared, (parameters, *arrays)))
            values = np.frombuffer(memoryview(result), np.float32)
        except tf.errors.ResourceExhaustedError as error:
            raise JobFailed(
                f"there is not enough memory to compute batch {index} of epoch {epoch} ({in_short(error)}); "
                "take a smaller batch, or give the worker more memory"
            ) from error
        except (tf.errors.InvalidArgumentError, tf.errors.UnimplementedError, ValueError, TypeError) as error:
            raise WrongInput(
                f"batch {index} of epoch {epoch} cannot be computed ({in_short(error)}); correct the data or the model"
            ) from error
        first, second = self._cuts
        loss, magnitude = float(values[-2]), float(values[-1])
        finite = math.isfinite(loss) and math.isfinite(magnitude)
        return Step(values[:first], values[first:second], loss, values[second:-2], finite)

    def initial(self) -> tuple[Float32s, Float32s, Float32s]:
        """Returns the model's own values: parameters [N], state [S], frozen [F], float32."""
        roles = self._roles
        return _flat(roles.trainable), _flat(roles.state), _flat(roles.frozen)

    def assign(self, parameters: Float32s, state: Float32s, frozen: Float32s) -> None:
        """Sets the model's variables, for evaluation and export; `frozen` also counts for later steps.

        Args:
            parameters: float32 [N].
            state: float32 [S].
            frozen: float32 [F].
        """
        roles = self._roles
        for variables, values in ((roles.trainable, parameters), (roles.state, state), (roles.frozen, frozen)):
            offset = 0
            for variable in variables:
                size = int(np.prod(variable.shape))
                variable.assign(values[offset : offset + size].reshape(variable.shape).astype(variable.dtype))
                offset += size

    def _make_layout(self, decay: Sequence[bool] | None, metrics: tuple[str, ...]) -> Layout:
        roles = self._roles
        everywhere = [True] * len(roles.trainable)
        decays = zip(everywhere if decay is None else decay, self._tracer.connected or everywhere, strict=True)

        def described(variable: Any, decays: bool = True) -> Variable:
            return Variable(variable.path, tuple(variable.shape), decays)

        return Layout(
            trainable=tuple(described(v, a and b) for v, (a, b) in zip(roles.trainable, decays, strict=True)),
            state=tuple(described(v) for v in roles.state),
            frozen=tuple(described(v) for v in roles.frozen),
            metrics=metrics,
        )

    def _warm_up(self, example: Batch, may_fall_back: bool) -> None:
        """Compiles for the example, and computes it once, which finds what only that can tell to be wrong."""
        parameters, state, _ = self.initial()
        try:
            if self.uses_xla:
                self._full = self._tracer.compile(xla=True)
            self(parameters, state, example, 0, 0)
        except WrongInput:
            # XLA cannot compile every loss; which ones depends on nothing but the versions.
            if not (self.uses_xla and may_fall_back):
                raise
            self.uses_xla, self._full = False, None
            self(parameters, state, example, 0, 0)

    def _relaxed(self, arrays: list[np.ndarray]) -> Compiled:
        if self._signature.relax(arrays) or self._any is None:
            self._any = self._tracer.compile(xla=False)
        return self._any


def _shared(array: np.ndarray) -> tf.Tensor:
    """Returns `array` as a tensor of the same memory where that is allowed, else as a copy (22 us for 318 kB).

    The function has returned before the caller can change `array`, and never hands its own arguments out.
    """
    flags = array.flags
    if array.dtype.kind not in "fiu" or not (flags.writeable and flags.c_contiguous) or array.ctypes.data % ALIGNMENT:
        return tf.convert_to_tensor(array)
    return tf.experimental.dlpack.from_dlpack(array.__dlpack__())


def _flat(variables: Sequence[Any]) -> Float32s:
    parts = [np.ravel(v.numpy()).astype(np.float32) for v in variables]
    return np.concatenate(parts) if parts else np.zeros(0, np.float32)
