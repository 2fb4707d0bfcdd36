"""Held-out metrics of a model."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tfleet.data.source import Indices, Source
from tfleet.spec.errors import JobFailed, TfleetError, WrongInput
from tfleet.worker.model_check import in_short

LARGEST_BATCH = 512
"""Rows that are evaluated at once at most, unless the training batch is larger."""

GROWTH = 8
"""How many times larger than in training a batch may be: evaluation keeps no activations for gradients."""


class Evaluator:
    """Computes the loss and all compiled metrics of a model on held-out data, each sample counted once.

    It runs Keras's own `test_step`, so that also metrics that are not means (AUC, F1) are what Keras says they are.
    It does not go through `model.evaluate`, since that traces `test_step` with an unknown batch size, and Keras
    then averages the losses of the single outputs over batches, the last and smaller one counting like the others.
    Here each size of batch has a trace of its own, kept for the next evaluation.

    Rows are evaluated in batches larger than in training; the metrics of Keras do not depend on that but for
    rounding. A loss of one's own that compares the samples of a batch with each other does: such data should come as
    a PyDataset, whose batches are taken as they are. The same values for the same model and data. Prints nothing.
    """

    def __init__(self, model: keras.Model, source: Source, batch_size: int) -> None:
        """Prepares; computes nothing yet.

        Args:
            model: a compiled, built model; its variables are not changed, its metrics' state is.
            source: the held-out data.
            batch_size: samples of a training batch.

        Raises:
            WrongInput: when there is no held-out sample.
        """
        if not len(source):
            raise WrongInput("the held-out data of the task has no samples; give it at least one")
        self._model = model
        self._source = source
        self._rows = 1 if source.items_are_batches else rows_at_once(len(source), batch_size)
        self._steps: dict[int, Any] = {}
        self._tried = False

    def try_one(self) -> list[str]:
        """Evaluates the first item only, in some milliseconds: what does not fit is found before hours of training.

        Returns:
            The names that `metrics` will give.

        Raises:
            WrongInput: when the source finds its data unusable, or they do not fit the model.
        """
        # Keras makes the metrics' variables in the first step, which must not be a traced one.
        data, _ = self._read(np.zeros(1, np.int64))
        with self._refusing():
            names = list(_numbers(self._results(self._model.test_step(data))))
        self._model.reset_metrics()
        self._tried = True
        return names

    def metrics(self) -> dict[str, float]:
        """Evaluates the model as it is now; blocks until all held-out data were read.

        Returns:
            Names as in Keras's logs (`loss`, `accuracy`, ...) to numbers, NaN and infinities included; a metric with
            several values gives `<name>_0`, `<name>_1`, ...

        Raises:
            WrongInput: when the source finds its data unusable, or they do not fit the model.
            JobFailed: when there is not enough memory.
        """
        if not self._tried:
            self.try_one()
        logs: dict[str, Any] = {}
        self._model.reset_metrics()
        for data, size in self._batches():
            with self._refusing():
                logs = self._step(size)(data)
        return _numbers(self._results(logs))

    def _results(self, logs: dict[str, Any]) -> dict[str, Any]:
        results: dict[str, Any] = self._model.get_metrics_result()
        return results if set(results) == set(logs) else logs

    @contextmanager
    def _refusing(self) -> Iterator[None]:
        """Turns what Keras, TensorFlow or the model's own code raises into one sentence."""
        try:
            yield
        except TfleetError:
            raise
        except tf.errors.ResourceExhaustedError as error:
            raise JobFailed(
                f"there is not enough memory to evaluate the model {self._model.name} ({in_short(error)}); "
                "take a smaller batch, or give the worker more memory"
            ) from error
        except Exception as error:
            raise WrongInput(
                f"the held-out data do not fit the model {self._model.name} ({in_short(error)}); "
                "change what the task's data function returns as 'test', or the model"
            ) from error

    def _batches(self) -> Iterator[tuple[tuple[Any, ...], int]]:
        for low in range(0, len(self._source), self._rows):
            yield self._read(np.arange(low, min(low + self._rows, len(self._source)), dtype=np.int64))

    def _read(self, indices: Indices) -> tuple[tuple[Any, ...], int]:
        batch = self._source.batch(indices)
        data = (batch.x, batch.y, batch.sample_weight)
        return keras.tree.map_structure(lambda a: None if a is None else tf.convert_to_tensor(a), data), batch.size

    def _step(self, size: int) -> Any:
        if self._model.run_eagerly:
            return self._model.test_step
        if size not in self._steps:
            self._steps[size] = tf.function(
                lambda data: self._model.test_step(data),
                autograph=False,
                reduce_retracing=True,
                jit_compile=bool(self._model.jit_compile),
            )
        return self._steps[size]


def rows_at_once(samples: int, batch_size: int) -> int:
    """Returns how many rows are evaluated at once, where `batch_size` are trained on at once.

    Where it costs less than half of the size, all batches get the same one: another size is another trace.
    """
    most = max(batch_size, min(LARGEST_BATCH, GROWTH * batch_size))
    return next((rows for rows in range(most, most // 2, -1) if samples % rows == 0), most)


def evaluate(model: keras.Model, source: Source, batch_size: int) -> dict[str, float]:
    """Evaluates once: `Evaluator(model, source, batch_size).metrics()`, whose terms hold.

    Who evaluates again and again keeps an `Evaluator`, which traces only once.
    """
    return Evaluator(model, source, batch_size).metrics()


def _numbers(logs: dict[str, Any]) -> dict[str, float]:
    numbers: dict[str, float] = {}
    for name, value in logs.items():
        array = np.asarray(keras.ops.convert_to_numpy(value), np.float64)
        if array.ndim == 0:
            numbers[name] = float(array)
        else:
            numbers.update({f"{name}_{i}": float(v) for i, v in enumerate(array.ravel())})
    return numbers
