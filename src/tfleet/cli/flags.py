"""Command-line flags made from the fields of JobSpec: every field is a flag, its description the flag's help.

Values stay text until `JobSpec.parse` judges them, so that a wrong one gets the same sentence from a flag, a job
file or Python.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import Annotated, Any, Literal, TypeVar, get_args, get_origin

import typer

from tfleet.api.names import Name, names
from tfleet.spec.errors import WrongInput

PANELS = {
    "workers": "Replicas",
    "ps": "Replicas",
    "elastic": "Replicas",
    "strategy": "Replicas",
    "replicas_to_aggregate": "Replicas",
    "staleness": "Replicas",
    "local_steps": "Replicas",
    "rounds": "Replicas",
    "ps_placement": "Replicas",
    "steps": "Training",
    "epochs": "Training",
    "batch_size": "Training",
    "learning_rate": "Training",
    "seed": "Training",
    "data_dir": "Training",
    "checkpoint": "Commits",
    "evaluation": "Evaluation",
    "summary": "TensorBoard",
}
"""Headings in the help, by the first part of a field's path; the rest comes under `OTHER`."""

OTHER = "Processes"


T = TypeVar("T")


def job_flags(function: Callable[..., T]) -> Callable[..., T]:
    """Gives a command all flags of a job.

    Args:
        function: a typer command with a parameter `given`: it gets the flags that were used, keyword to value.
    """
    own = inspect.signature(function, eval_str=True)

    def command(**values: Any) -> T:
        flags = {keyword: values.pop(keyword) for keyword in names()}
        return function(given={k: v for k, v in flags.items() if v is not None}, **values)

    kept = [p.replace(kind=p.KEYWORD_ONLY) for p in own.parameters.values() if p.name != "given"]
    command.__signature__ = inspect.Signature(kept + [_option(n) for n in names().values()])  # type: ignore[attr-defined]
    command.__annotations__ = {}
    command.__doc__ = function.__doc__
    return command


def params_of(given: Sequence[str]) -> dict[str, str]:
    """Reads `name=value` pairs.

    Raises:
        WrongInput: for one without a name or `=`, or a name given twice.
    """
    params: dict[str, str] = {}
    for pair in given:
        name, sign, value = pair.partition("=")
        if not sign or not name:
            raise WrongInput(f"--param {pair} has no value; write --param name=value, such as --param hidden_units=100")
        if name in params:
            raise WrongInput(f"--param {name} is given twice; give it once")
        params[name] = value
    return params


def _option(name: Name) -> inspect.Parameter:
    kind = name.field.annotation
    switch = kind is bool
    option = typer.Option(
        f"{name.flag}/--no-{name.flag[2:]}" if switch else name.flag,
        help=f"{name.field.description}{_default(name)}",
        metavar=None if switch else _metavar(kind),
        rich_help_panel=PANELS.get(name.path[0], OTHER),
        show_default=False,
        autocompletion=_completion(kind),
    )
    annotation = Annotated[bool | None, option] if switch else Annotated[str | None, option]
    return inspect.Parameter(name.keyword, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=annotation)


def _default(name: Name) -> str:
    """Writes the default, unless the description tells what its value means."""
    value = name.field.default
    if isinstance(value, bool):
        return f" Default: {'on' if value else 'off'}."
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    told = value in ("", -1) or f"{value}:" in str(name.field.description)
    return "" if told else f" Default: {value}."


def _metavar(kind: Any) -> str:
    if get_origin(kind) is Literal:
        return "|".join(get_args(kind))
    return {int: "N", float: "X"}.get(kind, "TEXT")


def _completion(kind: Any) -> Callable[[str], list[str]] | None:
    if get_origin(kind) is not Literal:
        return None
    return lambda incomplete: [choice for choice in get_args(kind) if choice.startswith(incomplete)]
