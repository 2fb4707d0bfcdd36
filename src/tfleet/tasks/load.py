"""From the name of a task to the task, and from a job's "what the task says" to numbers."""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

from tfleet.spec.errors import WrongInput, nearest
from tfleet.spec.job import TASK_DEFAULT, JobSpec
from tfleet.tasks.names import BUILTINS, check_name, file_part, object_part
from tfleet.tasks.task import Task
from tfleet.tasks.user_code import user_code


def load_task(name: str) -> Task:
    """Imports a task; this runs the user's module, which usually imports TensorFlow: seconds.

    As for a script, the folder of a file (of a module: the current folder) is searched first for what it imports.

    Args:
        name: a built-in name, `package.module:object`, or `path/to/file.py:object`.

    Raises:
        WrongInput: when there is no such task, its module does not import, or the object is no Task.
    """
    check_name(name)
    # Keras reads it once, when the task's module imports it; tfleet carries models of this backend only.
    os.environ["KERAS_BACKEND"] = "tensorflow"
    target = BUILTINS[name].target if name in BUILTINS else name
    path = file_part(target)
    module = _import_module(target.rpartition(":")[0]) if path is None else _import_file(path)
    return _task_in(module, object_part(target), name)


def resolve(spec: JobSpec, task: Task) -> JobSpec:
    """Returns the job with steps and batch size filled in from the task where the job leaves them to it.

    Args:
        spec: the job; steps -1 without epochs and batch_size 0 mean "what the task says".
        task: its task.

    Raises:
        WrongInput: when parameters or data folder do not fit the task.
    """
    task.check(spec)
    steps = task.steps if spec.steps == TASK_DEFAULT and not spec.epochs else spec.steps
    return spec.model_copy(update={"steps": steps, "batch_size": spec.batch_size or task.batch_size})


def _import_module(name: str) -> ModuleType:
    _search_first(Path.cwd())
    with user_code(f"importing the module {name}", "correct the module, or its name in the task"):
        return importlib.import_module(name)


def _import_file(path: Path) -> ModuleType:
    _search_first(path.parent)
    name = f"tfleet_task_{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise WrongInput(f"the file {path} is not a Python module; give a .py file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        with user_code(f"importing the file {path}", "correct the file", path):
            spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def _search_first(folder: Path) -> None:
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))


def _task_in(module: ModuleType, attribute: str, name: str) -> Task:
    missing = object()
    found: Any = getattr(module, attribute, missing)
    tasks = [key for key, value in vars(module).items() if isinstance(value, Task)]
    told = f"; its tasks: {', '.join(tasks)}" if tasks else "; make one with tfleet.tasks.Task(model, data)"
    if found is missing:
        hint = nearest(attribute, vars(module))
        raise WrongInput(f"the task {name} names {attribute}, which its module does not have{hint}{told}")
    if not isinstance(found, Task):
        raise WrongInput(f"{attribute} of the task {name} is a {type(found).__name__}, not a tfleet.tasks.Task{told}")
    return found
