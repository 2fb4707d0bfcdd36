"""Setting up TensorFlow and Keras, each in a process of its own: it can be done once only."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

pytestmark = [pytest.mark.tf, pytest.mark.processes]

BITS = """
from tfleet.worker.keras_setup import set_up
set_up(1, 5)
import hashlib, keras, numpy as np, tensorflow as tf
from keras import layers
from tfleet.data.source import Batch
from tfleet.worker.gradient import GradientFunction
from tfleet.worker.xla import given_jit_compile
assert tf.config.threading.get_intra_op_parallelism_threads() == 1
found = hashlib.sha256()
for extra in ([], [layers.Reshape((8, 8, 1)), layers.Conv2D(4, 3), layers.Flatten()]):
    set_up(1, 5)
    stack = [keras.Input((64,)), *extra, layers.Dropout(0.3), layers.BatchNormalization(), layers.Dense(3)]
    model = keras.Sequential(stack)
    model.compile("sgd", "mse")
    assert given_jit_compile(model) is None
    r = np.random.default_rng(0)
    batch = Batch(r.normal(size=(8, 64)).astype(np.float32), r.normal(size=(8, 3)).astype(np.float32), None, 8)
    function = GradientFunction(model, batch, seed=5, xla="auto")
    parameters, state, _ = function.initial()
    for i in range(5):
        step = function(parameters, state, batch, 0, i)
        parameters, state = parameters - np.float32(0.1) * step.gradient, step.state
    print(function.uses_xla, model.layers[-1].name)
    found.update(parameters.tobytes() + state.tobytes())
print(found.hexdigest())
import gc, sys
assert gc.isenabled()
assert "matplotlib" not in sys.modules
from keras.src.visualization import plot_image_gallery
assert plot_image_gallery.plt.figure
assert "matplotlib.pyplot" in sys.modules
"""

OTHER_BACKEND = """
import keras, types
keras.backend.backend = lambda: "jax"
from tfleet.worker.keras_setup import set_up
from tfleet.spec.errors import WrongInput
try:
    set_up(1, 0)
except WrongInput as error:
    print(error)
"""

OTHER_THREADS = """
import tensorflow as tf
tf.config.threading.set_intra_op_parallelism_threads(2)
tf.constant(1.0) + 1.0
from tfleet.worker.keras_setup import set_up
from tfleet.spec.errors import WrongInput
try:
    set_up(1, 0)
except WrongInput as error:
    print(error)
"""


def run(*codes):
    environment = {**os.environ, "KERAS_BACKEND": "tensorflow", "TF_CPP_MIN_LOG_LEVEL": "2"}
    pipes = {"env": environment, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    started = [subprocess.Popen([sys.executable, "-c", code], **pipes) for code in codes]
    outputs = [process.communicate(timeout=300) for process in started]
    assert [process.returncode for process in started] == [0] * len(codes), outputs
    return [out.strip().splitlines() for out, _ in outputs]


def test_equal_bits_in_two_processes():
    first, second = run(BITS, BITS)
    assert first == second
    # Names start again with each build.
    assert first[:2] == ["True dense", "False dense"]
    assert len(first[2]) == 64


def test_refuses_what_cannot_be_changed_any_more():
    (backend,), (threads,) = run(OTHER_BACKEND, OTHER_THREADS)
    assert "imported with the backend jax, but only tensorflow is allowed" in backend
    assert "threads=1 is given, but TensorFlow already runs in this process" in threads
