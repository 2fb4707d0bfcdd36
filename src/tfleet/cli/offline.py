"""What `eval` and `export` share: they load TensorFlow into this process, quietly, and only when asked."""

from __future__ import annotations

import contextlib
import importlib
import os
import sys
import tempfile
from collections.abc import Iterator
from types import ModuleType

from tfleet.spec.errors import WrongInput


def load() -> ModuleType:
    """Imports and returns `tfleet.worker.offline`; takes seconds.

    Raises:
        WrongInput: when TensorFlow or Keras is not installed.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    os.environ["KERAS_BACKEND"] = "tensorflow"
    try:
        with _quiet():
            return importlib.import_module("tfleet.worker.offline")
    except ModuleNotFoundError as error:
        if error.name not in ("tensorflow", "keras"):
            raise
        raise WrongInput(f"{error.name} is not installed; install it with: pip install 'tfleet[cpu]'") from None


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keeps back what TensorFlow's C++ code writes to stderr before it reads its log level; shows it on failure."""
    sys.stderr.flush()
    real = os.dup(2)
    with tempfile.TemporaryFile() as kept:
        os.dup2(kept.fileno(), 2)
        try:
            yield
        except BaseException:
            os.dup2(real, 2)
            kept.seek(0)
            os.write(2, kept.read())
            raise
        finally:
            sys.stderr.flush()
            os.dup2(real, 2)
            os.close(real)
