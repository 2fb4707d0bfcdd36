"""Batches of other sizes, shapes and dtypes than the first, and training as a whole."""

from __future__ import annotations

import os

os.environ["KERAS_BACKEND"] = "tensorflow"
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from tfleet.data.source import Batch
from tfleet.spec.errors import WrongInput
from tfleet.worker.gradient import GradientFunction
from tfleet.worker.traced import Tracer

pytestmark = pytest.mark.tf

CROSSENTROPY = keras.losses.SparseCategoricalCrossentropy(from_logits=True)


@pytest.fixture(autouse=True)
def _fresh():
    keras.utils.clear_session()
    keras.utils.set_random_seed(3)


@pytest.fixture
def compiled(monkeypatch):
    """Records whether each trace was for XLA."""
    traces = []
    original = Tracer.compile
    monkeypatch.setattr(Tracer, "compile", lambda self, xla: (traces.append(xla), original(self, xla))[1])
    return traces


def batch(n, features=5, seed=0):
    r = np.random.default_rng(seed)
    return Batch(r.normal(size=(n, features)).astype(np.float32), r.integers(0, 3, n), None, n)


def mlp(metrics=("accuracy",), **options):
    model = keras.Sequential([keras.Input((5,)), layers.Dense(4, activation="tanh"), layers.Dense(3)])
    model.compile("sgd", CROSSENTROPY, metrics=list(metrics), **options)
    return model


def part(whole, low, high):
    return Batch(whole.x[low:high], whole.y[low:high], None, high - low)


@pytest.mark.parametrize("xla", ["never", "always"])
def test_partial_batches_trace_once(compiled, xla):
    function = GradientFunction(mlp(), batch(8), seed=0, xla=xla)
    assert compiled == [xla == "always"]
    parameters, state, _ = function.initial()
    whole = function(parameters, state, batch(8), 0, 0)
    total = np.zeros_like(whole.gradient)
    metrics = np.zeros_like(whole.metrics)
    for low, high in ((0, 1), (1, 4), (4, 8)):
        step = function(parameters, state, part(batch(8), low, high), 0, 1)
        total += step.gradient * (high - low) / 8
        metrics += step.metrics
    np.testing.assert_allclose(total, whole.gradient, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(metrics, whole.metrics, rtol=1e-5)
    assert compiled == ([True, False] if xla == "always" else [False])


def test_totals_of_each_output_are_right_for_any_size():
    inputs = keras.Input((5,))
    model = keras.Model(inputs, [layers.Dense(1, name="p")(inputs), layers.Dense(3, name="q")(inputs)])
    model.compile("sgd", ["mse", CROSSENTROPY], loss_weights=[0.5, 2.0])
    whole = batch(8)._replace(y=[np.ones((8, 1), np.float32), batch(8).y])
    function = GradientFunction(model, whole, seed=0, xla="always")
    parameters, state, _ = function.initial()
    assert function.layout.metrics == ("loss", "p_loss", "q_loss")
    full = function(parameters, state, whole, 0, 0).metrics
    parts = [
        function(parameters, state, Batch(whole.x[a:b], [y[a:b] for y in whole.y], None, b - a), 0, 0).metrics
        for a, b in ((0, 3), (3, 8))
    ]
    np.testing.assert_allclose(sum(parts), full, rtol=1e-5)
    assert list(full[1::2]) == [8, 8, 8]
    loss, p, q = full[::2] / full[1::2]
    np.testing.assert_allclose(0.5 * p + 2 * q, loss, rtol=1e-5)


def test_other_lengths_trace_once_more(compiled):
    model = keras.Sequential(
        [keras.Input((None,), dtype="int32"), layers.Embedding(9, 3), layers.GlobalMaxPooling1D(), layers.Dense(3)]
    )
    model.compile("sgd", CROSSENTROPY)

    def sequences(n, length):
        return Batch(np.random.default_rng(length).integers(0, 9, (n, length)), np.arange(n) % 3, None, n)

    function = GradientFunction(model, sequences(4, 6), seed=0)
    parameters, state, _ = function.initial()
    for n, length in ((4, 6), (4, 3), (2, 8), (4, 5), (3, 6)):
        step = function(parameters, state, sequences(n, length), 0, 0)
        whole = sequences(n, length)
        np.testing.assert_allclose(step.loss, model.compute_loss(y=whole.y, y_pred=model(whole.x)), rtol=1e-5)
    assert compiled == [False, False]


def test_later_dtypes_are_cast_where_nothing_is_lost():
    function = GradientFunction(mlp(), batch(4), seed=0, xla="never")
    parameters, state, _ = function.initial()
    expected = function(parameters, state, batch(4), 0, 0).loss
    narrow = batch(4)._replace(y=batch(4).y.astype(np.int32), x=batch(4).x.astype(np.float64))
    assert function(parameters, state, narrow, 0, 0).loss == expected
    with pytest.raises(WrongInput, match="dtype float32, but in the first it was int64"):
        function(parameters, state, batch(4)._replace(y=batch(4).y.astype(np.float32)), 0, 0)


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        (batch(4)._replace(sample_weight=np.ones(4, np.float32)), "the same structure"),
        (batch(4)._replace(x={"a": batch(4).x}), "the same structure"),
        (batch(4)._replace(x=batch(4).x[..., None]), "the same number of axes"),
        (batch(4, features=6), "batch 0 of epoch 0 cannot be computed .*In\\[0\\]: \\[4,6\\]"),
    ],
)
def test_a_batch_unlike_the_others_is_refused(wrong, sentence):
    function = GradientFunction(mlp(), batch(4), seed=0, xla="never")
    with pytest.raises(WrongInput, match=sentence):
        function(*function.initial()[:2], wrong, 0, 0)


