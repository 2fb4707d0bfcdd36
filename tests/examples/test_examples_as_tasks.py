"""That each example is a sound task; that `tfleet train` trains them is tested with the command line."""

from __future__ import annotations

import ast
import sys
from pathlib import Path

import numpy as np
import pytest

pytestmark = pytest.mark.tf

tf = pytest.importorskip("tensorflow")
keras = pytest.importorskip("keras")

from tfleet.data.crc32c import masked_crc32c  # noqa: E402
from tfleet.spec.errors import WrongInput  # noqa: E402
from tfleet.spec.job import JobSpec  # noqa: E402
from tfleet.tasks import load_task, resolve  # noqa: E402

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.fixture(autouse=True)
def _paths_stay(monkeypatch):
    monkeypatch.setattr(sys, "path", list(sys.path))


def built(name, data_dir="", **params):
    spec = JobSpec(task=f"{EXAMPLES / name}.py:task", data_dir=data_dir, params=params)
    task = load_task(spec.task)
    spec = resolve(spec, task)
    keras.utils.set_random_seed(0)
    return task.build_model(spec), task.build_data(spec), spec


def everything(source):
    return source.batch(np.arange(len(source)))


def fitted(model, batch, **options):
    model.fit(batch.x, batch.y, verbose=0, **options)
    return model


def accuracy(model, batch):
    return model.evaluate(batch.x, batch.y, verbose=0, return_dict=True)["accuracy"]


def test_flowers_is_short_and_learns():
    source = (EXAMPLES / "flowers.py").read_text()
    assert len(source.splitlines()) < 30
    model, data, spec = built("flowers")
    assert (len(data.train), len(data.test), spec.steps) == (120, 30, 1000)
    epochs = spec.steps * spec.batch_size // len(data.train)
    fitted(model, everything(data.train), batch_size=60, epochs=epochs // 4)
    assert accuracy(model, everything(data.test)) >= 0.9


def test_the_iris_data_are_the_sound_copy():
    rows = np.loadtxt(EXAMPLES / "iris.csv", delimiter=",", skiprows=1, usecols=range(4))
    assert rows.shape == (150, 4)
    # The means of the species; the copy at UCI, which has two wrong rows, misses those of the first.
    means = [[5.006, 3.428, 1.462, 0.246], [5.936, 2.770, 4.260, 1.326], [6.588, 2.974, 5.552, 2.026]]
    np.testing.assert_allclose(rows.reshape(3, 50, 4).mean(axis=1), means, atol=5e-4)


def test_flowers_from_csv_files_are_the_same_flowers(tmp_path):
    model, data, _ = built("flowers_csv")
    everyone = everything(data.train)
    assert everyone.x.shape == (150, 4)
    assert everyone.x.dtype == np.float32
    assert np.bincount(everyone.y).tolist() == [50] * 3
    fitted(model, everyone, batch_size=50, epochs=40)
    assert accuracy(model, everyone) >= 0.9
    with pytest.raises(WrongInput, match=r"there is no file .*iris\*.csv"):
        built("flowers_csv", data_dir=str(tmp_path))


def test_digits_of_a_pydataset_are_the_same_each_time_and_train():
    model, data, _ = built("digits_pydataset", size="500")
    assert data.train.items_are_batches
    assert len(data.train) == 18
    first, again = (data.train.batch(np.array([17])) for _ in range(2))
    np.testing.assert_array_equal(first.x, again.x)
    assert first.x.shape == (500, 28, 28, 1)
    before = accuracy(model, data.test.batch(np.arange(200)))
    for i in range(6):
        fitted(model, data.train.batch(np.array([i])))
    assert accuracy(model, data.test.batch(np.arange(200))) > before + 0.2


def test_digits_of_tfrecords_are_the_bundled_digits(tmp_path):
    module = load_task(f"{EXAMPLES}/digits_tfrecord.py:task").data.__globals__
    digits = module["load_digits"]()
    module["write_file"](f"{tmp_path}/train-0.tfrecord", digits.x_train[:60], digits.y_train[:60])
    module["write_file"](f"{tmp_path}/train-1.tfrecord", digits.x_train[60:100], digits.y_train[60:100])
    module["write_file"](f"{tmp_path}/test.tfrecord", digits.x_test[:20], digits.y_test[:20])
    model, data, _ = built("digits_tfrecord", data_dir=str(tmp_path))
    assert (len(data.train), len(data.test)) == (100, 20)
    batch = everything(data.train)
    np.testing.assert_array_equal(batch.x, digits.as_inputs()["train"][0][:100])
    np.testing.assert_array_equal(batch.y, digits.y_train[:100])
    assert accuracy(fitted(model, batch, epochs=20), batch) >= 0.9
    with pytest.raises(WrongInput, match="needs its data folder; give --data-dir"):
        built("digits_tfrecord")


def test_our_checksum_is_that_of_tensorflows_writer(tmp_path):
    for size in (0, 1, 63, 64, 255, 256, 257, 5000):
        data = np.random.default_rng(size).bytes(size)
        with tf.io.TFRecordWriter(f"{tmp_path}/a") as writer:
            writer.write(data)
        written = (tmp_path / "a").read_bytes()
        assert written[8:12] == masked_crc32c(written[:8]).to_bytes(4, "little")
        assert written[12 + size :] == masked_crc32c(data).to_bytes(4, "little")


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.py")), ids=lambda p: p.name)
def test_each_example_says_how_to_run_it(path):
    assert f"tfleet train examples/{path.name}" in (ast.get_docstring(ast.parse(path.read_text())) or "")
