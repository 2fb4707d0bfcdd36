"""What the commands share: the format option, JSON on stdout, consoles, help texts of common arguments."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from enum import StrEnum
from typing import Annotated, Any

import typer

from tfleet.spec.errors import WrongInput
from tfleet.spec.plain import plain


class Format(StrEnum):
    """How a command answers."""

    TEXT = "text"
    JSON = "json"


class On(StrEnum):
    """Where a job runs."""

    LOCAL = "local"
    KUBERNETES = "kubernetes"


FormatOption = Annotated[
    Format, typer.Option("-o", "--output", help="Answer as text for people or as one JSON object.")
]

RunArgument = Annotated[
    str,
    typer.Argument(
        metavar="RUN",
        help="The run directory, such as runs/mnist-20260131-235959, or k8s://context/namespace/name; train prints it.",
    ),
]

CommitOption = Annotated[
    str,
    typer.Option("--commit", metavar="N", help="Number of the commit; -1: the newest."),
]


def integer(given: str, flag: str, least: int, most: int | None = None) -> int:
    """Reads a whole number from the command line.

    Raises:
        WrongInput: when it is none, or out of bounds.
    """
    bounds = f"of at least {least}" if most is None else f"from {least} to {most}"
    try:
        value = int(given)
    except ValueError:
        value = least - 1
    if value < least or (most is not None and value > most):
        raise WrongInput(f"{flag}: given '{given}', but it is a whole number {bounds}; change {flag}")
    return value


def print_json(values: Mapping[str, Any]) -> None:
    """Prints one JSON object to stdout; NaN and infinities as text, as JSON has none."""
    sys.stdout.write(json.dumps(plain(values), indent=2, allow_nan=False) + "\n")
    sys.stdout.flush()


def print_line(line: str) -> None:
    """Prints one line to stdout at once, also into a pipe."""
    print(line, flush=True)


def tell(line: str) -> None:
    """Prints one line to stderr: progress beside a JSON answer, and errors."""
    print(line, file=sys.stderr, flush=True)
