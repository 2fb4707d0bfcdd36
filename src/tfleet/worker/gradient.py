"""The compiled function of a worker: flat parameters, state and a batch in; flat gradient, state and metrics out."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tfleet.data.source import Batch
from tfleet.spec.arrays import ALIGNMENT, Float32s, Ids, Matrix, aligned
from tfleet.spec.errors import JobFailed, WrongInput
from tfleet.spec.layout import Layout, Variable
from tfleet.strategies.exchange import Step
from tfleet.worker.metric_totals import mean_metrics
from tfleet.worker.model_check import check_model, in_short
from tfleet.worker.optimizer_config import Clipping
from tfleet.worker.seeds import seed_states
from tfleet.worker.signature import Signature
from tfleet.worker.sparse import Fetch, Tables
from tfleet.worker.traced import Compiled, TableUsed, Tracer
from tfleet.worker.training_call import build, find_roles
from tfleet.worker.xla import Choice, decide, given_jit_compile


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
        tables: those of `tables` that are sparse, which tracing has the last word on.
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
        tables: Tables | None = None,
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
            tables: of which a step moves touched rows only, from `sparse.find_tables`; None: no tables.

        Raises:
            WrongInput: when the model or something in it cannot be carried, or the example does not fit it.
        """
        check_model(model)
        build(model, example)
        self._seed = seed
        self._roles = find_roles(model, example)
        self._decay = decay
        self.tables = tables or Tables()
        while True:
            try:
                self._prepare(model, example, xla, clipping or Clipping())
                return
            except TableUsed as used:
                self.tables = self.tables.without(used.position, "its table is used by more than its own lookup")

    def _prepare(self, model: keras.Model, example: Batch, xla: Choice, clipping: Clipping) -> None:
        self._places = self.tables.places
        self._buffers = [RowBuffer(place.width) for place in self._places]
        self._touched: list[Ids] = []
        self._firsts: list[int] = []
        self._signature = Signature(self.tables.compact(example)[0] if self.tables else example)
        metrics = mean_metrics(model)
        self._tracer = Tracer(model, self._roles, metrics, self._signature, clipping, self._places)
        self.layout = self._make_layout(("loss", *(m.name for m in metrics)))
        self._sizes = self.layout.dense.parameters, self.layout.state_size
        accelerator = bool(tf.config.list_logical_devices("GPU"))
        self.uses_xla = decide(model, xla, self._sizes[0], example.size, accelerator)
        self._full: Compiled | None = None
        self._any: Compiled | None = None
        self._warm_up(example, may_fall_back=given_jit_compile(model) is None and xla == "auto")
        self.layout = self._make_layout(self.layout.metrics)

    def __call__(
        self, parameters: Float32s, state: Float32s, batch: Batch, epoch: int, index: int, fetch: Fetch | None = None
    ) -> Step:
        """Computes one batch; blocks until the result is there. The arguments are not changed.

        Args:
            parameters: float32 [N] of `layout.dense`; without a copy when writable and at an address divisible by
                `ALIGNMENT`.
            state: float32 [S].
            batch: of the structure of the example, of any size.
            epoch: number of the epoch, from 0; with `index` it decides what is random.
            index: number of the batch within the epoch, from 0.
            fetch: gets rows of the tables; None: those of the model itself.

        Raises:
            WrongInput: when the batch cannot be computed, such as an index outside of an embedding.
            JobFailed: when there is not enough memory.
        """
        firsts: list[int] = []
        self._touched = []
        if self._places:
            try:
                batch, self._touched, firsts = self.tables.compact(batch)
            except WrongInput as error:
                raise WrongInput(
                    f"batch {index} of epoch {epoch} cannot be computed: {error}; correct the data or the model"
                ) from None
        arrays = self._signature.arrays(batch)
        compiled = self._full
        full = compiled is not None and self._signature.is_full(arrays)
        if compiled is None or not full:
            compiled = self._relaxed(arrays)
        if self._roles.seeds:
            arrays = [seed_states(self._seed, epoch, index, len(self._roles.seeds)), *arrays]
        if self._roles.state:
            arrays = [state, *arrays]
        tables = self._rows(firsts, full, fetch)
        try:
            (result,) = compiled(*map(_shared, (parameters, *tables, *arrays)))
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
        dense, states = self._sizes
        loss, magnitude = float(values[-2]), float(values[-1])
        finite = math.isfinite(loss) and math.isfinite(magnitude)
        offset, rows = dense, []
        for table, ids, first in zip(tables, self._touched, firsts, strict=True):
            gradient = values[offset : offset + table.size].reshape(table.shape)
            rows.append(gradient[first : first + len(ids)])
            offset += table.size
        state, metrics = values[offset : offset + states], values[offset + states : -2]
        return Step(values[:dense], state, loss, metrics, finite, self._touched, rows)

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
            _assign(variables, values)

    def assign_seen(self, parameters: Float32s, state: Float32s, frozen: Float32s) -> None:
        """Sets the variables as the last batch saw them: of the tables only the rows that it touched.

        Args:
            parameters: float32 [N] of `layout.dense`.
            state: float32 [S].
            frozen: float32 [F].
        """
        roles = self._roles
        for variables, values in ((self._dense(), parameters), (roles.state, state), (roles.frozen, frozen)):
            _assign(variables, values)
        for place, buffer, ids, first in zip(self._places, self._buffers, self._touched, self._firsts, strict=True):
            slices = tf.IndexedSlices(buffer.get(first + len(ids))[first:].copy(), ids)
            roles.trainable[place.position].value.scatter_update(slices)

    def by_variable(self, step: Step) -> Iterator[tuple[Ids | None, np.ndarray[Any, np.dtype[np.float32]]]]:
        """Yields, for each trainable variable, the rows that a step touched (None: all of it), and their gradient."""
        sparse = dict(zip(self.layout.sparse, zip(step.touched, step.rows, strict=True), strict=True))
        low = 0
        for position, variable in enumerate(self.layout.trainable):
            if position in sparse:
                yield sparse[position]
            else:
                yield None, step.gradient[low : low + variable.size]
                low += variable.size

    def assign_frozen(self, frozen: Float32s) -> None:
        """Sets the variables that training does not change: float32 [F]."""
        _assign(self._roles.frozen, frozen)

    def _dense(self) -> list[Any]:
        sparse = self.layout.sparse
        return [v for i, v in enumerate(self._roles.trainable) if i not in sparse]

    def _rows(self, firsts: list[int], full: bool, fetch: Fetch | None) -> list[Matrix]:
        """Returns the compact tables, as many rows as the compiled function takes."""
        self._firsts = firsts
        tables, wanted = [], []
        for place, buffer, ids, first in zip(self._places, self._buffers, self._touched, firsts, strict=True):
            needed = first + len(ids)
            table = buffer.get(place.most if full else needed)
            tables.append(table)
            wanted.append(table[first:needed])
        if tables:
            (fetch or self._own_rows)(self._touched, wanted)
        return tables

    def _own_rows(self, touched: Sequence[Ids], into: Sequence[Matrix]) -> None:
        for place, ids, rows in zip(self._places, touched, into, strict=True):
            rows[:] = tf.gather(self._roles.trainable[place.position].value, ids).numpy()

    def _make_layout(self, metrics: tuple[str, ...]) -> Layout:
        roles, decay = self._roles, self._decay
        everywhere = [True] * len(roles.trainable)
        decays = zip(everywhere if decay is None else decay, self._tracer.connected or everywhere, strict=True)

        def described(variable: Any, decays: bool = True) -> Variable:
            return Variable(variable.path, tuple(variable.shape), decays)

        return Layout(
            trainable=tuple(described(v, a and b) for v, (a, b) in zip(roles.trainable, decays, strict=True)),
            state=tuple(described(v) for v in roles.state),
            frozen=tuple(described(v) for v in roles.frozen),
            metrics=metrics,
            sparse=tuple(place.position for place in self._places),
        )

    def _warm_up(self, example: Batch, may_fall_back: bool) -> None:
        """Compiles for the example, and computes it once, which finds what only that can tell to be wrong."""
        parameters, state = _flat(self._dense()), _flat(self._roles.state)
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


