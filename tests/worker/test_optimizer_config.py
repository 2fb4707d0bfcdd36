"""What is read from a compiled optimizer, what is refused by name, and clipping as Keras does it."""

from __future__ import annotations

import inspect
import os

os.environ.setdefault("KERAS_BACKEND", "tensorflow")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfleet.optimizers import OptimizerSpec
from tfleet.spec.errors import WrongInput
from tfleet.worker.optimizer_config import Clipping, clip, describe

pytestmark = pytest.mark.tf

schedules = keras.optimizers.schedules
ALLOWED = "Adagrad, Adam, AdamW, RMSprop, SGD"


class MyAdam(keras.optimizers.Adam):
    """A subclass may do anything."""


class Broken(schedules.LearningRateSchedule):
    def __call__(self, step):
        raise KeyError("warmup")


def compiled(optimizer, **layer) -> keras.Model:
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3, **layer), keras.layers.Dense(2)])
    if optimizer is not None:
        model.compile(optimizer, loss="mse")
    return model


@pytest.mark.parametrize(
    ("optimizer", "spec"),
    [
        ("sgd", OptimizerSpec("sgd", {"momentum": 0.0, "nesterov": False})),
        (
            keras.optimizers.SGD(0.1, momentum=0.9, nesterov=True, weight_decay=0.5),
            OptimizerSpec("sgd", {"momentum": 0.9, "nesterov": True}, 0.5),
        ),
        (
            keras.optimizers.RMSprop(rho=0.8, momentum=0.1, epsilon=1e-3, centered=True),
            OptimizerSpec("rmsprop", {"rho": 0.8, "momentum": 0.1, "epsilon": 1e-3, "centered": True}),
        ),
        (
            keras.optimizers.Adagrad(initial_accumulator_value=0.3, epsilon=1e-3),
            OptimizerSpec("adagrad", {"initial_accumulator_value": 0.3, "epsilon": 1e-3}),
        ),
        (
            keras.optimizers.Adam(beta_1=0.8, beta_2=0.9, epsilon=1e-3, amsgrad=True),
            OptimizerSpec("adam", {"beta_1": 0.8, "beta_2": 0.9, "epsilon": 1e-3, "amsgrad": True}),
        ),
        (
            "adamw",
            OptimizerSpec("adamw", {"beta_1": 0.9, "beta_2": 0.999, "epsilon": 1e-7, "amsgrad": False}, 0.004),
        ),
    ],
    ids=["sgd", "nesterov", "rmsprop", "adagrad", "adam", "adamw"],
)
def test_describes_every_hyperparameter(optimizer, spec):
    described = describe(compiled(optimizer))
    assert described.spec == spec
    assert described.decay == [True] * 4
    assert not described.clipping


def test_decay_mask_by_variable_and_by_name():
    model = compiled("adamw")
    model.optimizer.exclude_from_weight_decay(var_list=[model.layers[1].kernel], var_names=["bias"])
    assert describe(model).decay == [True, False, False, False]


def test_decay_mask_follows_trainable_variables():
    model = compiled("adamw")
    model.optimizer.exclude_from_weight_decay(var_list=[model.layers[1].kernel])
    model.layers[0].trainable = False
    assert describe(model).decay == [False, True]


def test_override_replaces_a_constant():
    assert describe(compiled(keras.optimizers.SGD(0.1))).learning_rate(5) == float(np.float32(0.1))
    assert describe(compiled(keras.optimizers.SGD(0.1)), override=0.3).learning_rate(5) == float(np.float32(0.3))


def test_schedule_is_taken_over():
    described = describe(compiled(keras.optimizers.SGD(schedules.PiecewiseConstantDecay([5], [0.1, 0.2]))))
    assert described.learning_rate.scheduled
    assert [described.learning_rate(step) for step in (5, 6)] == [float(np.float32(0.1)), float(np.float32(0.2))]


@pytest.mark.parametrize("kind", ["clipnorm", "clipvalue", "global_clipnorm"])
@pytest.mark.parametrize("limit", [0.05, 1e6])
def test_clips_as_keras_does(kind, limit):
    model = compiled(keras.optimizers.SGD(0.1, **{kind: limit}))
    clipping = describe(model).clipping
    assert clipping == Clipping(**{kind: limit})
    rng = np.random.default_rng(0)
    gradients = [tf.constant(rng.standard_normal(v.shape, np.float32)) for v in model.trainable_variables]
    theirs = model.optimizer._clip_gradients(gradients)
    for run in (clip, tf.function(clip)):
        ours = run(gradients, clipping)
        assert len(ours) == len(theirs)
        for a, b in zip(ours, theirs, strict=True):
            assert np.asarray(a).tobytes() == np.asarray(b).tobytes()


