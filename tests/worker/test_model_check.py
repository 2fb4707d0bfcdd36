"""What of a compiled model is refused before it is built."""

from __future__ import annotations

import os

os.environ["KERAS_BACKEND"] = "tensorflow"
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import pytest
from keras import layers

from tfleet.spec.errors import WrongInput
from tfleet.worker.model_check import check_model, in_short

pytestmark = pytest.mark.tf


class Own(keras.Sequential):
    """A model whose own code is allowed."""

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        return super().compute_loss(x, y, y_pred, sample_weight, training)

    def test_step(self, data):
        return super().test_step(data)


class OwnStep(keras.Sequential):
    def train_step(self, data):
        return super().train_step(data)


class OwnFit(keras.Model):
    def fit(self, *args, **kwargs):
        return super().fit(*args, **kwargs)


class Wrapping(layers.Layer):
    def __init__(self):
        super().__init__()
        self.inner = layers.GRU(2, stateful=True, name="remembering")


def compiled(model, **options):
    model.compile("sgd", "mse", **options)
    return model


def assigned_step():
    model = compiled(keras.Sequential([layers.Dense(1)]))
    model.train_step = lambda data: {}
    return model


def test_what_is_allowed():
    for model in (keras.Sequential([layers.Dense(1)]), Own([layers.Dense(1)]), keras.Sequential([layers.GRU(2)])):
        assert check_model(compiled(model)) is model


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: None, r"is nothing \(None\), but it must be a compiled keras.Model"),
        (lambda: layers.Dense(1), "is of type Dense, but it must be"),
        (lambda: keras.Sequential([layers.Dense(1)]), r"is not compiled; call model.compile"),
        (lambda: compiled(OwnStep([layers.Dense(1)])), r"\(OwnStep\) has a train_step of its own"),
        (lambda: compiled(OwnFit()), r"\(OwnFit\) has a fit of its own"),
        (assigned_step, "has a train_step of its own"),
        (lambda: compiled(keras.Sequential([layers.Dense(1)]), run_eagerly=True), "run_eagerly=True"),
        (lambda: compiled(keras.Sequential([layers.Dense(1)]), steps_per_execution=4), "steps_per_execution=4"),
        (lambda: compiled(keras.Sequential([Wrapping()])), r"layer remembering \(GRU\) has stateful=True"),
    ],
)
def test_what_is_refused(make, sentence):
    with pytest.raises(WrongInput, match=sentence):
        check_model(make())


@pytest.mark.parametrize(
    ("text", "short"),
    [
        ("Exception encountered when calling Dense.call().\n\n\x1b[1mbad shape\x1b[0m\n\nArguments: x", "bad shape"),
        ('Graph execution error:\n\nDetected at node a defined at\n  File "x.py", line 1\n\nindex 9', "index 9"),
        ("{{function_node a}} Cast is not supported [Op:Cast] name: ", "Cast is not supported"),
        ("", "no message"),
        ("plain.", "plain"),
    ],
)
def test_errors_in_short(text, short):
    assert in_short(ValueError(text)) == f"ValueError: {short}"
    assert len(in_short(ValueError("x" * 10_000))) < 400
