"""What `eval` and `export` share: they load TensorFlow into this process, quietly, and only when asked."""

from __future__ import annotations

import importlib
import os
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
        return importlib.import_module("tfleet.worker.offline")
    except ModuleNotFoundError as error:
        if error.name not in ("tensorflow", "keras"):
            raise
        raise WrongInput(f"{error.name} is not installed; install it with: pip install 'tfleet[cpu]'") from None
