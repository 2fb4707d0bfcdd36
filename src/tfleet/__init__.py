"""tfleet trains Keras 3 (TensorFlow) models with parameter servers and workers.

`import tfleet` is light: every name below is loaded when it is first used, TensorFlow by the workers only
(and by `tfleet.Task`, which describes Keras models).
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tfleet.api import Run, train
    from tfleet.spec.errors import Interrupted, JobFailed, TfleetError, WrongInput
    from tfleet.spec.job import JobSpec
    from tfleet.tasks import Task
    from tfleet.version import __version__

__all__ = ["Interrupted", "JobFailed", "JobSpec", "Run", "Task", "TfleetError", "WrongInput", "__version__", "train"]

_HOMES = {
    "Interrupted": "tfleet.spec.errors",
    "JobFailed": "tfleet.spec.errors",
    "JobSpec": "tfleet.spec.job",
    "Run": "tfleet.api",
    "Task": "tfleet.tasks",
    "TfleetError": "tfleet.spec.errors",
    "WrongInput": "tfleet.spec.errors",
    "__version__": "tfleet.version",
    "train": "tfleet.api",
}


def __getattr__(name: str) -> Any:
    """Loads a public name when it is first used (PEP 562)."""
    if name not in _HOMES:
        raise AttributeError(f"module 'tfleet' has no attribute {name!r}")
    value = getattr(importlib.import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """Lists the public names, loaded or not."""
    return sorted({*globals(), *__all__})
