"""What can go wrong with a commit, as errors that name it in one sentence."""

from __future__ import annotations

from tfleet.spec.errors import JobFailed, WrongInput


class CommitFailed(JobFailed):
    """A commit could not be written or removed; every earlier one is unharmed."""


class CommitDamaged(JobFailed):
    """A commit on disk is not what was written: bytes differ, or (some of) its files are gone or unreadable."""


def none_readable(refused: list[str]) -> WrongInput:
    """Returns the error for a run whose commits are all damaged: what was learned is not thrown away in silence.

    Args:
        refused: what `Store.newest` said about each, the newest first.
    """
    newest = refused[0].partition(";")[0]
    return WrongInput(
        f"no commit of this run can be read ({newest}); put the files of one back, or train anew with another --run-dir"
    )