def test_no_clipping_leaves_the_gradients():
    gradients = [tf.ones(3), tf.ones((2, 2))]
    assert clip(gradients, Clipping()) is gradients


def test_a_limit_that_is_not_positive_clips_nothing():
    assert describe(compiled(keras.optimizers.SGD(0.1, clipnorm=-1.0))).clipping == Clipping()


REFUSED = {
    "not compiled": (None, rf"^the model has no optimizer; compile it with one: {ALLOWED}$"),
    "another optimizer": (
        "lion",
        rf"^the model is compiled with the optimizer Lion, which the .* do not have; .* one that they have: {ALLOWED}$",
    ),
    "a subclass": (
        lambda: MyAdam(),
        rf"^the model is compiled with the optimizer MyAdam, a subclass of Adam, which .* that they have: {ALLOWED}$",
    ),
    "loss scale": (
        lambda: keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD()),
        "mixed_float16.* that they have: ",
    ),
    "ema": (
        lambda: keras.optimizers.SGD(use_ema=True),
        r"^use_ema=True of the optimizer SGD cannot be carried: .*; leave it out$",
    ),
    "accumulation": (
        lambda: keras.optimizers.Adam(gradient_accumulation_steps=4),
        "^gradient_accumulation_steps=4 of the optimizer Adam cannot be carried: ",
    ),
    "loss scale factor": (
        lambda: keras.optimizers.Adam(loss_scale_factor=8.0),
        r"^loss_scale_factor=8\.0 of the optimizer Adam cannot be carried: ",
    ),
    "function as rate": (lambda: keras.optimizers.SGD(lambda: 0.1), "^the learning rate of .* SGD is a function; give"),
    "broken schedule": (
        lambda: keras.optimizers.SGD(Broken()),
        "^the learning-rate schedule Broken fails at step 0: 'warmup'; correct it$",
    ),
    "None for a number": (
        lambda: keras.optimizers.Adam(epsilon=None),
        "^epsilon=None of the optimizer Adam is not a number; give a number$",
    ),
    "not a number": (lambda: keras.optimizers.Adam(epsilon="small"), "^epsilon='small' of the optimizer Adam is not a"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refuses_by_name(case):
    optimizer, sentence = REFUSED[case]
    with pytest.raises(WrongInput, match=sentence) as refusal:
        describe(compiled(optimizer() if callable(optimizer) else optimizer))
    assert "\n" not in str(refusal.value)


def test_refuses_the_optimizer_that_mixed_float16_makes():
    keras.config.set_dtype_policy("mixed_float16")
    try:
        model = compiled("adam")
    finally:
        keras.config.set_dtype_policy("float32")
    with pytest.raises(
        WrongInput, match=r"^the model is compiled with the optimizer LossScaleOptimizer .*mixed_float1"
    ):
        describe(model)


def test_refuses_an_option_of_a_later_keras(monkeypatch):
    model = compiled("adam")
    signature = inspect.signature(keras.optimizers.Adam)
    added = [inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=0) for name in ("lookahead", "foresight")]
    parameters = [p for p in signature.parameters.values() if p.kind != p.VAR_KEYWORD]
    monkeypatch.setattr(keras.optimizers.Adam, "__signature__", inspect.Signature([*parameters, *added]), raising=False)
    assert describe(model).spec.name == "adam"
    model.optimizer.lookahead = 5
    with pytest.raises(
        WrongInput, match=r"^lookahead=5 of the optimizer Adam cannot be carried: it is not known here; "
    ):
        describe(model)


def test_refuses_constraints_of_trainable_variables_only():
    model = compiled("sgd", kernel_constraint="non_neg")
    with pytest.raises(
        WrongInput, match=r"^the variable .*kernel has the constraint NonNeg, which cannot be carried; "
    ):
        describe(model)
    model.layers[0].trainable = False
    assert len(describe(model).decay) == 2


def test_refuses_variables_that_are_overwritten_with_their_gradient():
    model = compiled("sgd")
    model.layers[0].bias.overwrite_with_gradient = True
    with pytest.raises(WrongInput, match=r"^the variable .*bias is overwritten with its gradient"):
        describe(model)


def test_refuses_an_optimizer_with_a_past():
    model = compiled("adam")
    model.optimizer.apply([tf.ones(v.shape) for v in model.trainable_variables], model.trainable_variables)
    with pytest.raises(WrongInput, match=r"^the optimizer Adam has already made 1 updates.*compile=False"):
        describe(model)


def test_refuses_override_of_a_schedule():
    model = compiled(keras.optimizers.SGD(schedules.ExponentialDecay(0.1, 10, 0.9)))
    with pytest.raises(WrongInput, match=r"^learning_rate=0\.5 is given, but .* schedule ExponentialDecay; leave"):
        describe(model, override=0.5)
