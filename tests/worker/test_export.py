"""export: a version folder that TensorFlow Serving and Keras load, with the answers of the model."""

from __future__ import annotations

import json
import logging
import os
from pathlib import Path

os.environ.setdefault("KERAS_BACKEND", "tensorflow")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import numpy as np
import pytest
import tensorflow as tf

import tfleet
from tfleet.spec.errors import JobFailed, WrongInput
from tfleet.tasks import mnist
from tfleet.worker.evaluate import evaluate
from tfleet.worker.export import export

pytestmark = pytest.mark.tf


def digits_model():
    keras.utils.set_random_seed(3)
    model = keras.Sequential(
        [
            keras.Input((28, 28, 1), name="image"),
            keras.layers.Conv2D(2, 3, activation="relu"),
            keras.layers.BatchNormalization(),
            keras.layers.Flatten(),
            keras.layers.Dropout(0.5),
            keras.layers.Dense(10),
        ]
    )
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile("adam", loss, metrics=["accuracy"])
    # Moving averages that matter, as after training.
    model.set_weights([w + 0.1 * np.random.default_rng(0).random(w.shape, "float32") for w in model.get_weights()])
    return model


def digits_signatures(model):
    @tf.function(input_signature=[tf.TensorSpec([None, 28, 28, 1], tf.float32, name="image")])
    def predict(image):
        probabilities = tf.nn.softmax(model(image, training=False))
        return {"classes": tf.argmax(probabilities, axis=1), "probabilities": probabilities}

    @tf.function(input_signature=[tf.TensorSpec([None, 28, 28, 1], tf.uint8, name="image")])
    def predict_uint8(image):
        return predict(tf.cast(image, tf.float32) / 255.0)

    return {"serving_default": predict, "predict": predict, "predict_uint8": predict_uint8}


@pytest.fixture(scope="module")
def model():
    return digits_model()


@pytest.fixture(scope="module")
def pixels():
    return np.random.default_rng(1).integers(0, 256, (7, 28, 28, 1), dtype=np.uint8)


@pytest.fixture(scope="module")
def exported(model, tmp_path_factory):
    facts = {"task": "digits", "params": {"a": "1"}, "step": 40, "metrics": {"loss": float("nan"), "accuracy": 0.5}}
    return export(model, digits_signatures(model), tmp_path_factory.mktemp("run") / "export", facts=facts)


def test_signatures_of_the_task_give_the_models_answers(model, pixels, exported):
    loaded = tf.saved_model.load(str(exported))
    assert set(loaded.signatures) == {"serving_default", "predict", "predict_uint8"}
    image = (pixels / np.float32(255)).astype("float32")
    wanted = tf.nn.softmax(model(image, training=False)).numpy()
    for name, given in (("serving_default", image), ("predict", image), ("predict_uint8", pixels)):
        answer = loaded.signatures[name](image=tf.constant(given))
        assert set(answer) == {"classes", "probabilities"}
        assert answer["classes"].dtype == tf.int64
        assert answer["probabilities"].dtype == tf.float32
        np.testing.assert_allclose(answer["probabilities"], wanted, rtol=0, atol=1e-6)
        np.testing.assert_array_equal(answer["classes"], wanted.argmax(axis=1))


@pytest.mark.parametrize("kind", ["mlp", "cnn"])
def test_the_mnist_task(kind, pixels, tmp_path):
    model = mnist.task.model(model=kind, hidden_units=5)
    loaded = tf.saved_model.load(str(export(model, mnist.task.signatures(model), tmp_path)))
    wanted = tf.nn.softmax(model((pixels / np.float32(255)).astype("float32"), training=False))
    for name, image in (("predict", (pixels / np.float32(255)).astype("float32")), ("predict_uint8", pixels)):
        answer = loaded.signatures[name](image=tf.constant(image))
        np.testing.assert_allclose(answer["probabilities"], wanted, rtol=0, atol=1e-6)
        assert answer["classes"].dtype == tf.int64


def test_keras_loads_its_file(model, pixels, exported):
    loaded = keras.models.load_model(exported / "model.keras")
    image = pixels.astype("float32") / 255
    np.testing.assert_array_equal(loaded(image, training=False), model(image, training=False))
    assert loaded.compiled


def test_facts(exported):
    facts = json.loads((exported / "tfleet.json").read_text())
    assert facts["metrics"] == {"loss": "nan", "accuracy": 0.5}
    assert (facts["task"], facts["params"], facts["step"]) == ("digits", {"a": "1"}, 40)
    assert facts["versions"]["tensorflow"] == tf.__version__
    assert facts["versions"]["tfleet"] == tfleet.__version__
    assert set(facts["versions"]) == {"tensorflow", "keras", "tfleet"}


