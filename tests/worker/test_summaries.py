"""Summaries, read back by TensorBoard's own reader."""

from __future__ import annotations

import io
import logging
import math
import os

os.environ.setdefault("KERAS_BACKEND", "tensorflow")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import numpy as np
import pytest
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.backend.event_processing.event_multiplexer import EventMultiplexer

from tfleet.spec.errors import JobFailed
from tfleet.worker.summaries import (
    Budget,
    Details,
    Scalars,
    details_folder,
    eval_folder,
    evaluator_folder,
    job_folder,
    worker_folder,
)
from tfleet.worker.summaries.images import image_shape, kernel_images, sample_images, tile

pytestmark = pytest.mark.tf


def read(folder):
    # 0: keep all, instead of a sample.
    reader = EventAccumulator(str(folder), size_guidance={"scalars": 0, "histograms": 0, "images": 0})
    reader.Reload()
    return reader


def by_variable(model, gradient=None):
    gradient = flat_gradient(model) if gradient is None else gradient
    cuts = np.cumsum([int(np.prod(v.shape)) for v in model.trainable_variables])[:-1]
    return [(None, part) for part in np.split(gradient, cuts)]


def flat_gradient(model):
    size = sum(int(np.prod(v.shape)) for v in model.trainable_variables)
    return np.linspace(-1, 1, size, dtype="float32")


def picture(reader, tag):
    [image] = reader.Images(tag)
    decoded = Image.open(io.BytesIO(image.encoded_image_string))
    assert decoded.format == "PNG"
    assert decoded.size == (image.width, image.height)
    return np.asarray(decoded)


# Scalars


def test_scalars_are_read_back_by_tag_and_step(tmp_path):
    scalars = Scalars(tmp_path)
    scalars.write(100, {"loss": 0.5, "steps_per_second": 3000})
    scalars.write(200, {"loss": np.float32(0.25), "accuracy": 1})
    scalars.close()
    reader = read(tmp_path)
    assert set(reader.Tags()["scalars"]) == {"loss", "steps_per_second", "accuracy"}
    assert [(e.step, e.value) for e in reader.Scalars("loss")] == [(100, 0.5), (200, 0.25)]
    assert [(e.step, e.value) for e in reader.Scalars("steps_per_second")] == [(100, 3000.0)]


def test_each_writer_is_a_run_of_its_own(tmp_path):
    workers = [worker_folder(tmp_path, 0), worker_folder(tmp_path, 1)]
    folders = [*workers, job_folder(tmp_path), eval_folder(tmp_path), evaluator_folder(tmp_path)]
    for i, folder in enumerate(folders):
        scalars = Scalars(folder)
        scalars.write(i, {"loss": i})
        scalars.close()
    runs = EventMultiplexer().AddRunsFromDirectory(str(tmp_path)).Reload()
    assert set(runs.Runs()) == {"train/worker-0", "train/worker-1", "train/job", "eval/job", "eval/evaluator"}
    assert [e.value for e in runs.Scalars("train/worker-1", "loss")] == [1.0]


def test_nothing_is_created_before_the_first_write(tmp_path):
    scalars = Scalars(tmp_path / "train")
    scalars.flush()
    scalars.write(1, {})
    scalars.close()
    assert list(tmp_path.iterdir()) == []


def test_flush_makes_values_visible_while_the_writer_goes_on(tmp_path):
    scalars = Scalars(tmp_path)
    scalars.write(1, {"loss": 2.0})
    scalars.flush()
    assert [e.value for e in read(tmp_path).Scalars("loss")] == [2.0]
    scalars.write(2, {"loss": 1.0})
    scalars.close()
    scalars.close()
    assert [e.step for e in read(tmp_path).Scalars("loss")] == [1, 2]


def test_a_rollback_forgets_what_is_written_again(tmp_path):
    before = Scalars(tmp_path)
    for step in (10, 20, 30):
        before.write(step, {"loss": 1.0, "only_before": 1.0})
    before.purge(15)
    before.write(20, {"loss": 2.0})
    before.close()
    reader = read(tmp_path)
    assert [(e.step, e.value) for e in reader.Scalars("loss")] == [(10, 1.0), (20, 2.0)]
    assert [e.step for e in reader.Scalars("only_before")] == [10]


