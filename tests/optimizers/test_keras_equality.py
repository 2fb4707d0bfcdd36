"""The bits of parameters and slots after 200 updates are those of Keras's eager `apply` on the same gradients."""

from __future__ import annotations

import os

os.environ.setdefault("KERAS_BACKEND", "tensorflow")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfleet.optimizers import build
from tfleet.optimizers.denormals import available
from tfleet.spec.layout import Layout, Variable, partition_bounds
from tfleet.worker.optimizer_config import describe

pytestmark = pytest.mark.tf

STEPS = 200
SHAPES = [(31, 40), (40,), (1, 17), ()]
ATTRIBUTES = {
    "momentum": ("_momentums", "momentums"),
    "velocity": ("_velocities",),
    "velocity_hat": ("_velocity_hats",),
    "average_gradient": ("_average_gradients",),
    "accumulator": ("_accumulators",),
}

VARIANTS = {
    "sgd": lambda: keras.optimizers.SGD(0.05),
    "sgd-momentum": lambda: keras.optimizers.SGD(0.05, momentum=0.9),
    "sgd-nesterov-decay": lambda: keras.optimizers.SGD(0.05, momentum=0.77, nesterov=True, weight_decay=0.03),
    "rmsprop": lambda: keras.optimizers.RMSprop(0.01),
    "rmsprop-momentum": lambda: keras.optimizers.RMSprop(0.01, rho=0.83, momentum=0.7, epsilon=1e-3),
    "rmsprop-centered": lambda: keras.optimizers.RMSprop(0.01, centered=True, epsilon=1e-5, weight_decay=0.1),
    "rmsprop-centered-momentum": lambda: keras.optimizers.RMSprop(0.01, centered=True, momentum=0.5, epsilon=1e-5),
    "adagrad": lambda: keras.optimizers.Adagrad(0.1),
    "adagrad-start-decay": lambda: keras.optimizers.Adagrad(
        0.1, initial_accumulator_value=0.0, epsilon=1e-4, weight_decay=0.01
    ),
    "adam": lambda: keras.optimizers.Adam(0.003),
    "adam-betas-decay": lambda: keras.optimizers.Adam(0.003, beta_1=0.95, beta_2=0.98, epsilon=1e-4, weight_decay=0.02),
    "adam-amsgrad": lambda: keras.optimizers.Adam(0.003, amsgrad=True, beta_1=0.5),
    "adamw": lambda: keras.optimizers.AdamW(0.003),
    "adamw-amsgrad": lambda: keras.optimizers.AdamW(0.003, amsgrad=True, weight_decay=0.3, epsilon=1e-8),
}


class Weights(keras.layers.Layer):
    """Variables of many shapes."""

    def build(self, _):
        self.all = [
            self.add_weight(shape=shape, initializer="random_normal", name=f"{'bias' if len(shape) == 1 else 'w'}{i}")
            for i, shape in enumerate(SHAPES)
        ]

    def call(self, x):
        return x


def model_with(optimizer) -> keras.Model:
    keras.utils.set_random_seed(3)
    model = keras.Sequential([keras.Input((1,)), Weights()])
    model.compile(optimizer, loss="mse")
    return model