def test_values_that_cannot_be_computed_name_the_batch():
    model = keras.Sequential(
        [keras.Input((2,), dtype="int32"), layers.Embedding(5, 2), layers.Flatten(), layers.Dense(3)]
    )
    model.compile("sgd", CROSSENTROPY)
    words = Batch(np.array([[1, 2], [3, 4]]), np.array([0, 1]), None, 2)
    function = GradientFunction(model, words, seed=0)
    with pytest.raises(WrongInput, match=r"batch 7 of epoch 3 cannot be computed .*indices.* = 9 is not in \[0, 5\)"):
        function(*function.initial()[:2], words._replace(x=words.x * 0 + 9), 3, 7)


@pytest.mark.parametrize("xla", ["never", "always"])
def test_training_equals_fit(xla):
    """50 steps of SGD on the same batches, BatchNormalization and regulariser included, within 1e-5."""
    n, size, rate = 50, 6, 0.1
    data = batch(n * size)
    weights = np.random.default_rng(5).random(n * size).astype(np.float32)

    def make():
        keras.utils.clear_session()
        keras.utils.set_random_seed(1)
        stack = [keras.Input((5,)), layers.Dense(8, activation="tanh", kernel_regularizer="l2")]
        model = keras.Sequential([*stack, layers.BatchNormalization(), layers.Dense(3)])
        model.compile(keras.optimizers.SGD(rate), CROSSENTROPY, metrics=["accuracy"], weighted_metrics=["accuracy"])
        return model

    def slice_of(i):
        cut = slice(i * size, (i + 1) * size)
        return Batch(data.x[cut], data.y[cut], weights[cut], size)

    function = GradientFunction(make(), slice_of(0), seed=0, xla=xla)
    parameters, state, _ = function.initial()
    totals = 0.0
    for i in range(n):
        step = function(parameters, state, slice_of(i), 0, i)
        parameters = parameters - np.float32(rate) * step.gradient
        state = step.state
        totals = totals + step.metrics.astype(np.float64)

    model = make()
    logs = model.fit(data.x, data.y, sample_weight=weights, batch_size=size, shuffle=False, verbose=0).history
    np.testing.assert_allclose(parameters, np.concatenate([np.ravel(v) for v in model.trainable_variables]), 1e-5, 1e-6)
    np.testing.assert_allclose(state, np.concatenate([np.ravel(v) for v in model.non_trainable_variables]), 1e-5, 1e-6)
    assert set(function.layout.metrics) == set(logs)
    assert len(logs) == 3
    means = dict(zip(function.layout.metrics, totals[::2] / totals[1::2], strict=True))
    for name, (value,) in logs.items():
        np.testing.assert_allclose(means[name], value, rtol=1e-5, err_msg=name)