class RowBuffer:
    """Memory for a compact table, aligned, kept from batch to batch; it grows when a batch touches more rows."""

    def __init__(self, width: int) -> None:
        self._width = width
        self._memory: Float32s = np.zeros(0, np.float32)

    def get(self, rows: int) -> Matrix:
        """Returns float32 [rows, width], with whatever was there before; the same memory each time."""
        size = rows * self._width
        if size > self._memory.size:
            self._memory = aligned((size + size // 2,), np.float32, np.zeros)
        return self._memory[:size].reshape(rows, self._width)


def _assign(variables: Sequence[Any], values: Float32s) -> None:
    offset = 0
    for variable in variables:
        size = int(np.prod(variable.shape))
        variable.assign(values[offset : offset + size].reshape(variable.shape).astype(variable.dtype, copy=False))
        offset += size


def _shared(array: np.ndarray) -> tf.Tensor:
    """Returns `array` as a tensor of the same memory where that is allowed, else as a copy (22 us for 318 kB).

    The function has returned before the caller can change `array`, and never hands its own arguments out.
    """
    flags = array.flags
    if not array.size:
        return tf.convert_to_tensor(array)
    if array.dtype.kind not in "fiu" or not (flags.writeable and flags.c_contiguous) or array.ctypes.data % ALIGNMENT:
        return tf.convert_to_tensor(array)
    return tf.experimental.dlpack.from_dlpack(array.__dlpack__())


def _flat(variables: Sequence[Any]) -> Float32s:
    parts = [np.ravel(v.numpy()).astype(np.float32, copy=False) for v in variables]
    return np.concatenate(parts) if parts else np.zeros(0, np.float32)
