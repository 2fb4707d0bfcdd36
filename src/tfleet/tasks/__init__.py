"""Tasks: what is trained. Importing this package imports neither TensorFlow nor Keras; a task's own module does.

What it takes to read data, NumPy first, is loaded when a name that needs it is first used: a launcher only checks
names, and starts the replicas sooner.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from tfleet.tasks.names import check_name

if TYPE_CHECKING:
    from tfleet.tasks.load import load_task, resolve
    from tfleet.tasks.task import Task, TaskData

__all__ = ["Task", "TaskData", "check_name", "load_task", "resolve"]

_HOMES = {"Task": "task", "TaskData": "task", "load_task": "load", "resolve": "load"}


def __getattr__(name: str) -> Any:
    """Loads a public name when it is first used (PEP 562)."""
    if name not in _HOMES:
        raise AttributeError(f"module 'tfleet.tasks' has no attribute {name!r}")
    value = getattr(importlib.import_module(f"tfleet.tasks.{_HOMES[name]}"), name)
    globals()[name] = value
    return value
