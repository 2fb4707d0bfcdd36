"""The names of tasks, checked without importing any: what a launcher may know without TensorFlow."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from tfleet.spec.errors import WrongInput, nearest


@dataclass(frozen=True)
class Builtin:
    """A task that comes with tfleet.

    Attributes:
        target: where it is, as `module:object`.
        steps: global steps it trains unless told otherwise.
        batch_size: samples in a batch of one worker unless told otherwise.
    """

    target: str
    steps: int
    batch_size: int


BUILTINS: Mapping[str, Builtin] = MappingProxyType({"mnist": Builtin("tfleet.tasks.mnist:task", 2000, 20)})

PLANNED = ("imdb",)
"""Names that are kept for built-in tasks of a later version."""

_FORMS = "package.module:object or path/to/file.py:object"
_MODULE_OBJECT = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*")


def check_name(name: str) -> None:
    """Checks what can be known of a task's name without importing it: its form, and that its file exists.

    Args:
        name: a built-in name, `package.module:object`, or `path/to/file.py:object` (relative to the current folder).

    Raises:
        WrongInput: when it is none of these.
    """
    known = f"built in: {', '.join(BUILTINS)}; your own: {_FORMS}"
    if name in BUILTINS:
        return
    if not name:
        raise WrongInput(f"no task is given; {known}")
    if name in PLANNED:
        raise WrongInput(f"the task {name} is not in this version of tfleet yet; {known}")
    if name.endswith(".py") or name.endswith(".py:"):
        file = name.rstrip(":")
        raise WrongInput(f"the task {name} does not say which object of the file is meant; give {file}:task, for one")
    path = file_part(name)
    if path is not None:
        _check_file(name, path)
    elif not _MODULE_OBJECT.fullmatch(name):
        raise WrongInput(f"unknown task {name!r}{nearest(name, BUILTINS)}; {known}")


def file_part(name: str) -> Path | None:
    """Returns the file of `path/to/file.py:object`, absolute, or None when the name has not this form."""
    path, colon, _ = name.rpartition(":")
    return Path(path).expanduser().absolute() if colon and path.endswith(".py") else None


def object_part(name: str) -> str:
    """Returns the object of `package.module:object` or `path/to/file.py:object`."""
    return name.rpartition(":")[2]


def _check_file(name: str, path: Path) -> None:
    if not object_part(name).isidentifier():
        raise WrongInput(f"{object_part(name)!r} in the task {name} is not a name of an object; give {path.name}:task")
    if path.is_file():
        return
    near = nearest(path.name, (p.name for p in path.parent.glob("*.py"))) if path.parent.is_dir() else ""
    raise WrongInput(f"the file {path} of the task {name} does not exist{near}; give an existing .py file")
