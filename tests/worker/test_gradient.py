"""The gradient function against Keras's own tape, for each kind of model that is promised to train correctly."""

from __future__ import annotations

import os

os.environ["KERAS_BACKEND"] = "tensorflow"
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers, regularizers

from tfleet.data.source import Batch
from tfleet.spec.arrays import ALIGNMENT
from tfleet.worker.gradient import GradientFunction
from tfleet.worker.model_check import check_model
from tfleet.worker.optimizer_config import Clipping, describe
from tfleet.worker.seeds import seed_states
from tfleet.worker.training_call import build

pytestmark = pytest.mark.tf

N = 6
CROSSENTROPY = keras.losses.SparseCategoricalCrossentropy(from_logits=True)


@pytest.fixture(autouse=True)
def _fresh():
    keras.utils.clear_session()
    keras.utils.set_random_seed(3)
    yield
    keras.config.set_dtype_policy("float32")


def rng():
    return np.random.default_rng(0)


def rows(features=5, classes=3, weight=None, n=N):
    r = rng()
    x = r.normal(size=(n, features)).astype(np.float32)
    return Batch(x, r.integers(0, classes, n), weight, n)


def compiled(model, loss=CROSSENTROPY, metrics=("accuracy",), optimizer="sgd", **more):
    model.compile(optimizer, loss, metrics=list(metrics) if isinstance(metrics, tuple) else metrics, **more)
    return model


def mlp(**dense):
    return compiled(
        keras.Sequential([keras.Input((5,)), layers.Dense(4, activation="relu", **dense), layers.Dense(3)]),
    )


def cnn():
    images = keras.Sequential(
        [
            keras.Input((8, 8, 1)),
            layers.Conv2D(3, 3, activation="relu"),
            layers.MaxPooling2D(),
            layers.Flatten(),
            layers.Dense(3),
        ]
    )
    return compiled(images), Batch(rng().normal(size=(N, 8, 8, 1)).astype(np.float32), np.arange(N) % 3, None, N)


def batch_normalization():
    stack = [keras.Input((5,)), layers.Dense(4), layers.BatchNormalization(), layers.Dense(3)]
    return compiled(keras.Sequential(stack)), rows()


def dropout():
    stack = [keras.Input((5,)), layers.Dropout(0.5), layers.Dense(4), layers.GaussianNoise(0.3), layers.Dense(3)]
    return compiled(keras.Sequential(stack)), rows()


def regularized():
    return mlp(kernel_regularizer="l2", bias_regularizer=regularizers.L1(0.1), activity_regularizer="l1"), rows()


class Penalty(layers.Layer):
    def call(self, inputs):
        self.add_loss(0.3 * keras.ops.mean(inputs**2))
        return inputs


def added_loss():
    return compiled(keras.Sequential([keras.Input((5,)), layers.Dense(4), Penalty(), layers.Dense(3)])), rows()


def added_loss_only():
    model = keras.Sequential([keras.Input((5,)), layers.Dense(4), Penalty()])
    return compiled(model, loss=None, metrics=None), Batch(rows().x, None, None, N)


def two_by_two(dicts):
    a, b = keras.Input((3,), name="a"), keras.Input((2,), name="b")
    joined = layers.Dense(4, activation="tanh")(layers.Concatenate()([a, b]))
    p, q = layers.Dense(1, name="p")(joined), layers.Dense(3, name="q")(joined)
    model = keras.Model({"a": a, "b": b} if dicts else [a, b], {"p": p, "q": q} if dicts else [p, q])
    r = rng()
    xs = {"a": r.normal(size=(N, 3)).astype(np.float32), "b": r.normal(size=(N, 2)).astype(np.float32)}
    ys = {"p": r.normal(size=(N, 1)).astype(np.float32), "q": r.integers(0, 3, N)}
    ws = {"p": r.random(N).astype(np.float32), "q": r.random(N).astype(np.float32)}
    compiled(
        model,
        loss={"p": "mse", "q": CROSSENTROPY},
        loss_weights={"p": 0.3, "q": 2.0},
        metrics={"p": ["mae"], "q": ["accuracy"]},
    )
    if dicts:
        return model, Batch(xs, ys, None, N)
    return model, Batch(list(xs.values()), list(ys.values()), list(ws.values()), N)


def embedding():
    stack = [keras.Input((4,), dtype="int32"), layers.Embedding(7, 3), layers.GlobalAveragePooling1D(), layers.Dense(3)]
    x = np.array([[1, 1, 2, 6]] * N)
    return compiled(keras.Sequential(stack)), Batch(x, np.arange(N) % 3, None, N)


