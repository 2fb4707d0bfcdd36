"""Users' own tasks as real jobs: everything that Keras allows in one model, and each example of the repository.

After each job its last commit, given to a model that Keras built anew, says what the loss was before and is now, what
the evaluation must have been, and what the export must answer. `flowers.py` is trained in test_commands.py.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

os.environ["KERAS_BACKEND"] = "tensorflow"
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import numpy as np
import pytest
import tensorflow as tf
from finished import Finished
from jobs import nothing_left, tfleet

from tfleet.checkpoint.store import Store
from tfleet.data import Batch
from tfleet.spec.job import JobSpec
from tfleet.spec.rundir import RunDir
from tfleet.worker.built import Built

pytestmark = [pytest.mark.processes, pytest.mark.tf]

EXAMPLES = Path(__file__).parents[2] / "examples"

EVERYTHING = '''
"""Two inputs, two outputs, and all that may surround them."""
import keras
import numpy as np
from keras import layers
from tfleet import Task

WORDS = 30

def model(units: int = 16):
    measures, words = keras.Input((6,), name="measures"), keras.Input((5,), dtype="int32", name="words")
    meaning = layers.GlobalAveragePooling1D()(layers.Embedding(WORDS, 4)(words))
    h = layers.Concatenate()([layers.Normalization(mean=0.5, variance=2.0)(measures), meaning])
    h = layers.Dense(units, use_bias=False, kernel_regularizer=keras.regularizers.L2(1e-3))(h)
    h = layers.Dropout(0.1)(layers.Activation("relu")(layers.BatchNormalization(momentum=0.9)(h)))
    outputs = {"kind": layers.Dense(3, name="kind")(h), "score": layers.Dense(1, name="score")(h)}
    built = keras.Model({"measures": measures, "words": words}, outputs)
    rate = keras.optimizers.schedules.CosineDecay(0.02, 400)
    built.compile(
        keras.optimizers.AdamW(rate, weight_decay=1e-3, global_clipnorm=5.0),
        loss={"kind": keras.losses.SparseCategoricalCrossentropy(from_logits=True), "score": "mse"},
        loss_weights={"kind": 1.0, "score": 0.5},
        metrics={"kind": ["accuracy"]},
        weighted_metrics={"score": ["mae"]},
    )
    return built

def samples(n, seed):
    r = np.random.default_rng(seed)
    x = {"measures": r.normal(0.5, 1.4, (n, 6)).astype("float32"), "words": r.integers(0, WORDS, (n, 5), "int32")}
    kind = x["measures"][:, :3].argmax(axis=1)
    score = (x["words"] % 3 == 0).mean(axis=1, keepdims=True).astype("float32") + x["measures"][:, 3:4]
    weights = {"kind": r.uniform(0.5, 2.0, n).astype("float32"), "score": r.uniform(0.5, 2.0, n).astype("float32")}
    return x, {"kind": kind, "score": score}, weights

def data():
    return {"train": samples(1010, 0), "test": samples(130, 1)}

task = Task(model, data, batch_size=25)
'''

SUBCLASSED = '''
"""A model of one's own class, batches of one's own making, classes of unequal weight, a metric that is no mean."""
import keras
import numpy as np
from tfleet import Task

@keras.saving.register_keras_serializable("tests")
class Net(keras.Model):
    def __init__(self, units=12, **kwargs):
        super().__init__(**kwargs)
        self.units = units
        self.hidden = keras.layers.Dense(units, activation="tanh")
        self.norm = keras.layers.LayerNormalization()
        self.noise = keras.layers.GaussianNoise(0.05)
        self.out = keras.layers.Dense(1, activation="sigmoid")

    def call(self, x, training=False):
        h = self.norm(self.hidden(x))
        self.add_loss(1e-4 * keras.ops.mean(keras.ops.square(h)))
        return self.out(self.noise(h, training=training))

    def get_config(self):
        return {**super().get_config(), "units": self.units}

class Batches(keras.utils.PyDataset):
    def __len__(self):
        return 17

    def __getitem__(self, i):
        return samples(7 if i == 16 else 32, i)

def samples(n, seed):
    x = np.random.default_rng(seed).normal(size=(n, 8)).astype("float32")
    return x, (x[:, :1] + x[:, 1:2] > 1.0).astype("int32")

def model(units: int = 12):
    net = Net(units)
    net.compile(
        keras.optimizers.SGD(0.2, momentum=0.9, nesterov=True, clipvalue=1.0),
        "binary_crossentropy",
        metrics=["accuracy", keras.metrics.AUC(name="auc")],
    )
    return net

task = Task(model, lambda: {"train": Batches(), "test": samples(300, 99)}, class_weight={0: 1.0, 1: 2.0})
'''


class Reference:
    """What a finished job's first and last commit say by Keras alone."""

    def __init__(self, run: Path) -> None:
        self.run = RunDir.at(run)
        keras.utils.clear_session()
        self._store = Store(self.run.checkpoints)
        self.built = Built(JobSpec.load(self.run.job_file))
        # All training data, or the first batch of a PyDataset.
        self.train = self.built.read(np.arange(1 if self.built.train.items_are_batches else len(self.built.train)))

    def at(self, number: int) -> keras.Model:
        """The model of one commit."""
        self.built.load(self._store, self._store.get(number))
        return self.built.model

    def losses(self) -> tuple[float, float]:
        """The loss on training data before the first step and after the last."""
        last = max(self._store.numbers())
        return evaluated(self.at(0), self.train)["loss"], evaluated(self.at(last), self.train)["loss"]

    def test(self) -> Batch:
        assert self.built.test is not None
        return self.built.test.batch(np.arange(len(self.built.test)))


