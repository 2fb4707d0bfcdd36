"""Runs code that a user wrote, and tells its failure in one sentence instead of a traceback."""

from __future__ import annotations

import contextlib
import inspect
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from tfleet.spec.errors import TfleetError, WrongInput

_LONGEST = 500


@contextlib.contextmanager
def user_code(what: str, advice: str, file: Path | None = None) -> Iterator[None]:
    """Turns any error within the block into `WrongInput`; the error itself stays its cause, for logs.

    Args:
        what: what is run, for the message.
        advice: what to change.
        file: the user's file, when known: its own line is told rather than one deeper in a library.

    Raises:
        WrongInput: with the error's type, text, file and line. Errors of tfleet itself pass unchanged.
    """
    try:
        yield
    except TfleetError:
        raise
    except (Exception, SystemExit) as error:
        text = " ".join(str(error).split())
        told = f"{type(error).__name__}: {text}" if text else type(error).__name__
        if len(told) > _LONGEST:
            told = told[:_LONGEST] + "..."
        raise WrongInput(f"{what} failed with {told}{_place(error, file)}; {advice}") from error


def file_of(function: Callable[..., Any]) -> Path | None:
    """Returns the file that a function was written in, or None when Python does not know."""
    with contextlib.suppress(TypeError, OSError):
        return Path(inspect.getfile(inspect.unwrap(function)))
    return None


def _place(error: BaseException, file: Path | None) -> str:
    if isinstance(error, SyntaxError) and error.filename:
        return "" if f"line {error.lineno})" in str(error) else f" ({error.filename}, line {error.lineno})"
    frames = [f for f in traceback.extract_tb(error.__traceback__) if not _internal(f.filename)]
    own = [f for f in frames if file is not None and Path(f.filename) == file]
    if not frames:
        return ""
    frame = (own or frames)[-1]
    return f" ({frame.filename}, line {frame.lineno})"


def _internal(filename: str) -> bool:
    return filename.startswith("<frozen") or "/importlib/" in filename or filename in (__file__, _LOADER)


_LOADER = str(Path(__file__).with_name("load.py"))