@pytest.mark.parametrize(
    ("function", "words"),
    [
        (lambda x: x, "signature predict of the task is a function without an input signature"),
        (tf.function(lambda x: x), "without an input signature"),
        (tf.function(lambda x: [][1], input_signature=[tf.TensorSpec([None])]), "signature predict of the task"),
    ],
)
def test_a_signature_that_cannot_be_used_is_refused(model, tmp_path, function, words):
    with pytest.raises(WrongInput, match=words):
        export(model, {"predict": function}, tmp_path / "export")
    assert not (tmp_path / "export").exists()


def test_versions_count_up_from_one_and_leave_nothing_else(model, tmp_path):
    assert export(model, None, tmp_path / "export") == tmp_path / "export" / "1"
    assert export(model, None, tmp_path / "export", version=7).name == "7"
    assert export(model, None, tmp_path / "export").name == "8"
    assert sorted(p.name for p in (tmp_path / "export").iterdir()) == ["1", "7", "8"]


def test_a_version_is_never_overwritten(model, tmp_path):
    first = export(model, None, tmp_path, version=3)
    stamp = (first / "saved_model.pb").stat().st_mtime_ns
    with pytest.raises(WrongInput, match="version 3 exists"):
        export(model, None, tmp_path, version=3)
    assert (first / "saved_model.pb").stat().st_mtime_ns == stamp
    assert [p.name for p in tmp_path.iterdir()] == ["3"]


@pytest.mark.parametrize("version", [0, -1])
def test_a_version_below_one_is_refused(model, tmp_path, version):
    with pytest.raises(WrongInput, match=f"version {version} "):
        export(model, None, tmp_path, version=version)


def test_another_that_takes_the_number_meanwhile_is_stepped_over(model, tmp_path, monkeypatch):
    rename, taken = os.rename, []

    def rename_too_late(source, target):
        if not taken:
            taken.append(target)
            Path(target).mkdir()
            (Path(target) / "saved_model.pb").touch()
        rename(source, target)

    monkeypatch.setattr(os, "rename", rename_too_late)
    assert export(model, None, tmp_path).name == "2"
    assert taken == [tmp_path / "1"]
    assert [p.name for p in (tmp_path / "1").iterdir()] == ["saved_model.pb"]


def test_what_is_being_written_has_no_number(model, tmp_path, monkeypatch):
    seen = []
    rename = os.rename

    def look_and_rename(source, target):
        seen.extend(p.name for p in tmp_path.iterdir())
        seen.extend(sorted(p.name for p in Path(source).iterdir()))
        rename(source, target)

    monkeypatch.setattr(os, "rename", look_and_rename)
    export(model, None, tmp_path)
    assert seen[0].startswith(".tmp-")
    assert {"model.keras", "saved_model.pb", "tfleet.json", "variables"} <= set(seen[1:])


def test_a_failure_leaves_nothing(model, tmp_path, monkeypatch):
    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(keras.Model, "save", full)
    with pytest.raises(JobFailed, match="No space left on device"):
        export(model, None, tmp_path / "export")
    assert list((tmp_path / "export").iterdir()) == []


def test_a_full_disk_is_told_without_tensorflows_detours(model, tmp_path, monkeypatch):
    def full(*_, **__):
        text = "{{function_node __wrapped__SaveV2}} /tmp/part-0.tempstate1; No space left on device [Op:SaveV2]"
        raise tf.errors.ResourceExhaustedError(None, None, text)

    monkeypatch.setattr(tf.saved_model, "save", full)
    with pytest.raises(JobFailed, match=f"exported to {tmp_path}: No space left on device; make room there, then run"):
        export(model, None, tmp_path)