def masked_gru():
    stack = [
        keras.Input((None,), dtype="int32"),
        layers.Embedding(7, 3, mask_zero=True),
        layers.GRU(4),
        layers.Dense(3),
    ]
    x = np.array([[1, 2, 3, 0], [4, 5, 0, 0]] * (N // 2))
    return compiled(keras.Sequential(stack)), Batch(x, np.arange(N) % 3, None, N)


class Subclassed(keras.Model):
    def __init__(self):
        super().__init__()
        self.first = layers.Dense(4, activation="relu")
        self.second = layers.Dense(3)

    def call(self, inputs, training=False):
        hidden = self.first(inputs)
        return self.second(hidden * 2.0 if training else hidden)


def subclassed():
    return compiled(Subclassed()), rows()


class OwnLoss(Subclassed):
    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None):
        return keras.ops.mean((y_pred - 1.0) ** 2) + keras.ops.mean(x) ** 2


def own_loss():
    return compiled(OwnLoss(), loss=None), rows()


def weighted():
    model = mlp()
    model.compile("sgd", CROSSENTROPY, weighted_metrics=["accuracy"])
    return model, rows(weight=rng().random(N).astype(np.float32))


def frozen():
    base = keras.Sequential([layers.Dense(4), layers.BatchNormalization()], name="base")
    base.trainable = False
    return compiled(keras.Sequential([keras.Input((5,)), base, layers.Dense(3)])), rows()


def shared():
    twice = layers.Dense(5, activation="tanh")
    x = keras.Input((5,))
    return compiled(keras.Model(x, layers.Dense(3)(twice(twice(x))))), rows()


def normalized():
    normalization = layers.Normalization()
    normalization.adapt(rows().x)
    return compiled(keras.Sequential([keras.Input((5,)), normalization, layers.Dense(3)])), rows()


def bfloat16():
    keras.config.set_dtype_policy("mixed_bfloat16")
    return mlp(), rows()


def integers():
    images = keras.Sequential([keras.Input((5,)), layers.Rescaling(1 / 255), layers.Dense(3)])
    return compiled(images), Batch(rng().integers(0, 255, (N, 5)).astype(np.uint8), np.arange(N) % 3, None, N)


def doubles():
    return mlp(), rows()._replace(x=rows().x.astype(np.float64))


def one_hot():
    model = compiled(keras.Sequential([keras.Input((5,)), layers.Dense(3, "softmax")]), "categorical_crossentropy")
    return model, rows()._replace(y=np.eye(3)[rows().y])


CASES = {
    "mlp": lambda: (mlp(), rows()),
    "multiple dicts": lambda: two_by_two(True),
    "multiple lists": lambda: two_by_two(False),
    **{
        case.__name__: case
        for case in (
            cnn, batch_normalization, dropout, regularized, added_loss, added_loss_only, embedding, masked_gru,
            subclassed, own_loss, weighted, frozen, shared, normalized, bfloat16, integers, doubles, one_hot,
        )
    },
}  # fmt: skip


def keras_step(model, function, batch, seed=0, epoch=0, index=0):
    """What Keras's own train_step computes before it applies the gradient, eagerly, with our seed states."""
    seeds = function._roles.seeds
    for variable, value in zip(seeds, seed_states(seed, epoch, index, len(seeds)), strict=True):
        variable.assign(value)
    model.reset_metrics()

    def compute():
        with tf.GradientTape() as tape:
            predicted = model(batch.x, training=True) if model._call_has_training_arg else model(batch.x)
            loss = model._compute_loss(batch.x, batch.y, predicted, batch.sample_weight, training=True)
        return predicted, loss, tape.gradient(loss, model.trainable_variables)

    if function.uses_xla and seeds:
        # The masks of XLA are others than those of a graph.
        compute = tf.function(compute, jit_compile=True)
    predicted, loss, gradients = compute()
    flat = np.concatenate([np.ravel(tf.convert_to_tensor(g)) for g in gradients])
    logs = model.compute_metrics(batch.x, batch.y, predicted, sample_weight=batch.sample_weight)
    state = [np.ravel(v.numpy()) for v in function._roles.state]
    return flat, float(loss), {k: float(v) for k, v in logs.items()}, np.concatenate(state) if state else np.zeros(0)


WITH_XLA = ("mlp", "multiple dicts", "batch_normalization", "dropout", "regularized", "weighted", "integers")


@pytest.mark.parametrize(("case", "xla"), [(c, "never") for c in CASES] + [(c, "always") for c in WITH_XLA])
def test_equals_keras(case, xla):
    model, batch = CASES[case]()
    function = GradientFunction(model, batch, seed=0, xla=xla)
    parameters, state, _ = function.initial()
    step = function(parameters, state, batch, 0, 0)
    gradient, loss, logs, new_state = keras_step(model, function, batch)

    close = {"rtol": 2e-2, "atol": 2e-2} if case == "bfloat16" else {"rtol": 1e-4, "atol": 1e-6}
    np.testing.assert_allclose(step.gradient, gradient, **close)
    np.testing.assert_allclose(step.loss, loss, **close)
    np.testing.assert_allclose(step.state, new_state, **close)
    assert step.gradient.dtype == step.state.dtype == step.metrics.dtype == np.float32
    assert step.gradient.any()
    assert step.finite
    assert function.uses_xla == (xla == "always")
    assert parameters.shape == (function.layout.parameters,)
    assert step.state.shape == (function.layout.state_size,)
    means = step.metrics[::2] / step.metrics[1::2]
    assert function.layout.metrics[0] == "loss"
    assert set(logs) == set(function.layout.metrics)
    for name, value in zip(function.layout.metrics, means, strict=True):
        np.testing.assert_allclose(value, loss if name == "loss" else logs[name], err_msg=name, **close)


@pytest.mark.parametrize("case", ["batch_normalization", "dropout", "normalized", "frozen"])
def test_changes_nothing_in_the_model(case):
    model, batch = CASES[case]()
    function = GradientFunction(model, batch, seed=0, xla="never")
    before = [v.numpy() for v in model.weights]
    first = function(*function.initial()[:2], batch, 0, 0)
    second = function(*function.initial()[:2], batch, 0, 0)
    assert all(np.array_equal(a, v.numpy()) for a, v in zip(before, model.weights, strict=True))
    assert np.array_equal(first.gradient, second.gradient)
    assert np.array_equal(first.state, second.state)


def test_roles_of_variables():
    function = GradientFunction(*batch_normalization(), seed=0)
    assert [v.name.rsplit("/")[-1] for v in function.layout.state] == ["moving_mean", "moving_variance"]
    assert not function.layout.frozen
    assert len(function.layout.trainable) == 6

    function = GradientFunction(*frozen(), seed=0)
    assert len(function.layout.trainable) == 2
    assert not function.layout.state
    assert [v.shape for v in function.layout.frozen] == [(5, 4), (4,), (4,), (4,), (4,), (4,)]

    function = GradientFunction(*dropout(), seed=0)
    assert not function.layout.state
    assert not function.layout.frozen
    assert len(function._roles.seeds) == 2


@pytest.mark.parametrize("xla", ["never", "always"])
def test_dropout_depends_on_seed_epoch_and_batch_only(xla):
    model, batch = dropout()
    function = GradientFunction(model, batch, seed=7, xla=xla)
    parameters, state, _ = function.initial()

    def gradient(f, epoch, index):
        return f(parameters, state, batch, epoch, index).gradient

    first = gradient(function, 1, 2)
    others = [gradient(function, 1, 3), gradient(function, 2, 2)]
    assert all(not np.array_equal(first, other) for other in others)
    assert np.array_equal(first, gradient(function, 1, 2)), "after other batches"
    again = GradientFunction(dropout()[0], batch, seed=7, xla=xla)
    assert np.array_equal(first, gradient(again, 1, 2)), "in another build"
    other_seed = GradientFunction(dropout()[0], batch, seed=8, xla=xla)
    assert not np.array_equal(first, gradient(other_seed, 1, 2))


def test_random_numbers_without_a_generator_depend_on_the_batch_too():
    class Noise(layers.Layer):
        def call(self, inputs):
            return inputs + keras.random.normal(keras.ops.shape(inputs))

    batch = rows()
    function = GradientFunction(
        compiled(keras.Sequential([keras.Input((5,)), Noise(), layers.Dense(3)])), batch, seed=0
    )
    values = [function(*function.initial()[:2], batch, 0, i).loss for i in (0, 1, 0)]
    assert values[0] == values[2] != values[1]


@pytest.mark.parametrize("clipping", [Clipping(clipnorm=0.05), Clipping(clipvalue=0.01), Clipping(global_clipnorm=0.1)])
def test_clips_as_the_optimizer_does(clipping):
    model, batch = mlp(), rows()
    function = GradientFunction(model, batch, seed=0, xla="never", clipping=clipping)
    step = function(*function.initial()[:2], batch, 0, 0)
    option = {k: v for k, v in vars(clipping).items() if v}
    with tf.GradientTape() as tape:
        loss = model.compute_loss(batch.x, batch.y, model(batch.x, training=True))
    gradients = keras.optimizers.SGD(**option)._clip_gradients(tape.gradient(loss, model.trainable_variables))
    np.testing.assert_allclose(step.gradient, np.concatenate([np.ravel(g) for g in gradients]), rtol=1e-5, atol=1e-7)
    free = GradientFunction(model, batch, seed=0, xla="never")
    assert not np.allclose(step.gradient, free(*free.initial()[:2], batch, 0, 0).gradient)


def test_a_variable_without_gradient_gives_zeros_and_does_not_decay():
    class Idle(Subclassed):
        def build(self, shape):
            self.idle = self.add_weight(shape=(2,), name="idle")

    function = GradientFunction(compiled(Idle()), rows(), seed=0, xla="never")
    position = [v.shape for v in function.layout.trainable].index((2,))
    assert [v.decay for v in function.layout.trainable] == [i != position for i in range(5)]
    low = sum(v.size for v in function.layout.trainable[:position])
    gradient = function(*function.initial()[:2], rows(), 0, 0).gradient
    assert not gradient[low : low + 2].any()
    assert np.count_nonzero(gradient) > 20


def test_decay_comes_from_the_optimizer():
    function = GradientFunction(mlp(), rows(), seed=0, xla="never", decay=[True, False, True, False])
    assert [v.decay for v in function.layout.trainable] == [True, False, True, False]


def test_an_unbuilt_model_is_built_before_its_optimizer_is_described():
    optimizer = keras.optimizers.AdamW()
    optimizer.exclude_from_weight_decay(var_names=["bias"])
    model, batch = compiled(Subclassed(), optimizer=optimizer), rows()
    assert not model.trainable_variables
    build(check_model(model), batch)
    described = describe(model)
    function = GradientFunction(model, batch, seed=0, decay=described.decay, clipping=described.clipping)
    assert [v.decay for v in function.layout.trainable] == [True, False, True, False]
    with pytest.raises(ValueError, match="zip"):
        GradientFunction(model, batch, seed=0, decay=[])


@pytest.mark.parametrize("xla", ["never", "always"])
def test_finite(xla):
    batch = rows()
    function = GradientFunction(mlp(), batch, seed=0, xla=xla)
    parameters, state, _ = function.initial()
    for bad in (np.nan, np.inf):
        x = batch.x.copy()
        x[2, 1] = bad
        assert not function(parameters, state, batch._replace(x=x), 0, 0).finite
    broken = parameters.copy()
    broken[-1] = np.nan
    assert not function(broken, state, batch, 0, 0).finite
    assert function(parameters, state, batch, 0, 0).finite
    large = function(parameters * np.float32(1e12), state, batch, 0, 0)
    assert np.isfinite(large.gradient).all()
    assert large.finite


def test_assign_and_initial_are_inverse():
    model, batch = frozen()
    function = GradientFunction(model, batch, seed=0, xla="never")
    values = [rng().normal(size=v.size).astype(np.float32) for v in function.initial()]
    before = function(values[0], values[1], batch, 0, 0).loss
    function.assign(*values)
    assert all(np.array_equal(a, b) for a, b in zip(values, function.initial(), strict=True))
    assert function(values[0], values[1], batch, 0, 0).loss != before, "frozen values count for the next step"
    gradient = keras_step(model, function, batch)[0]
    np.testing.assert_allclose(function(*values[:2], batch, 0, 0).gradient, gradient, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("xla", ["never", "always"])
def test_parameters_may_lie_anywhere_and_are_not_kept(xla):
    batch = rows()
    function = GradientFunction(mlp(), batch, seed=0, xla=xla)
    values, state, _ = function.initial()
    room = np.zeros(len(values) + 32, np.float32)
    first = -room.ctypes.data % ALIGNMENT // 4
    read_only = values.copy()
    read_only.flags.writeable = False
    steps = [function(read_only, state, batch, 0, 0)]
    for offset in (first, first + 1, first + 4):
        place = room[offset : offset + len(values)]
        place[:] = values
        steps.append(function(place, state, batch, 0, 0))
        assert np.array_equal(place, values)
        place[:] = np.nan
    assert len({step.gradient.tobytes() for step in steps}) == 1
    assert steps[0].finite


def test_results_stay_valid_after_the_next_call():
    batch = rows()
    function = GradientFunction(mlp(), batch, seed=0, xla="never")
    parameters, state, _ = function.initial()
    step = function(parameters, state, batch, 0, 0)
    copy = step.gradient.copy()
    for i in range(20):
        function(parameters * i, state, batch, 0, i)
    assert np.array_equal(step.gradient, copy)
    assert not step.gradient.flags.writeable
