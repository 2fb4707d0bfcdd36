"""Prepares TensorFlow and Keras in a replica, before any model is built."""

from __future__ import annotations

import os
import sys

from tfleet.spec.errors import WrongInput
from tfleet.spec.importing import PLOTS, quick_imports


def set_up(threads: int, seed: int) -> None:
    """Imports TensorFlow and Keras with fixed threads, and starts Keras anew with `seed`.

    To be called once in a process, before a model is built: names of layers and variables start again at their first
    number, and the random generators of Python, NumPy, TensorFlow and Keras start from `seed`, so that a builder makes
    the same variables in the same order, with the same values, in every process.

    With one thread for an operation every kernel sums in a fixed order, which is what "same seed, equal bits" rests
    on. TensorFlow's `enable_op_determinism` is left off: it adds nothing then, and slows some kernels down. One thread
    runs the operations of a graph one after the other, whatever `threads` is: side by side they would share the
    cores of the other replicas.

    Blocks some seconds when TensorFlow was not yet imported.

    Args:
        threads: threads within an operation, at least 1.
        seed: at least 0, below 2**32.

    Raises:
        WrongInput: when Keras was already imported with another backend, or TensorFlow already runs with another number
            of threads.
    """
    os.environ["KERAS_BACKEND"] = "tensorflow"
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    if "keras" in sys.modules and sys.modules["keras"].backend.backend() != "tensorflow":
        raise WrongInput(
            f"Keras was imported with the backend {sys.modules['keras'].backend.backend()}, but only tensorflow is "
            "allowed; set KERAS_BACKEND=tensorflow before the import"
        )
    with quick_imports(PLOTS):
        import keras
        import tensorflow as tf

    from tfleet.worker.xla import remember_jit_compile

    threading = tf.config.threading
    if (threading.get_intra_op_parallelism_threads(), threading.get_inter_op_parallelism_threads()) != (threads, 1):
        try:
            threading.set_intra_op_parallelism_threads(threads)
            threading.set_inter_op_parallelism_threads(1)
        except RuntimeError:
            raise WrongInput(
                f"threads={threads} is given, but TensorFlow already runs in this process with other threads; "
                "start it in a process of its own"
            ) from None
    remember_jit_compile()
    keras.utils.clear_session()
    keras.utils.set_random_seed(seed)
