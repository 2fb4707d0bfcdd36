"""The parameters of a task: read from the signatures of its two functions, set by `--param name=value`."""

from __future__ import annotations

import contextlib
import inspect
import math
import types
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from tfleet.spec.errors import WrongInput, nearest

Value = int | float | bool | str
DATA_DIR = "data_dir"
"""A function that has a parameter of this name gets the job's data folder."""

_TYPES: dict[Any, type] = {key: kind for kind in (int, float, bool, str) for key in (kind, kind.__name__)}
_BOOLS = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}
_REQUIRED = inspect.Parameter.empty


@dataclass(frozen=True)
class Parameter:
    """One parameter of a task.

    Attributes:
        default: its value unless it is given; `inspect.Parameter.empty` when it must be given.
        type: int, float, bool or str.
        choices: the allowed values, when they are few (`Literal`); else empty.
    """

    default: Any
    type: type
    choices: tuple[Value, ...] = ()

    @property
    def required(self) -> bool:
        """Whether it must be given."""
        return self.default is _REQUIRED

    def parse(self, name: str, text: str) -> Value:
        """Returns the value that a text stands for.

        Raises:
            WrongInput: when the text is not of the parameter's type, or not among its choices.
        """
        value = self._typed(name, text)
        if self.choices and value not in self.choices:
            allowed = ", ".join(map(str, self.choices))
            near = nearest(text, map(str, self.choices))
            raise WrongInput(f"--param {name}={text}: {text!r} is not among {allowed}{near}; give one of them")
        return value

    def _typed(self, name: str, text: str) -> Value:
        try:
            if self.type is bool:
                return _BOOLS[text.lower()]
            value: Value = self.type(text)
        except (ValueError, KeyError):
            needed = {int: "an integer", float: "a number", bool: "true or false"}[self.type]
            raise WrongInput(f"--param {name}={text}: {text!r} is not {needed}; give {name}={self.example()}") from None
        if isinstance(value, float) and not math.isfinite(value):
            raise WrongInput(f"--param {name}={text}: {text!r} is not a finite number; give {name}={self.example()}")
        return value

    def example(self) -> Any:
        """Returns a value to suggest."""
        known = {int: 1, float: 0.1, bool: "true", str: "text"}[self.type]
        return known if self.required or self.default is None else self.default


def read_parameters(function: Callable[..., Any], what: str) -> dict[str, Parameter]:
    """Reads the parameters of a function, `data_dir` included, from its annotations and defaults.

    `*args` and `**kwargs` take nothing: only named parameters can be set.

    Raises:
        WrongInput: when a parameter cannot be set by name, or its type is not int, float, bool, str or a Literal.
    """
    found = {}
    for name, given in _signature(function, what).parameters.items():
        if given.kind in (given.VAR_POSITIONAL, given.VAR_KEYWORD):
            continue
        if given.kind is given.POSITIONAL_ONLY:
            raise WrongInput(f"parameter {name} of {what} can be given by position only; remove the '/' after it")
        kind, choices = _type_of(given)
        if kind is None:
            raise WrongInput(
                f"parameter {name} of {what} has no type that --param can give: int, float, bool, str or a Literal; "
                "annotate it, or give it such a default"
            )
        found[name] = Parameter(given.default, kind, choices)
    return found


def arguments(
    parameters: Mapping[str, Parameter], own: Mapping[str, Parameter], given: Mapping[str, str]
) -> dict[str, Value]:
    """Returns what one function of a task is called with: those of its own parameters that are given, typed.

    Args:
        parameters: all parameters of the task.
        own: those of this function.
        given: `--param` names and texts.

    Raises:
        WrongInput: when a name is unknown, a value is not of its type, or a required one is missing.
    """
    for name in given:
        if name not in parameters:
            told = ", ".join(parameters) or "none"
            raise WrongInput(f"unknown --param {name}{nearest(name, parameters)}; this task has: {told}")
    values = {name: parameters[name].parse(name, text) for name, text in given.items()}
    for name, parameter in parameters.items():
        if parameter.required and name not in values:
            raise WrongInput(f"this task needs --param {name}; give {name}={parameter.example()}")
    return {name: value for name, value in values.items() if name in own}


def _signature(function: Callable[..., Any], what: str) -> inspect.Signature:
    try:
        with contextlib.suppress(NameError, AttributeError, SyntaxError):
            return inspect.signature(function, eval_str=True)
        # Annotations that exist for type checkers only; what is written there in plain words is still understood.
        return inspect.signature(function)
    except (TypeError, ValueError):
        raise WrongInput(f"{what} has no signature that Python can read; give a function written in Python") from None


def _type_of(parameter: inspect.Parameter) -> tuple[type | None, tuple[Value, ...]]:
    annotation = parameter.annotation
    if annotation is _REQUIRED:
        return _TYPES.get(type(parameter.default)), ()
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        members = [a for a in typing.get_args(annotation) if a is not type(None)]
        annotation = members[0] if len(members) == 1 else None
    if typing.get_origin(annotation) is Literal:
        choices = typing.get_args(annotation)
        kinds = {type(c) for c in choices}
        return (_TYPES.get(kinds.pop()), choices) if len(kinds) == 1 else (None, ())
    return (_TYPES.get(annotation) if isinstance(annotation, type | str) else None), ()
