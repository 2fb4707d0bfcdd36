"""When the gradient function is compiled with XLA."""

from __future__ import annotations

import os

os.environ["KERAS_BACKEND"] = "tensorflow"
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import pytest
from keras import layers

from tfleet.spec.errors import WrongInput
from tfleet.worker.xla import GREATEST_WORK, decide, dense_kind, given_jit_compile, remember_jit_compile

pytestmark = pytest.mark.tf


class Dense(layers.Dense):
    """A layer of one's own, with the name of one of Keras's."""


class Own(keras.Model):
    def call(self, inputs):
        return inputs


@pytest.fixture(autouse=True)
def _remembering():
    owner = next(c for c in keras.Model.__mro__ if "compile" in vars(c))
    original = owner.compile
    remember_jit_compile()
    yield
    owner.compile = original


def dense(**options):
    model = keras.Sequential([keras.Input((5,)), layers.Dense(4, "relu"), layers.Dropout(0.5), layers.Dense(3)])
    model.compile("sgd", "mse", **options)
    return model


def functional(join):
    inputs = keras.Input((4,))
    return keras.Model(inputs, join(layers.Dense(4)(inputs), inputs))


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        (dense, True),
        (lambda: functional(lambda a, b: layers.Add()([a, b])), True),
        (lambda: functional(lambda a, b: keras.Sequential([layers.BatchNormalization()])(a)), True),
        (lambda: functional(lambda a, b: a * b), False),
        (lambda: functional(lambda a, b: layers.Lambda(lambda t: t)(a)), False),
        (lambda: keras.Sequential([keras.Input((5,)), Dense(3)]), False),
        (lambda: keras.Sequential([keras.Input((8, 8, 1)), layers.Conv2D(2, 3)]), False),
        (lambda: keras.Sequential([keras.Input((8, 2)), layers.GRU(2)]), False),
        (lambda: keras.Sequential([keras.Input((8,)), layers.Embedding(3, 2)]), False),
        (lambda: functional(lambda a, b: keras.Sequential([layers.Embedding(3, 2)])(b)), False),
        (Own, False),
    ],
)
def test_dense_kind(model, expected):
    assert dense_kind(model()) is expected


@pytest.mark.parametrize(
    ("parameters", "batch", "accelerator", "expected"),
    [
        (79_510, 20, False, True),
        (795_010, 20, False, False),
        (GREATEST_WORK // 20, 20, False, True),
        (GREATEST_WORK // 20 + 1, 20, False, False),
        (79_510, 20, True, False),
    ],
)
def test_auto_is_a_rule_on_model_batch_and_device(parameters, batch, accelerator, expected):
    assert decide(dense(), "auto", parameters, batch, accelerator) is expected


def test_the_job_decides_where_compile_does_not():
    assert decide(dense(), "always", 10**9, 10**6, True)
    assert not decide(dense(), "never", 10, 1, False)


def test_what_compile_was_given_is_obeyed():
    assert decide(dense(jit_compile=True), "auto", 10**9, 10**6, False)
    assert decide(dense(jit_compile=True), "always", 10**9, 10**6, False)
    assert not decide(dense(jit_compile=False), "auto", 10, 1, False)
    assert decide(dense(jit_compile="auto"), "auto", 10, 1, False)


@pytest.mark.parametrize(("given", "choice"), [(True, "never"), (False, "always")])
def test_contradictions_are_refused(given, choice):
    with pytest.raises(WrongInput, match=f"xla={choice} is given, but the model is compiled with jit_compile={given}"):
        decide(dense(jit_compile=given), choice, 10, 1, False)


def test_remembers_what_compile_was_given():
    remember_jit_compile()
    assert given_jit_compile(dense()) is None
    assert given_jit_compile(dense(jit_compile="auto")) is None
    assert given_jit_compile(dense(jit_compile=False)) is False
    assert given_jit_compile(dense(jit_compile=True)) is True
    model = dense(jit_compile=True)
    model.compile("sgd", "mse")
    assert given_jit_compile(model) is None, "the last compile counts"


def test_keras_still_takes_compile_for_its_own(tmp_path):
    dense().save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert loaded.compiled
    assert loaded.loss == "mse"