def test_metrics_that_are_not_means_are_left_to_evaluation():
    class Third(keras.metrics.Metric):
        def __init__(self):
            super().__init__(name="third")
            self.total = self.add_variable(shape=(), initializer="zeros", name="total")

        def update_state(self, y_true, y_pred, sample_weight=None):
            self.total.assign_add(1.0)

        def result(self):
            return self.total

    inputs = keras.Input((5,))
    model = keras.Model(inputs, layers.Dense(1, activation="sigmoid")(inputs))
    metrics = ["mae", keras.metrics.AUC(), "RootMeanSquaredError", Third(), "accuracy", keras.metrics.Precision()]
    model.compile("sgd", "binary_crossentropy", metrics=metrics, weighted_metrics=["mse"])
    data = batch(6)._replace(y=(batch(6).y > 0).astype(np.float32)[:, None])
    for xla in ("never", "always"):
        function = GradientFunction(model, data, seed=0, xla=xla)
        assert function.layout.metrics == ("loss", "mae", "accuracy", "mse")
        step = function(*function.initial()[:2], data, 0, 0)
        logs = model.evaluate(data.x, data.y, verbose=0, return_dict=True)
        means = step.metrics[::2] / step.metrics[1::2]
        np.testing.assert_allclose(means, [logs[name] for name in function.layout.metrics], rtol=1e-5)


def test_metrics_of_layers_and_of_the_model_itself():
    class Watched(layers.Dense):
        def __init__(self, units):
            super().__init__(units)
            self.size = keras.metrics.Mean(name="size")

        def call(self, inputs):
            self.size.update_state(keras.ops.mean(inputs**2, axis=-1))
            return super().call(inputs)

    class Model(keras.Sequential):
        def __init__(self, stack):
            super().__init__(stack)
            self.own = keras.metrics.Mean(name="own")

        def compute_metrics(self, x, y, y_pred, sample_weight=None):
            self.own.update_state(keras.ops.max(y_pred, axis=-1))
            return super().compute_metrics(x, y, y_pred, sample_weight)

    model = Model([keras.Input((5,)), Watched(3)])
    model.compile("sgd", CROSSENTROPY, metrics=["accuracy"])
    function = GradientFunction(model, batch(6), seed=0, xla="never")
    assert function.layout.metrics == ("loss", "accuracy", "own", "size")
    step = function(*function.initial()[:2], batch(6), 0, 0)
    assert list(step.metrics[1::2]) == [6, 6, 6, 6]
    np.testing.assert_allclose(step.metrics[6], np.sum(np.mean(batch(6).x ** 2, -1)), rtol=1e-5)
    np.testing.assert_allclose(step.metrics[4], np.sum(np.max(model(batch(6).x), -1)), rtol=1e-5)
    assert not function.layout.state
    assert not function.layout.frozen


def test_a_loss_that_xla_cannot_compile_takes_a_graph_by_itself():
    def unusual(y_true, y_pred):
        opaque = tf.numpy_function(lambda a: a, [y_pred], tf.float32)
        return tf.reduce_mean(y_pred**2) + 0.0 * tf.reduce_sum(tf.ensure_shape(opaque, y_pred.shape))

    model = mlp(metrics=())
    model.compile("sgd", unusual)
    function = GradientFunction(model, batch(4), seed=0, xla="auto")
    assert not function.uses_xla
    assert function(*function.initial()[:2], batch(4), 0, 0).gradient.any()
    with pytest.raises(WrongInput, match="batch 0 of epoch 0 cannot be computed"):
        GradientFunction(model, batch(4), seed=0, xla="always")