def gradients(step: int, size: int) -> np.ndarray:
    """Of all magnitudes, with denormal squares, exact zeros, and places that have been silent for long."""
    rng = np.random.default_rng(step)
    scale = 10.0 ** rng.uniform(-25, 1, size)
    grad = (rng.standard_normal(size) * np.where(rng.random(size) < 0.7, 1.0, scale)).astype(np.float32)
    grad[rng.random(size) < 0.1] = 0
    if step > 3:
        grad[: size // 10] = 0
    return grad


def flat(values) -> np.ndarray:
    return np.concatenate([np.ravel(np.asarray(v)) for v in values])


def assert_equal_to_keras(model, rate_of_step=None, ps=2):
    """Applies the same gradients with Keras and with partitions, and compares every bit."""
    optimizer = model.optimizer
    described = describe(model)
    variables = model.trainable_variables
    layout = Layout(tuple(Variable(v.path, tuple(v.shape), d) for v, d in zip(variables, described.decay, strict=True)))
    params = flat(variables)
    ours = build(described.spec)
    slots = {name: np.full(params.size, ours.initial(name), np.float32) for name in ours.slot_names}
    cuts = np.cumsum([v.size for v in layout.trainable])[:-1]
    for step in range(STEPS):
        grad = gradients(step, params.size)
        if rate_of_step:
            optimizer.learning_rate = rate_of_step(step)
        rate = float(optimizer.learning_rate) if rate_of_step else described.learning_rate(step)
        parts = [tf.constant(g.reshape(s)) for g, s in zip(np.split(grad, cuts), SHAPES, strict=True)]
        optimizer.apply(parts, variables)
        for low, high in partition_bounds(params.size, ps):
            part = {name: slot[low:high] for name, slot in slots.items()}
            ours.apply(params[low:high], grad[low:high], part, step, rate, layout.decay_ranges(low, high))
    assert_same(params, flat(variables))
    for name, slot in slots.items():
        (theirs,) = (getattr(optimizer, a) for a in ATTRIBUTES[name] if getattr(optimizer, a, None))
        assert_same(slot, flat(theirs))


def assert_same(ours, theirs):
    assert np.isfinite(theirs).all()
    if available():
        assert np.array_equal(ours.view(np.uint32), theirs.view(np.uint32))
    else:
        assert np.all(np.abs(ours - theirs) <= 1e-5 * np.abs(theirs) + 1e-6)


@pytest.mark.parametrize("variant", VARIANTS)
def test_constant_learning_rate(variant):
    assert_equal_to_keras(model_with(VARIANTS[variant]()))


@pytest.mark.parametrize("variant", ["sgd-nesterov-decay", "rmsprop-centered", "adagrad", "adamw"])
def test_learning_rate_that_changes_at_each_step_and_excluded_variables(variant):
    model = model_with(VARIANTS[variant]())
    model.optimizer.exclude_from_weight_decay(
        var_list=[model.trainable_variables[0], model.trainable_variables[3]], var_names=["bias"]
    )
    assert describe(model).decay == [False, False, True, False]
    assert_equal_to_keras(model, rate_of_step=lambda step: 0.01 / (1 + step % 7))


@pytest.mark.parametrize(
    "schedule",
    [
        keras.optimizers.schedules.ExponentialDecay(0.01, 30, 0.7),
        keras.optimizers.schedules.CosineDecay(0.0, 150, warmup_target=0.01, warmup_steps=20),
        keras.optimizers.schedules.PiecewiseConstantDecay([50, 120], [0.01, 0.003, 0.001]),
    ],
    ids=lambda s: type(s).__name__,
)
def test_schedule(schedule):
    assert_equal_to_keras(model_with(keras.optimizers.AdamW(schedule, weight_decay=0.1)), ps=3)


@pytest.mark.parametrize(("beta_1", "beta_2"), [(0.9, 0.999), (0.5, 0.98), (0.99, 0.9999), (0.0, 0.95)])
def test_bias_correction_is_exact_at_any_step(beta_1, beta_2):
    ours = build(describe(model_with(keras.optimizers.Adam(0.003, beta_1=beta_1, beta_2=beta_2))).spec)
    theirs = keras.optimizers.Adam(0.003, beta_1=beta_1, beta_2=beta_2)
    variable = keras.Variable(np.ones(3, np.float32))
    theirs.build([variable])
    grad = np.array([1.0, -0.3, 1e-4], np.float32)
    for iteration in [*range(0, 400, 7), 1000, 9999, 123456, 2**24 - 1, 2**24 + 2]:
        for v, value in ((variable, 1.0), (theirs._momentums[0], 0.2), (theirs._velocities[0], 0.1)):
            v.assign(np.full(3, value, np.float32))
        theirs.iterations.assign(iteration)
        theirs.apply([tf.constant(grad)])
        params, slots = np.ones(3, np.float32), {"momentum": np.full(3, 0.2, np.float32)}
        slots["velocity"] = np.full(3, 0.1, np.float32)
        ours.apply(params, grad, slots, iteration, float(np.float32(0.003)), [])
        assert_same(params, variable.numpy())
