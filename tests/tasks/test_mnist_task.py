from __future__ import annotations

import gzip
import struct

import numpy as np
import pytest

pytestmark = pytest.mark.tf

tf = pytest.importorskip("tensorflow")
keras = pytest.importorskip("keras")

from tfleet.data import as_source, class_weights  # noqa: E402
from tfleet.spec.errors import WrongInput  # noqa: E402
from tfleet.spec.job import JobSpec  # noqa: E402
from tfleet.tasks import load_task, resolve  # noqa: E402
from tfleet.tasks.names import BUILTINS  # noqa: E402


@pytest.fixture(scope="module")
def task():
    return load_task("mnist")


def job(**params):
    return JobSpec(task="mnist", params=params)


@pytest.mark.parametrize(
    ("params", "parameters"),
    [
        ({}, 79510),
        ({"hidden_units": 30, "hidden_layers": 2}, 785 * 30 + 31 * 30 + 31 * 10),
        ({"hidden_layers": 0}, 785 * 10),
    ],
)
def test_sizes_of_the_perceptron(task, params, parameters):
    model = task.build_model(job(**params))
    assert model.count_params() == parameters
    assert model.input.name == "image"
    assert model.input_shape == (None, 28, 28, 1)
    assert model.output_shape == (None, 10)
    assert type(model.optimizer) is keras.optimizers.Adam
    assert float(model.optimizer.learning_rate) == pytest.approx(0.001)


def test_the_cnn_convolves(task):
    model = task.build_model(job(model="cnn"))
    assert sum(isinstance(layer, keras.layers.Conv2D) for layer in model.layers) == 2
    assert model.output_shape == (None, 10)


def test_the_job_gets_what_the_launcher_knows(task):
    resolved = resolve(job(), task)
    assert (resolved.steps, resolved.batch_size) == (2000, 20)
    assert (BUILTINS["mnist"].steps, BUILTINS["mnist"].batch_size) == (2000, 20)


@pytest.mark.parametrize(
    ("params", "sentence"),
    [
        ({"model": "rnn"}, "--param model=rnn: 'rnn' is not among mlp, cnn"),
        ({"hidden_units": 0}, "hidden_units=0 and hidden_layers=1 are given; give at least 1 unit"),
        ({"hidden_layers": -1}, "hidden_layers=-1 are given"),
        ({"hidden_unit": 10}, "unknown --param hidden_unit (did you mean 'hidden_units'?)"),
        ({"hidden_units": "many"}, "'many' is not an integer; give hidden_units=100"),
    ],
)
def test_wrong_parameters_are_refused(task, params, sentence):
    with pytest.raises(WrongInput) as caught:
        task.build_model(job(**params))
    assert sentence in str(caught.value)


def test_the_bundled_digits_are_its_data(task):
    data = task.build_data(job())
    assert (len(data.train), len(data.test)) == (9000, 1000)
    batch = data.train.batch(np.arange(20))
    assert batch.x.shape == (20, 28, 28, 1)
    assert batch.x.dtype == np.float32
    assert batch.y.dtype == np.int64


def test_a_data_folder_takes_their_place(task, tmp_path):
    for part in ("train", "t10k"):
        images = struct.pack(">4I", 0x803, 2, 28, 28) + bytes(range(49)) * 32
        (tmp_path / f"{part}-images-idx3-ubyte.gz").write_bytes(gzip.compress(images))
        (tmp_path / f"{part}-labels-idx1-ubyte").write_bytes(struct.pack(">2I", 0x801, 2) + b"\3\4")
    spec = JobSpec(task="mnist", data_dir=str(tmp_path))
    data = task.build_data(spec)
    assert (len(data.train), len(data.test)) == (2, 2)
    with pytest.raises(WrongInput, match="does not exist; give the folder of the MNIST files"):
        task.build_data(JobSpec(task="mnist", data_dir=str(tmp_path / "none")))


def test_the_perceptron_learns_the_digits(task):
    keras.utils.set_random_seed(0)
    model = task.build_model(job())
    data = task.data()
    model.fit(*data["train"], batch_size=100, epochs=4, verbose=0)
    assert model.evaluate(*data["test"], verbose=0, return_dict=True)["accuracy"] >= 0.92


def test_the_export_answers_as_the_model_does(task, tmp_path):
    model = task.build_model(job(hidden_units=8))
    signatures = task.signatures(model)
    tf.saved_model.save(model, str(tmp_path), signatures={k: f.get_concrete_function() for k, f in signatures.items()})
    loaded = tf.saved_model.load(str(tmp_path)).signatures
    assert set(loaded) == {"serving_default", "predict", "predict_uint8"}
    images = np.random.default_rng(0).integers(0, 256, (5, 28, 28, 1), np.uint8)
    floats = images.astype(np.float32) / 255
    expected = keras.ops.softmax(model(floats)).numpy()
    for name, given in (("serving_default", floats), ("predict", floats), ("predict_uint8", images)):
        answer = loaded[name](image=tf.constant(given))
        assert set(answer) == {"classes", "probabilities"}
        assert answer["classes"].dtype == tf.int64
        assert answer["probabilities"].dtype == tf.float32
        np.testing.assert_allclose(answer["probabilities"], expected, atol=1e-6)
        np.testing.assert_array_equal(answer["classes"], expected.argmax(1))


def test_a_dataset_of_tensorflow_is_refused():
    with pytest.raises(WrongInput, match=r"train is a tf.data.Dataset, whose samples have no addresses; give NumPy"):
        as_source(tf.data.Dataset.from_tensor_slices(np.arange(3)).batch(2))


def test_a_real_pydataset_is_taken_and_one_without_length_refused():
    class Ones(keras.utils.PyDataset):
        def __init__(self):
            super().__init__()

        def __getitem__(self, i):
            return np.ones((2, 3)), np.zeros(2, int)

    with pytest.raises(WrongInput, match="has no finite length"):
        as_source(Ones())
    Ones.__len__ = lambda self: 4
    source = as_source(Ones())
    assert (len(source), source.batch(np.array([3])).size) == (4, 2)
    Ones.on_epoch_end = lambda self: None
    with pytest.raises(WrongInput, match="has its own on_epoch_end"):
        as_source(Ones())


@pytest.mark.parametrize("one_hot", [False, True])
def test_class_weights_weigh_as_in_fit(one_hot):
    weights = {0: 2.0, 2: 0.25}
    x, classes = np.random.default_rng(0).normal(size=(12, 4)).astype(np.float32), np.arange(12) % 3
    y = np.eye(3, dtype=np.float32)[classes] if one_hot else classes
    batch = class_weights(as_source((x, y)).batch(np.arange(12)), weights)

    def trained(**given):
        keras.utils.set_random_seed(1)
        model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3, activation="softmax")])
        model.compile("sgd", "categorical_crossentropy" if one_hot else "sparse_categorical_crossentropy")
        model.fit(x, y, batch_size=12, verbose=0, **given)
        return np.concatenate([np.ravel(w) for w in model.get_weights()])

    np.testing.assert_array_equal(trained(sample_weight=batch.sample_weight), trained(class_weight=weights))
