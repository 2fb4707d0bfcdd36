"""Updates of touched rows have the bits of Keras's own `apply` on the sparse gradient of the same rows."""

from __future__ import annotations

import os

os.environ.setdefault("KERAS_BACKEND", "tensorflow")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfleet.optimizers import OptimizerSpec, build
from tfleet.optimizers.denormals import available
from tfleet.optimizers.rows import RowTable

pytestmark = pytest.mark.tf

ROWS, WIDTH, STEPS = 40, 6, 200
PAIRS = {
    "sgd": (OptimizerSpec("sgd"), lambda: keras.optimizers.SGD(0.05), None),
    "rmsprop": (OptimizerSpec("rmsprop", {"rho": 0.8}), lambda: keras.optimizers.RMSprop(0.05, rho=0.8), "velocity"),
    "adagrad": (OptimizerSpec("adagrad"), lambda: keras.optimizers.Adagrad(0.05), "accumulator"),
}


@pytest.mark.parametrize("name", PAIRS)
@pytest.mark.parametrize("sparse", [True, False], ids=["IndexedSlices", "dense"])
def test_the_bits_of_keras_for_200_steps_of_random_rows(name, sparse):
    spec, make, slot = PAIRS[name]
    start = np.random.default_rng(1).standard_normal((ROWS, WIDTH)).astype(np.float32)
    theirs, variable = make(), keras.Variable(start)
    theirs.build([variable])
    ours = RowTable(ROWS, WIDTH, build(spec))
    ours.load(start.reshape(-1), {}, 0)
    for step in range(STEPS):
        rng = np.random.default_rng(step)
        ids = np.sort(rng.choice(ROWS, int(rng.integers(1, 8)), replace=False)).astype(np.int64)
        gradient = (rng.standard_normal((len(ids), WIDTH)) * 10.0 ** rng.uniform(-20, 1)).astype(np.float32)
        slices = tf.IndexedSlices(tf.constant(gradient), tf.constant(ids), tf.constant([ROWS, WIDTH]))
        theirs.apply([slices if sparse else tf.convert_to_tensor(slices)])
        ours.apply(ids, gradient, step, float(np.float32(0.05)))
    assert_same(ours.parameters, variable.numpy())
    if slot:
        copy = ours.slots[slot].reshape(-1).copy()
        ours.catch_up(STEPS)(slot, copy)
        (value,) = [v.numpy() for v in theirs.variables if tuple(v.shape) == (ROWS, WIDTH)]
        assert_same(copy.reshape(ROWS, WIDTH), value)


def assert_same(ours, theirs):
    if available():
        assert np.array_equal(ours.view(np.uint32), theirs.view(np.uint32))
    else:
        assert np.all(np.abs(ours - theirs) <= 1e-5 * np.abs(theirs) + 1e-6)
