"""Tasks: what is trained. Importing this package imports neither TensorFlow nor Keras; a task's own module does."""

from __future__ import annotations

from tfleet.tasks.load import load_task, resolve
from tfleet.tasks.names import check_name
from tfleet.tasks.task import Task, TaskData

__all__ = ["Task", "TaskData", "check_name", "load_task", "resolve"]