def test_values_that_are_not_finite_are_kept(tmp_path):
    scalars = Scalars(tmp_path)
    scalars.write(1, {"loss": math.nan, "peak": math.inf})
    scalars.close()
    reader = read(tmp_path)
    assert math.isnan(reader.Scalars("loss")[0].value)
    assert reader.Scalars("peak")[0].value == math.inf


def test_a_folder_that_cannot_be_written_is_told(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(JobFailed, match=r"summaries cannot be written.*summary\.every_steps"):
        Scalars(tmp_path / "file" / "train").write(1, {"loss": 1.0})


# Budget


def test_a_short_run_writes_no_details_within_the_loop():
    budget = Budget(start=1000.0)
    assert not any(budget.may(1000.0 + t / 100) for t in range(200))


@pytest.mark.parametrize("cost", [0.002, 0.05, 0.4, 3.0])
def test_details_never_cost_more_than_their_share(cost):
    budget, spent, times, now = Budget(start=0.0, share=0.03), 0.0, [], 0.0
    while now < 3600:
        if budget.may(now):
            budget.spent(now, now + cost)
            spent += cost
            now += cost
            times.append(now)
            # The very first cost is not known beforehand.
            assert len(times) == 1 or spent <= 0.03 * now
        now += 0.25
    assert times[0] == pytest.approx(5.0 + cost, abs=0.3)
    assert times[-1] > 3600 - 0.5 * 3600
    assert len(times) > 5


def test_gaps_grow_with_the_job_up_to_a_limit():
    budget, times, now = Budget(start=0.0), [], 0.0
    while now < 86400:
        if budget.may(now):
            budget.spent(now, now + 0.01)
            times.append(now)
        now += 1.0
    gaps = np.diff(times)
    assert gaps[0] <= 1
    assert gaps.max() <= 302
    assert 200 < len(times) < 500


# Details


@pytest.fixture
def mlp():
    keras.utils.clear_session()
    keras.utils.set_random_seed(0)
    return keras.Sequential(
        [
            keras.Input((28, 28, 1)),
            keras.layers.Flatten(),
            keras.layers.Dense(10, "relu"),
            keras.layers.Dropout(0.5),
            keras.layers.Dense(4),
        ]
    )


def test_details_of_an_mlp(mlp, tmp_path):
    x = np.random.default_rng(0).random((20, 28, 28, 1), "float32")
    gradient = flat_gradient(mlp)
    details = Details(details_folder(tmp_path), mlp)
    details.write(300, x, by_variable(mlp, gradient))
    details.close()
    reader = read(tmp_path / "train" / "details")
    assert set(reader.Tags()["histograms"]) == {
        "weights/dense/kernel",
        "weights/dense_1/kernel",
        "biases/dense/bias",
        "biases/dense_1/bias",
        "gradients/dense/kernel",
        "gradients/dense/bias",
        "gradients/dense_1/kernel",
        "gradients/dense_1/bias",
        "activations/dense",
        "activations/dense_1",
    }
    [event] = reader.Histograms("weights/dense/kernel")
    kernel = mlp.layers[1].kernel.numpy()
    assert event.step == 300
    assert event.histogram_value.num == kernel.size
    assert event.histogram_value.min == pytest.approx(kernel.min())
    assert event.histogram_value.sum == pytest.approx(kernel.sum(), abs=1e-3)
    assert sum(event.histogram_value.bucket) == kernel.size
    assert event.histogram_value.bucket_limit[-1] == pytest.approx(kernel.max())
    assert reader.Histograms("gradients/dense/kernel")[0].histogram_value.min == -1
    assert reader.Histograms("gradients/dense_1/bias")[0].histogram_value.max == 1
    activation = reader.Histograms("activations/dense_1")[0].histogram_value
    assert activation.sum == pytest.approx(float(np.sum(mlp(x, training=False))), abs=1e-3)
    assert set(reader.Tags()["images"]) == {"inputs/input", "first_layer/dense/kernel"}
    assert picture(reader, "inputs/input").shape == (4 * 29 - 1, 5 * 29 - 1)
    tiles = picture(reader, "first_layer/dense/kernel")
    assert tiles.shape == (3 * 29 - 1, 4 * 29 - 1)
    scaled = (kernel - kernel.min()) / (kernel.max() - kernel.min()) * 255
    np.testing.assert_allclose(tiles[:28, 29:57], scaled[:, 1].reshape(28, 28), atol=0.51)


def test_details_of_a_cnn_with_colours(tmp_path):
    keras.utils.clear_session()
    image = keras.Input((16, 12, 3), name="photo")
    values = keras.layers.Conv2D(5, 3)(image)
    values = keras.layers.BatchNormalization()(values)
    model = keras.Model(image, keras.layers.Dense(1)(keras.layers.GlobalAveragePooling2D()(values)), name="cnn")
    details = Details(tmp_path, model)
    details.write(1, np.full((3, 16, 12, 3), 7, np.uint8), by_variable(model))
    details.close()
    reader = read(tmp_path)
    assert picture(reader, "inputs/input").shape == (2 * 17 - 1, 2 * 13 - 1, 3)
    assert picture(reader, "first_layer/conv2d/kernel").shape == (2 * 25 - 1, 3 * 25 - 1, 3)
    assert {"activations/conv2d", "activations/batch_normalization", "activations/dense"} <= set(
        reader.Tags()["histograms"]
    )


def test_inputs_and_outputs_by_name(tmp_path):
    keras.utils.clear_session()
    inputs = {"image": keras.Input((8, 8, 1), name="image"), "words": keras.Input((4,), dtype="int32", name="words")}
    words = keras.layers.Flatten()(keras.layers.Embedding(9, 3)(inputs["words"]))
    both = keras.layers.Concatenate()([keras.layers.Flatten()(inputs["image"]), words])
    shared = keras.layers.Dense(2, name="shared")
    model = keras.Model(inputs, {"a": shared(both), "b": shared(-both)})
    details = Details(tmp_path, model)
    x = {"image": np.zeros((5, 8, 8, 1), "float32"), "words": np.ones((5, 4), "int32")}
    details.write(1, x, by_variable(model))
    details.close()
    reader = read(tmp_path)
    assert set(reader.Tags()["images"]) == {"inputs/image"}
    assert {"activations/embedding", "activations/shared"} <= set(reader.Tags()["histograms"])


def test_a_subclassed_model_has_no_activations_said_once(tmp_path, caplog):
    class Subclassed(keras.Model):
        def __init__(self):
            super().__init__()
            self.dense = keras.layers.Dense(3)

        def call(self, x):
            return self.dense(x)

    model = Subclassed()
    x = np.ones((5, 4), "float32")
    model(x)
    with caplog.at_level(logging.WARNING):
        details = Details(tmp_path, model)
        details.write(1, x, by_variable(model))
        details.write(2, x, by_variable(model))
    details.close()
    [record] = caplog.records
    assert record.getMessage().startswith("no activation histograms")
    tags = read(tmp_path).Tags()
    assert set(tags["histograms"]) == {
        "weights/dense/kernel",
        "biases/dense/bias",
        "gradients/dense/kernel",
        "gradients/dense/bias",
    }
    assert tags["images"] == []


def test_details_change_nothing_in_the_model(mlp, tmp_path):
    before = [v.numpy().copy() for v in mlp.variables]
    names = [v.path for v in mlp.variables]
    Details(tmp_path, mlp).write(1, np.ones((2, 28, 28, 1), "float32"), by_variable(mlp))
    assert all(np.array_equal(a, b.numpy()) for a, b in zip(before, mlp.variables, strict=True))
    assert [v.path for v in mlp.variables] == names


def test_equal_numbers_are_one_bucket(mlp, tmp_path):
    details = Details(tmp_path, mlp)
    details.write(1, np.ones((2, 28, 28, 1), "float32"), by_variable(mlp))
    details.close()
    bias = read(tmp_path).Histograms("biases/dense/bias")[0].histogram_value
    assert (bias.min, bias.max, bias.num) == (0.0, 0.0, 10.0)
    assert (list(bias.bucket_limit), list(bias.bucket)) == ([0.0], [10.0])


def test_of_a_sparse_table_the_rows_of_the_batch_are_shown(tmp_path):
    model = keras.Sequential([keras.Input((2,), dtype="int32"), keras.layers.Embedding(50, 3)])
    model.trainable_variables[0].assign(np.arange(150).reshape(50, 3))
    details = Details(tmp_path, model)
    rows = np.array([1, 7])
    details.write(1, np.array([[1, 7]]), [(rows, np.array([[1, 2, 3], [4, 5, 6]], np.float32))])
    details.close()
    shown = read(tmp_path)
    weights = shown.Histograms("weights/embedding/embeddings")[0].histogram_value
    assert (weights.min, weights.max, weights.num) == (3.0, 23.0, 6.0)
    assert shown.Histograms("gradients/embedding/embeddings")[0].histogram_value.sum == 21


def test_a_spoilt_gradient_still_gives_histograms(mlp, tmp_path):
    gradient = flat_gradient(mlp)
    gradient[:7840] = np.nan
    gradient[-1] = np.inf
    details = Details(tmp_path, mlp)
    details.write(1, np.ones((2, 28, 28, 1), "float32"), by_variable(mlp, gradient))
    details.close()
    reader = read(tmp_path)
    assert "gradients/dense/kernel" not in reader.Tags()["histograms"]
    assert reader.Histograms("gradients/dense_1/bias")[0].histogram_value.num == 3


# Images


def test_tiles_lie_in_rows_with_a_line_between_them():
    images = np.stack([np.full((30, 25, 1), value, np.uint8) for value in (50, 100, 150)])
    grid = tile(images)
    assert grid.shape == (61, 51, 1)
    assert grid[0, 0] == 50
    assert grid[0, 26] == 100
    assert grid[31, 0] == 150
    assert not grid[30].any()
    assert not grid[:, 25].any()
    assert not grid[31:, 26:].any()


def test_small_tiles_are_enlarged_and_many_cut_off():
    assert tile(np.zeros((1, 3, 3, 1), np.uint8)).shape == (24, 24, 1)
    assert tile(np.zeros((500, 24, 24, 1), np.uint8)).shape == (10 * 25 - 1, 10 * 25 - 1, 1)


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        (np.array([0, 128, 255], np.uint8), [0, 128, 255]),
        (np.array([0.0, 0.5, 1.0]), [0, 128, 255]),
        (np.array([0.0, 0.2, 0.4]), [0, 51, 102]),
        (np.array([-1.0, 0.0, 1.0]), [0, 128, 255]),
        (np.array([10.0, 10.0, 10.0]), [0, 0, 0]),
    ],
)
def test_input_pixels(given, wanted):
    picture = sample_images(given.reshape(1, 1, 3, 1), (1, 3, 1))
    assert picture[0, ::8, 0].tolist() == wanted


@pytest.mark.parametrize(
    ("shape", "features", "wanted"),
    [
        ((28, 28, 1), 0, (28, 28, 1)),
        ((32, 30, 3), 0, (32, 30, 3)),
        ((32, 30, 7), 0, None),
        ((28, 28), 0, None),
        ((28, 28), 784, (28, 28, 1)),
        ((784,), 784, (28, 28, 1)),
        ((784,), 0, None),
        ((4,), 4, None),
        ((80,), 80, None),
        ((28, 28, 1), 100, None),
        ((), 0, None),
    ],
)
def test_which_inputs_are_images(shape, features, wanted):
    assert image_shape(shape, features) == wanted


def test_which_kernels_are_shown():
    assert kernel_images(np.zeros((784, 3)), [(28, 28, 1)]).shape == (57, 57, 1)
    assert kernel_images(np.zeros((5, 5, 2, 4)), [(28, 28, 2)]).shape == (41, 41, 1)
    assert kernel_images(np.zeros((10, 3)), [(10,)]) is None
    assert kernel_images(np.zeros((3, 8, 16)), [(100, 8)]) is None
    assert kernel_images(np.zeros(7), [(7,)]) is None
