"""evaluate: what Keras says about the same arrays, each sample once."""

from __future__ import annotations

import math
import os

os.environ.setdefault("KERAS_BACKEND", "tensorflow")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfleet.data.source import Batch, Source
from tfleet.spec.errors import WrongInput
from tfleet.worker.evaluate import Evaluator, evaluate, rows_at_once

pytestmark = pytest.mark.tf

N = 203
"""Neither a multiple of a batch nor of 8 batches of 20."""


class Rows(Source):
    """Array rows; remembers which indices it was asked for, and can fail."""

    def __init__(self, x, y, weight=None, fails=False):
        self.parts = (x, y, weight)
        self.asked: list[np.ndarray] = []
        self.fails = fails

    def __len__(self):
        return len(keras.tree.flatten(self.parts[0])[0])

    def batch(self, indices):
        if self.fails:
            raise WrongInput("the file x.csv is damaged at line 7; repair it")
        self.asked.append(indices)
        # As a walk over trees does it: Keras's own flattens None as a leaf.
        taken = [None if p is None else keras.tree.map_structure(lambda a: a[indices], p) for p in self.parts]
        return Batch(*taken, len(indices))


class Batches(Rows):
    """Items that are batches of unequal sizes."""

    items_are_batches = True
    cuts = (0, 50, 57, 150, N)

    def __len__(self):
        return len(self.cuts) - 1

    def batch(self, indices):
        assert len(indices) == 1
        low, high = self.cuts[indices[0]], self.cuts[indices[0] + 1]
        return super().batch(np.arange(low, high))


@pytest.fixture(scope="module")
def data():
    rng = np.random.default_rng(1)
    x = rng.standard_normal((N, 6)).astype("float32")
    y = (x[:, 0] + 0.5 * rng.standard_normal(N) > 0).astype("int64")
    return x, y, rng.random(N).astype("float32")


@pytest.fixture(scope="module")
def binary():
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [keras.Input((6,)), keras.layers.Dense(5, "relu"), keras.layers.Dropout(0.5), keras.layers.Dense(1, "sigmoid")]
    )
    model.compile(
        "adam",
        "binary_crossentropy",
        metrics=["accuracy", keras.metrics.AUC(name="auc")],
        weighted_metrics=[keras.metrics.BinaryAccuracy(name="weighted")],
    )
    return model


def test_each_sample_counts_once_with_a_partial_last_batch(binary, data):
    x, y, _ = data
    source = Rows(x, y)
    found = evaluate(binary, source, 20)
    wanted = binary.evaluate(x, y, verbose=0, return_dict=True)
    assert set(found) == {"loss", "accuracy", "auc", "weighted"}
    assert found == pytest.approx(wanted, rel=1e-5)
    assert all(type(value) is float for value in found.values())
    assert [len(indices) for indices in source.asked] == [1, 160, 43]


@pytest.mark.parametrize(
    ("samples", "batch_size", "rows"), [(1000, 20, 125), (10_000, 200, 500), (203, 20, 160), (7, 20, 160), (7, 1, 7)]
)
def test_batches_are_of_one_size_where_a_near_one_divides_the_samples(samples: int, batch_size: int, rows: int):
    assert rows_at_once(samples, batch_size) == rows


def test_sample_weights(binary, data):
    x, y, weight = data
    found = evaluate(binary, Rows(x, y, weight), 20)
    assert found == pytest.approx(binary.evaluate(x, y, sample_weight=weight, verbose=0, return_dict=True), rel=1e-5)
    assert found["loss"] != pytest.approx(evaluate(binary, Rows(x, y), 20)["loss"], rel=1e-2)


def test_items_that_are_batches_are_taken_as_they_are(binary, data):
    x, y, weight = data
    source = Batches(x, y, weight)
    found = evaluate(binary, source, 20)
    assert found == pytest.approx(binary.evaluate(x, y, sample_weight=weight, verbose=0, return_dict=True), rel=1e-5)
    assert {len(indices) for indices in source.asked} == {50, 7, 93, 53}


def test_an_evaluator_follows_the_model(binary, data):
    x, y, _ = data
    model = keras.models.clone_model(binary)
    model.compile("sgd", "binary_crossentropy", metrics=[keras.metrics.AUC(name="auc")])
    evaluator = Evaluator(model, Rows(x, y), 20)
    first = evaluator.metrics()
    model.set_weights([-w for w in model.get_weights()])
    second = evaluator.metrics()
    assert second != first
    assert second == pytest.approx(model.evaluate(x, y, verbose=0, return_dict=True), rel=1e-5)


def test_run_eagerly_is_obeyed(data):
    x, y, _ = data
    seen = []

    class Eager(keras.Model):
        def __init__(self):
            super().__init__()
            self.dense = keras.layers.Dense(1)

        def call(self, x):
            seen.append(tf.executing_eagerly())
            return self.dense(x)

    model = Eager()
    model.compile("sgd", "mse", run_eagerly=True)
    found = evaluate(model, Rows(x, y.astype("float32")), 20)
    assert found["loss"] == pytest.approx(float(np.mean((np.ravel(model(x)) - y) ** 2)), rel=1e-5)
    assert len(seen) > 1
    assert all(seen[1:])  # Keras builds the model symbolically before its first step.


