"""One local step of SGD on each worker, averaged by samples, is one step of SGD on all their batches together."""

from __future__ import annotations

import os

os.environ["KERAS_BACKEND"] = "tensorflow"
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import itertools

import keras
import numpy as np
import pytest
from keras import layers

from tfleet.data.source import Batch
from tfleet.optimizers import OptimizerSpec, build
from tfleet.server.partition import Partition
from tfleet.strategies.average import ApplyMean
from tfleet.wire.frames import Push
from tfleet.worker.gradient import GradientFunction

pytestmark = pytest.mark.tf

SIZES = [(8, 8), (8, 8, 8), (8, 3)]
"""Samples of the batch of each worker; the last of an epoch may be smaller."""


@pytest.fixture(scope="module")
def made():
    keras.utils.clear_session()
    keras.utils.set_random_seed(3)
    inputs = keras.Input((8, 8, 1))
    values = layers.Conv2D(4, 3, activation="relu")(inputs)
    values = layers.Dense(16, activation="tanh", kernel_regularizer="l2")(layers.Flatten()(values))
    model = keras.Model(inputs, layers.Dense(3)(values))
    model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    r = np.random.default_rng(0)
    data = Batch(r.normal(size=(24, 8, 8, 1)).astype(np.float32), r.integers(0, 3, 24), None, 24)
    return GradientFunction(model, cut(data, 0, 8), seed=0), data


def cut(data, low, high):
    return Batch(data.x[low:high], data.y[low:high], None, high - low)


@pytest.mark.parametrize("sizes", SIZES)
@pytest.mark.parametrize("hyper", [{}, {"momentum": 0.9}, {"momentum": 0.9, "nesterov": True}])
@pytest.mark.parametrize("weight_decay", [0.0, 0.01])
def test_an_average_of_single_steps_is_a_step_on_all_batches(made, sizes, hyper, weight_decay):
    function, data = made
    optimizer = build(OptimizerSpec("sgd", hyper, weight_decay))
    decay = function.layout.decay_ranges(0, function.layout.parameters)
    parameters, state, _ = function.initial()
    partition = Partition(0, len(parameters), optimizer, decay)
    partition.parameters[:] = parameters
    rule = ApplyMean(partition, 8)
    alone = Partition(0, len(parameters), build(OptimizerSpec("sgd", hyper, weight_decay)), decay)
    alone.parameters[:] = parameters
    cuts = np.cumsum([0, *sizes]).tolist()
    for number in range(5):
        start = partition.copy()
        for worker, (low, high) in enumerate(itertools.pairwise(cuts)):
            own, slots = start[0].copy(), {name: values.copy() for name, values in start[1].items()}
            gradient = function(own, state, cut(data, low, high), 0, worker).gradient
            optimizer.apply(own, gradient, slots, number, 0.1, decay)
            push = Push(1, worker, 1, 0.1, high - low, number, 0, number * len(sizes) + worker, len(sizes), 1, 0)
            rule.take(push, np.concatenate([own, *slots.values()]), state)
        rule.reach(number + 1)
        alone.apply(function(alone.parameters, state, cut(data, 0, cuts[-1]), 0, 0).gradient, 0.1)
        difference = np.abs(partition.parameters - alone.parameters)
        assert (difference <= 1e-5 * np.abs(alone.parameters) + 1e-6).all(), difference.max()
    assert np.abs(partition.parameters - parameters).max() > 0.01
