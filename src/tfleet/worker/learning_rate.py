"""The learning rate of a step, from a number or a Keras schedule, with the bits of Keras's eager `apply`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tfleet.spec.errors import WrongInput

_COMPARED = (0, 1, 1000)
"""Steps at which the compiled schedule is compared with the eager one before it is used."""


class LearningRate:
    """The learning rate as a function of the step; not for two threads at once.

    A schedule takes about 1 ms when it is evaluated eagerly, more than many a training step. It is therefore traced
    into a graph, which takes about 15 us and gives the same bits, because TensorFlow's rewriting of graphs is off (it
    would turn divisions into multiplications). A schedule that cannot be traced is evaluated eagerly.
    """

    def __init__(self, rate: Any) -> None:
        """Takes a number or a `keras.optimizers.schedules.LearningRateSchedule`; traces a schedule.

        Raises:
            WrongInput: when the schedule fails at its first steps.
        """
        self._rate = rate
        self.scheduled = isinstance(rate, keras.optimizers.schedules.LearningRateSchedule)
        self._evaluate: Callable[[int], float] = self._constant
        if self.scheduled:
            # Keras gives its own counter to the schedule: with another type, an integer division has other bits.
            self._step = keras.Variable(0, trainable=False, dtype="int", name="step")
            self._evaluate = self._eager
            expected = [self(step) for step in _COMPARED]
            traced = _traced(rate, self._step)
            if traced is not None and [traced(step) for step in _COMPARED] == expected:
                self._evaluate = traced

    def __call__(self, step: int) -> float:
        """Returns the learning rate of the update after `step` updates, as the float32 value that Keras uses.

        Raises:
            WrongInput: when the schedule fails.
        """
        try:
            return self._evaluate(step)
        except Exception as error:
            detail = " ".join(str(error).split()) or type(error).__name__
            raise WrongInput(
                f"the learning-rate schedule {type(self._rate).__name__} fails at step {step}: {detail}; correct it"
            ) from error

    def _constant(self, step: int) -> float:
        return float(np.float32(self._rate))

    def _eager(self, step: int) -> float:
        self._step.assign(step)
        return float(tf.cast(self._rate(self._step), tf.float32))


def _traced(schedule: Any, variable: Any) -> Callable[[int], float] | None:
    """Returns a function that runs the graph of `schedule` as it is, or None when it cannot be traced."""

    def graph(step: tf.Tensor) -> tf.Tensor:
        variable.assign(step)
        return tf.cast(schedule(variable), tf.float32)

    config = tf.compat.v1.ConfigProto()
    config.graph_options.rewrite_options.disable_meta_optimizer = True
    config.graph_options.optimizer_options.opt_level = tf.compat.v1.OptimizerOptions.L0
    options = config.SerializeToString()
    signature = [tf.TensorSpec((), variable.dtype)]
    try:
        function = tf.function(graph, input_signature=signature, autograph=False).get_concrete_function()
    except Exception:
        return None

    def evaluate(step: int) -> float:
        arguments = [tf.constant(step, variable.dtype), *function.captured_inputs]
        (rate,) = tf.raw_ops.StatefulPartitionedCall(
            args=arguments, Tout=[tf.float32], f=function, config_proto=options
        )
        return float(rate)

    return evaluate
