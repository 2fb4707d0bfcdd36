"""The metrics of a compiled model that are means, as totals and counts that add up over workers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import keras
import tensorflow as tf


@dataclass(frozen=True)
class MeanMetric:
    """A metric whose value is its total divided by its count.

    Attributes:
        name: as in the logs of `fit`.
        metric: the Keras object.
        of_batch: whether it is the loss of one output, which Keras gives as one mean of the batch.
    """

    name: str
    metric: keras.metrics.Mean
    of_batch: bool

    def pair(self, current: Callable[[Any], tf.Tensor], samples: tf.Tensor) -> list[tf.Tensor]:
        """Returns float32 scalars total and count after one batch of `samples` that started from zero.

        Args:
            current: gives the value of a variable after the batch.
            samples: float32 scalar, number of samples in the batch.
        """
        total = tf.cast(current(self.metric.total), tf.float32)
        count = tf.cast(current(self.metric.count), tf.float32)
        if self.of_batch:
            # Keras counts such a mean by the static batch size, and as 1 where that is unknown.
            return [tf.math.divide_no_nan(total, count) * samples, samples]
        return [total, count]


def mean_metrics(model: keras.Model) -> tuple[MeanMetric, ...]:
    """Returns those metrics of a built model whose value is total / count, the total loss left out.

    Others (AUC, precision, root mean squared error, ...) do not average over workers: they are left to evaluation. So
    is a metric named like one before it.
    """
    compiled, losses = _compiled(model), _losses(model)
    named: list[tuple[str, Any]] = []
    for metric in model.metrics:
        if metric is not compiled and metric is not _tracker(model):
            named.append((metric.name, metric))
    if compiled is not None and compiled.built:
        # The keys are in the order of the metrics; they have the prefixes of outputs and the endings of duplicates.
        names = list(compiled.result())
        metrics = compiled.metrics
        named[:0] = zip(names if len(names) == len(metrics) else [m.name for m in metrics], metrics, strict=True)
    kept: dict[str, MeanMetric] = {}
    for name, metric in named:
        if _is_mean(metric) and name != "loss" and name not in kept:
            kept[name] = MeanMetric(name, metric, of_batch=any(metric is loss for loss in losses))
    return tuple(kept.values())


def metric_variables(model: keras.Model) -> list[Any]:
    """Returns the variables of all metrics that a training call of `model` may update, each once."""
    owners = [*model.metrics, _tracker(model), _compiled(model), *_losses(model)]
    variables = [v for owner in owners if owner is not None for v in owner.variables]
    return list({id(v): v for v in variables}.values())


def _is_mean(metric: Any) -> bool:
    # A subclass may be a function of the mean, as RootMeanSquaredError is.
    mean = keras.metrics.Mean
    return isinstance(metric, mean) and type(metric).result is mean.result


def _tracker(model: keras.Model) -> Any:
    return model._loss_tracker


def _compiled(model: keras.Model) -> Any:
    return model._compile_metrics


def _losses(model: keras.Model) -> list[Any]:
    return list(model._compile_loss.metrics) if model._compile_loss is not None else []
