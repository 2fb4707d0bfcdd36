"""Learning rates: the bits that Keras's eager `apply` uses, from a graph where that is possible."""

from __future__ import annotations

import os

os.environ.setdefault("KERAS_BACKEND", "tensorflow")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfleet.spec.errors import WrongInput
from tfleet.worker.learning_rate import LearningRate

pytestmark = pytest.mark.tf

schedules = keras.optimizers.schedules


class Inverse(schedules.LearningRateSchedule):
    """A user's own schedule, without `get_config`; its bits depend on the type of the step."""

    def __call__(self, step):
        return 0.1 / (1.0 + step / 7)


class InPython(schedules.LearningRateSchedule):
    """Cannot be traced."""

    def __call__(self, step):
        return 0.1 if int(step) < 5 else 0.01


class Counting(schedules.LearningRateSchedule):
    """Can be traced, but does something else at each call."""

    def __init__(self):
        self.calls = 0

    def __call__(self, step):
        self.calls += 1
        return 1.0 / self.calls


class LateFailure(schedules.LearningRateSchedule):
    def __call__(self, step):
        if int(step) > 5000:
            raise KeyError("no rate")
        return 0.1


def test_constant_is_the_float32_value():
    rate = LearningRate(0.1)
    assert not rate.scheduled
    assert rate(0) == rate(10**6) == float(np.float32(0.1))


@pytest.mark.parametrize(
    "schedule",
    [
        schedules.ExponentialDecay(0.1, 7, 0.9),
        schedules.ExponentialDecay(0.1, 10, 0.9, staircase=True),
        schedules.PolynomialDecay(0.1, 100, power=1.7, cycle=True),
        schedules.InverseTimeDecay(0.1, 7, 0.3),
        schedules.CosineDecay(0.0, 100, warmup_target=0.1, warmup_steps=10),
        schedules.CosineDecayRestarts(0.1, 13),
        schedules.PiecewiseConstantDecay([5, 77], [0.1, 0.02, 0.3]),
        Inverse(),
        InPython(),
    ],
    ids=lambda s: type(s).__name__,
)
def test_schedule_has_the_bits_that_the_optimizer_uses(schedule):
    optimizer = keras.optimizers.SGD(schedule)
    rate = LearningRate(schedule)
    assert rate.scheduled
    for step in (*range(30), 77, 100, 101, 54321):
        optimizer.iterations.assign(step)
        assert rate(step) == float(tf.cast(optimizer.learning_rate, tf.float32))


def test_schedule_is_not_called_again_once_it_is_traced(monkeypatch):
    schedule = schedules.ExponentialDecay(0.1, 7, 0.9)
    rate = LearningRate(schedule)
    first = rate(0)
    monkeypatch.setattr(schedules.ExponentialDecay, "__call__", lambda *_: pytest.fail("called eagerly"))
    assert rate(7) < first


def test_schedule_with_a_memory_stays_eager():
    schedule = Counting()
    rate = LearningRate(schedule)
    before = schedule.calls
    assert rate(5) == float(np.float32(1.0 / (before + 1)))


def test_failure_in_the_middle_names_schedule_and_step():
    rate = LearningRate(LateFailure())
    with pytest.raises(WrongInput, match=r"^the learning-rate schedule LateFailure fails at step 6000: 'no rate'; "):
        rate(6000)