def test_the_same_bits_again_and_variables_untouched(binary, data):
    x, y, _ = data
    before = binary.get_weights()
    assert evaluate(binary, Rows(x, y), 20) == evaluate(binary, Rows(x, y), 20)
    assert all(np.array_equal(a, b) for a, b in zip(before, binary.get_weights(), strict=True))


def test_prints_nothing(binary, data, capfd):
    evaluate(binary, Rows(*data[:2]), 20)
    captured = capfd.readouterr()
    assert captured.out == ""


def test_several_inputs_in_a_list_and_outputs_in_a_dict(data):
    x, y, weight = data
    a, b = keras.Input((6,), name="a"), keras.Input((6,), name="b")
    both = keras.layers.Concatenate()([a, b])
    outputs = {
        "sign": keras.layers.Dense(1, "sigmoid", name="sign")(both),
        "value": keras.layers.Dense(2, name="value")(both),
    }
    model = keras.Model([a, b], outputs)
    model.compile(
        "sgd",
        {"sign": "binary_crossentropy", "value": "mse"},
        metrics={"sign": ["accuracy"], "value": ["mae"]},
        loss_weights={"sign": 0.3, "value": 1.0},
    )
    inputs, targets = [x, -x], {"sign": y[:, None], "value": x[:, :2]}
    weights = {"sign": weight, "value": 1 - weight}
    found = evaluate(model, Rows(inputs, targets, weights), 16)
    # In one batch: Keras counts the losses of the outputs alike for each batch, however small.
    wanted = model.evaluate(inputs, targets, sample_weight=weights, batch_size=N, verbose=0, return_dict=True)
    assert found == pytest.approx(wanted, rel=1e-5)
    assert {"loss", "sign_loss", "value_loss", "sign_accuracy", "value_mae"} == set(found)


def test_no_targets(data):
    inputs = keras.Input((6,))
    model = keras.Model(inputs, keras.layers.Dense(3, activity_regularizer="l2")(inputs))
    model.compile("sgd")
    found = evaluate(model, Rows(data[0], None), 20)
    assert found == pytest.approx(model.evaluate(data[0], batch_size=160, verbose=0, return_dict=True), rel=1e-5)
    assert found["loss"] > 0


def test_a_metric_with_several_values_gets_numbered(data):
    x, y, _ = data
    model = keras.Sequential([keras.Input((6,)), keras.layers.Dense(2, "softmax")])
    model.compile("sgd", "categorical_crossentropy", metrics=[keras.metrics.F1Score(name="f1")])
    found = evaluate(model, Rows(x, keras.utils.to_categorical(y, 2).astype("float32")), 20)
    assert set(found) == {"loss", "f1_0", "f1_1"}


def test_a_loss_that_is_not_finite_is_told(data):
    x, y, _ = data
    model = keras.Sequential([keras.Input((6,)), keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    spoilt = x.copy()
    spoilt[3, 2] = np.nan
    assert math.isnan(evaluate(model, Rows(spoilt, y), 20)["loss"])


def test_what_a_source_finds_wrong_arrives_as_it_said_it(binary, data):
    with pytest.raises(WrongInput, match=r"^the file x\.csv is damaged at line 7; repair it$"):
        evaluate(binary, Rows(*data[:2], fails=True), 20)


def test_a_batch_that_fails_late_arrives_as_it_said_it(binary, data):
    class Late(Batches):
        def batch(self, indices):
            self.fails = indices[0] == 3
            return super().batch(indices)

    with pytest.raises(WrongInput, match=r"^the file x\.csv"):
        evaluate(binary, Late(*data[:2]), 20)


def test_no_held_out_samples_are_refused(binary, data):
    with pytest.raises(WrongInput, match="no samples"):
        evaluate(binary, Rows(data[0][:0], data[1][:0]), 20)


def test_one_sample_tells_the_names_and_counts_for_nothing(binary, data):
    x, y, _ = data
    evaluator = Evaluator(binary, Rows(x, y), 20)
    assert evaluator.try_one() == ["loss", "accuracy", "auc", "weighted"]
    assert evaluator.metrics() == evaluate(binary, Rows(x, y), 20)


@pytest.mark.parametrize(
    ("x", "y", "told"),
    [
        (np.ones((3, 7), "float32"), np.ones(3), "expected axis -1 of input shape to have value 6"),
        (np.ones((3, 6), "float32"), np.ones((3, 5)), "the held-out data do not fit the model "),
        (np.ones((3, 6), "float32"), None, "the held-out data do not fit the model "),
    ],
)
def test_data_that_do_not_fit_are_refused_by_one_sample(binary, x, y, told):
    with pytest.raises(WrongInput) as refused:
        Evaluator(binary, Rows(x, y), 20).try_one()
    assert told in str(refused.value)
    assert "\n" not in str(refused.value)


def test_data_that_fail_late_are_refused_in_a_sentence():
    model = keras.Sequential([keras.Input((2,), dtype="int32"), keras.layers.Embedding(5, 2), keras.layers.Flatten()])
    model.add(keras.layers.Dense(1))
    model.compile("sgd", "mse", jit_compile=False)
    words = np.zeros((30, 2), "int32")
    words[29, 1] = 5
    with pytest.raises(WrongInput, match=r"the held-out data do not fit the model .*\(InvalidArgumentError: .* = 5"):
        evaluate(model, Rows(words, np.zeros((30, 1), "float32")), 20)
