"""What the gradient function cannot carry is refused, by name and in one sentence."""

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

pytestmark = pytest.mark.tf

CROSSENTROPY = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
X = np.linspace(-1, 1, 20, dtype=np.float32).reshape(4, 5)
Y = np.arange(4) % 3


@pytest.fixture(autouse=True)
def _fresh():
    keras.utils.clear_session()
    yield
    keras.config.set_dtype_policy("float32")


def refusal(model, x=X, y=Y, weight=None):
    with pytest.raises(WrongInput) as caught:
        GradientFunction(model, Batch(x, y, weight, 4), seed=0, xla="never")
    sentence = str(caught.value)
    assert "\n" not in sentence
    return sentence


def sequential(*stack, loss=CROSSENTROPY, **options):
    model = keras.Sequential([keras.Input((5,)), *stack, layers.Dense(3)])
    model.compile("sgd", loss, **options)
    return model


class RawWeight(layers.Layer):
    def __init__(self, trainable_raw):
        super().__init__()
        self.raw = tf.Variable(tf.ones([5]), trainable=trainable_raw, name="raw")

    def call(self, inputs):
        return inputs * self.raw


class RawCounter(layers.Layer):
    def __init__(self):
        super().__init__()
        self.calls = tf.Variable(0.0, trainable=False, name="calls")

    def call(self, inputs):
        self.calls.assign_add(1.0)
        return inputs


class Counter(layers.Layer):
    def build(self, shape):
        self.calls = self.add_weight(shape=(), dtype="int32", trainable=False, initializer="zeros", name="calls")

    def call(self, inputs):
        self.calls.assign_add(1)
        return inputs


class Table(layers.Layer):
    def __init__(self, values, dtype_of_table):
        super().__init__()
        self.values = values
        self.dtype_of_table = dtype_of_table

    def build(self, shape):
        self.table = self.add_weight(
            shape=(5,),
            dtype=self.dtype_of_table,
            trainable=False,
            initializer=lambda shape, dtype: np.full(shape, self.values, dtype),
            name="table",
            autocast=False,
        )

    def call(self, inputs):
        return inputs * keras.ops.cast(self.table, "float32")


class TensorFlowNoise(layers.Layer):
    def call(self, inputs):
        return inputs + tf.random.normal(tf.shape(inputs))


def test_variables_that_keras_does_not_know():
    sentence = refusal(sequential(RawWeight(True)))
    assert "tf.Variable raw:0, which Keras does not know" in sentence
    assert "add_weight" in sentence
    assert "assigns a tf.Variable (calls:0)" in refusal(sequential(RawCounter()))
    # A constant that nobody changes is the same in every build.
    GradientFunction(sequential(RawWeight(False)), Batch(X, Y, None, 4), seed=0, xla="never")


def test_state_that_is_not_float32():
    sentence = refusal(sequential(Counter()))
    assert "calls, which training assigns, is int32" in sentence


def test_frozen_values_that_float32_does_not_hold():
    assert "table is int64 with values that float32 does not hold" in refusal(sequential(Table(2**24 + 1, "int64")))
    assert "table is float64" in refusal(sequential(Table(0.1, "float64")))
    function = GradientFunction(sequential(Table(7, "int64")), Batch(X, Y, None, 4), seed=0, xla="never")
    assert list(function.initial()[2]) == [7] * 5
    function.assign(*function.initial()[:2], np.arange(5, dtype=np.float32))
    assert list(function.initial()[2]) == [0, 1, 2, 3, 4]


def test_trainable_variables_that_are_not_float32():
    keras.config.set_dtype_policy("bfloat16")
    assert "is bfloat16, but only float32 is trained" in refusal(sequential())


def test_trainable_variables_that_the_call_assigns():
    model = sequential(layers.SpectralNormalization(layers.Dense(4)))
    sentence = refusal(model)
    assert "kernel, which trains too, in its call" in sentence


def test_nothing_to_train():
    model = keras.Sequential([keras.Input((5,)), layers.Flatten()])
    model.compile("sgd", "mse")
    assert "has no trainable variables" in refusal(model, y=X)

    def constant(y_true, y_pred):
        return tf.stop_gradient(y_pred)

    assert "depends on none of its trainable variables" in refusal(sequential(loss=constant))


def test_random_numbers_of_tensorflow():
    assert "TensorFlow's own RandomStandardNormal" in refusal(sequential(TensorFlowNoise()))


def test_no_loss():
    assert "is compiled without a loss" in refusal(sequential(loss=None))


def test_a_loss_that_is_not_one_number():
    class Vector(keras.Sequential):
        def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
            return y_pred

    model = Vector([keras.Input((5,)), layers.Dense(3)])
    model.compile("sgd")
    assert "must return one number" in refusal(model)


@pytest.mark.parametrize(
    ("x", "y", "parts"),
    [
        (X[:, :4], Y, ["inputs [4, 4] float32", "of shape (None, 5)"]),
        (np.array(list("abcd")), Y, ["inputs [4] str32", "Cast string to float is not supported"]),
        ({"a": X, "b": X}, Y, ["inputs {a: [4, 5] float32, b: [4, 5] float32}", "of shape (None, 5)"]),
        (X, np.ones((4, 7), np.float32), ["targets [4, 7] float32", "outputs [4, 3] float32"]),
        (X, None, ["targets None", "outputs [4, 3] float32"]),
        (X, Y + 2, ["which is outside the valid range of [0, 3)"]),
        (X, Y[:3], ["shapes [[4, 5], [3]]", "the first axis of each must be the samples"]),
    ],
)
def test_data_that_do_not_fit(x, y, parts):
    sentence = refusal(sequential(metrics=["accuracy"]), x, y)
    assert all(part in sentence for part in parts), sentence


def test_an_error_in_the_models_own_code_is_shown():
    class Broken(keras.Model):
        def call(self, inputs):
            return inputs.nonsense

    model = Broken()
    model.compile("sgd", "mse")
    assert "nonsense" in refusal(model)


def test_dates_are_no_numbers():
    assert "dtype datetime64[D]" in refusal(sequential(), x=np.array(["2020-01-01"] * 4, "datetime64[D]"))
