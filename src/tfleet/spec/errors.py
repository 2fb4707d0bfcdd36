"""The errors a user can see, and the exit code that each of them ends a process with.

Everything raised on purpose for a user derives from `TfleetError`; the command line and the replica
entry points turn it into one sentence and an exit code in one place each. Any other exception is a defect.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from enum import IntEnum


class ExitCode(IntEnum):
    """What the exit code of a launcher or a replica means."""

    DONE = 0
    FAILED = 1
    WRONG_INPUT = 2
    INTERRUPTED = 130


class TfleetError(Exception):
    """An error with a sentence for the user.

    The message says what was given, what is allowed, and what to change, in one sentence.
    """

    exit_code: ExitCode = ExitCode.FAILED


class WrongInput(TfleetError):
    """The input cannot work, however often it is tried: exit code 2, never retried."""

    exit_code = ExitCode.WRONG_INPUT


class WrongField(WrongInput):
    """A job field has a wrong value.

    Attributes:
        field: its name, with dots between sections.
        problem: what was given and what is allowed.
    """

    def __init__(self, field: str, problem: str) -> None:
        super().__init__(f"{field}: {problem}; change {field} in the job file or its flag")
        self.field = field
        self.problem = problem


class JobFailed(TfleetError):
    """The job failed for a reason that may pass: exit code 1, may be retried."""

    exit_code = ExitCode.FAILED


class Interrupted(TfleetError):
    """The job was interrupted or the replica drained, everything committed: exit code 130."""

    exit_code = ExitCode.INTERRUPTED


def error_for(exit_code: int, message: str) -> TfleetError:
    """Returns the error that ends a process with `exit_code`, for an error that came over the wire."""
    kinds: dict[int, type[TfleetError]] = {
        ExitCode.WRONG_INPUT: WrongInput,
        ExitCode.INTERRUPTED: Interrupted,
    }
    return kinds.get(exit_code, JobFailed)(message)


def nearest(given: str, allowed: Iterable[str]) -> str:
    """Returns ` (did you mean 'x'?)` for the nearest allowed name, or the empty string when none is near."""
    match = difflib.get_close_matches(given, list(allowed), n=1)
    return f" (did you mean '{match[0]}'?)" if match else ""


def out_of_memory(who: str, error: BaseException, advice: str) -> str:
    """Returns the sentence for a replica, or a part of its work, that the system gave no memory.

    Args:
        who: such as `worker 1`.
        error: what was raised.
        advice: what to change.
    """
    what = " ".join(str(error).split())[:200]
    return f"{who} is out of memory{': ' + what if what else ''}; {advice}"