def evaluated(model: keras.Model, batch: Batch) -> dict[str, float]:
    # In one batch: where there are several, Keras counts each the same, whatever its size.
    given = {"sample_weight": batch.sample_weight, "batch_size": batch.size, "verbose": 0, "return_dict": True}
    return dict(model.evaluate(batch.x, batch.y, **given))


def check(done: Finished, run: Path, steps: int, falls_to: float) -> dict[str, Any]:
    """Holds a finished job to its commits: steps, loss, evaluation, export; returns its status."""
    assert done.code == 0, done.err
    status = RunDir.at(run).status()
    assert (status["phase"], status["step"], status["last_commit"]["step"]) == ("done", steps, steps)
    # Under sync a slow machine has late batches computed a second time, and counts the answer that came too late.
    assert status["strategy"] == "sync" or status["ledger"]["duplicates"] == 0
    reference = Reference(run)
    before, after = reference.losses()
    assert after < falls_to * before
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    held_out = [row for row in rows if row["kind"] == "eval"]
    batch = reference.train
    if reference.built.test is not None:
        batch = reference.test()
        expected = evaluated(reference.built.model, batch)
        assert status["evaluation"]["metrics"] == pytest.approx(expected, rel=2e-5, abs=1e-6)
        assert {name: held_out[-1][name] for name in expected} == pytest.approx(expected, rel=2e-5, abs=1e-6)
    else:
        assert (status["evaluation"], held_out) == (None, [])
    answers = flat(keras.tree.map_structure(np.asarray, reference.built.model(batch.x, training=False)))
    served = tf.saved_model.load(str(run / "export" / "1")).signatures["serving_default"]
    given = batch.x if isinstance(batch.x, dict) else {next(iter(served.structured_input_signature[1])): batch.x}
    told = {name: np.asarray(value) for name, value in served(**tensors(served, given)).items()}
    if "probabilities" in told:  # the signature of mnist, over a model that gives logits
        assert np.array_equal(told["classes"], answers[0].argmax(axis=1))
    else:
        for one, other in zip(flat(told), answers, strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5)
    loaded = keras.models.load_model(run / "export" / "1" / "model.keras")
    for one, other in zip(flat(keras.tree.map_structure(np.asarray, loaded(batch.x))), answers, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5)
    nothing_left(run)
    return status


def flat(tree: Any) -> list[np.ndarray[Any, Any]]:
    return list(keras.tree.flatten(tree))


def tensors(function: Any, given: dict[str, Any]) -> dict[str, tf.Tensor]:
    specs = function.structured_input_signature[1]
    return {name: tf.constant(value, specs[name].dtype) for name, value in given.items()}


@pytest.fixture(autouse=True)
def _paths_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", list(sys.path))


@pytest.mark.parametrize("strategy", ["async", "sync"])
def test_everything_in_one_model(tmp_path: Path, strategy: str) -> None:
    (tmp_path / "everything.py").write_text(EVERYTHING)
    run = tmp_path / "run"
    done = tfleet("train", "everything.py:task", "--steps", "400", "--strategy", strategy, "--run-dir", str(run),
                  "--eval-every", "150", "--keep", "9", cwd=tmp_path)  # fmt: skip
    status = check(done, run, steps=400, falls_to=0.4)
    assert status["evaluation"]["metrics"]["kind_accuracy"] > 0.8
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    first, second, last = [row["step"] for row in rows if row["kind"] == "eval"]
    # Under async, pushes that were on their way are in the commit too.
    assert 150 <= first <= 150 + 2 < 300 <= second <= 300 + 2 < last == 400


def test_a_class_of_ones_own_with_batches_of_ones_own(tmp_path: Path) -> None:
    (tmp_path / "subclassed.py").write_text(SUBCLASSED)
    run = tmp_path / "run"
    done = tfleet("train", "subclassed.py:task", "--epochs", "20", "--strategy", "sync", "--run-dir", str(run),
                  "--param", "units=10", cwd=tmp_path)  # fmt: skip
    # 17 batches an epoch, two a step, the last step of an epoch with the one that is left.
    status = check(done, run, steps=20 * 9, falls_to=0.6)
    assert status["evaluation"]["metrics"]["auc"] > 0.95


def test_flowers_from_csv_files(tmp_path: Path) -> None:
    run = tmp_path / "run"
    flags = ("--data-dir", "examples", "--epochs", "30", "--strategy", "sync", "--run-dir", str(run))
    done = tfleet("train", "examples/flowers_csv.py:task", *flags, cwd=EXAMPLES.parent)
    check(done, run, steps=30 * 4, falls_to=0.6)


def test_digits_of_tfrecord_files(tmp_path: Path) -> None:
    subprocess.run([sys.executable, EXAMPLES / "digits_tfrecord.py", tmp_path / "digits"], check=True)
    run = tmp_path / "run"
    flags = ("--data-dir", str(tmp_path / "digits"), "--steps", "600", "--run-dir", str(run))
    done = tfleet("train", str(EXAMPLES / "digits_tfrecord.py") + ":task", *flags)
    status = check(done, run, steps=600, falls_to=0.5)
    assert status["evaluation"]["metrics"]["accuracy"] > 0.85


def test_digits_of_a_pydataset(tmp_path: Path) -> None:
    run = tmp_path / "run"
    done = tfleet("train", str(EXAMPLES / "digits_pydataset.py") + ":task", "--steps", "300", "--run-dir", str(run))
    status = check(done, run, steps=300, falls_to=0.5)
    assert status["evaluation"]["metrics"]["accuracy"] > 0.85