def test_a_folder_that_cannot_be_made_is_told(model, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(JobFailed, match=str(tmp_path / "file")):
        export(model, None, tmp_path / "file" / "export")


def test_others_may_read_a_version(model, tmp_path):
    umask = os.umask(0o022)
    try:
        version = export(model, None, tmp_path)
    finally:
        os.umask(umask)
    assert version.stat().st_mode & 0o777 == 0o755
    assert (version / "model.keras").stat().st_mode & 0o444 == 0o444


def test_default_signatures_of_several_inputs_and_outputs(tmp_path):
    inputs = {"words": keras.Input((4,), dtype="int32", name="w"), "age": keras.Input((1,), name="age")}
    embedded = keras.layers.GlobalAveragePooling1D()(keras.layers.Embedding(9, 3)(inputs["words"]))
    both = keras.layers.Concatenate()([embedded, inputs["age"]])
    outputs = {"sign": keras.layers.Dense(1)(both), "value": keras.layers.Dense(2)(both)}
    model = keras.Model(inputs, outputs)
    loaded = tf.saved_model.load(str(export(model, None, tmp_path)))
    words, age = np.array([[1, 2, 3, 4], [5, 6, 7, 8]], "int32"), np.array([[0.5], [2.0]], "float32")
    wanted = model({"words": words, "age": age}, training=False)
    for name in ("serving_default", "predict"):
        answer = loaded.signatures[name](words=tf.constant(words), age=tf.constant(age))
        assert set(answer) == {"sign", "value"}
        for key in wanted:
            np.testing.assert_allclose(answer[key], wanted[key], rtol=0, atol=1e-6)


def test_default_signatures_of_lists(tmp_path):
    a, b = keras.Input((2,), name="left"), keras.Input((2,), name="right")
    both = keras.layers.Add()([a, b])
    model = keras.Model([a, b], [keras.layers.Dense(1, name="first")(both), keras.layers.Dense(1, name="second")(both)])
    loaded = tf.saved_model.load(str(export(model, None, tmp_path)))
    x = np.ones((3, 2), "float32")
    answer = loaded.signatures["predict"](left=tf.constant(x), right=tf.constant(-2 * x))
    wanted = model([x, -2 * x], training=False)
    np.testing.assert_allclose(answer["first"], wanted[0], rtol=0, atol=1e-6)
    np.testing.assert_allclose(answer["second"], wanted[1], rtol=0, atol=1e-6)


class Subclassed(keras.Model):
    def __init__(self, units):
        super().__init__()
        self.dense = keras.layers.Dense(units)
        self.dropout = keras.layers.Dropout(0.5)

    def call(self, x, training=True):
        return self.dropout(self.dense(x), training=training)

    def get_config(self):
        return {"units": self.dense.units}


class WithoutConfig(keras.Model):
    """Keras cannot write what it was made of."""

    def __init__(self, matrix):
        super().__init__()
        self.dense = keras.layers.Dense(len(matrix))

    def call(self, x):
        return self.dense(x)

    def get_config(self):
        raise NotImplementedError("matrix has no config\nsecond line")


def test_a_subclassed_model(tmp_path, caplog):
    model = Subclassed(3)
    x = np.ones((5, 4), "float32")
    model(x)
    with caplog.at_level(logging.WARNING):
        version = export(model, None, tmp_path, example=x[:1].astype("float64"))
    assert not caplog.records
    loaded = tf.saved_model.load(str(version))
    answer = loaded.signatures["serving_default"](inputs=tf.constant(x))
    np.testing.assert_allclose(answer["outputs"], model(x, training=False), rtol=0, atol=1e-6)
    again = keras.models.load_model(version / "model.keras", custom_objects={"Subclassed": Subclassed})
    np.testing.assert_array_equal(again(x, training=False), model(x, training=False))


def test_a_model_that_keras_cannot_write_is_exported_without_its_file(tmp_path, caplog):
    model = WithoutConfig(object_list := [object(), object()])
    x = np.ones((5, 4), "float32")
    model(x)
    with caplog.at_level(logging.WARNING):
        version = export(model, None, tmp_path, example=x)
    assert not (version / "model.keras").exists()
    [record] = caplog.records
    assert "model.keras was left out" in record.getMessage()
    assert "matrix has no config" in record.getMessage()
    assert "\n" not in record.getMessage()
    answer = tf.saved_model.load(str(version)).signatures["predict"](inputs=tf.constant(x))
    assert answer["outputs"].shape == (5, len(object_list))


def test_a_subclassed_model_without_an_example_is_refused(tmp_path):
    model = Subclassed(3)
    model(np.ones((5, 4), "float32"))
    with pytest.raises(WrongInput, match="subclassed"):
        export(model, None, tmp_path)


def test_tables_of_a_layer_are_exported_too(tmp_path):
    lookup = keras.layers.StringLookup(vocabulary=["good", "bad"])
    inputs = keras.Input((1,), dtype="string", name="word")
    model = keras.Model(inputs, keras.layers.Embedding(3, 2)(lookup(inputs)))
    version = export(model, None, tmp_path)
    words = tf.constant([["bad"], ["unknown"]])
    answer = tf.saved_model.load(str(version)).signatures["predict"](word=words)
    [output] = answer.values()
    np.testing.assert_array_equal(output, model(words))


def test_an_evaluated_model_exports_and_prints_nothing(tmp_path, capfd):
    from tfleet.data.arrays import ArraySource

    model = digits_model()
    x, y = np.zeros((5, 28, 28, 1), "float32"), np.zeros(5, "int64")
    evaluate(model, ArraySource((x, y)), 2)
    model.evaluate(x, y, verbose=0)
    capfd.readouterr()
    export(model, digits_signatures(model), tmp_path)
    captured = capfd.readouterr()
    assert captured.out == ""
    assert captured.err == ""
