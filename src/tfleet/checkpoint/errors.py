"""What can go wrong with a commit, as errors that name it in one sentence."""

from __future__ import annotations

from tfleet.spec.errors import JobFailed


class CommitFailed(JobFailed):
    """A commit could not be written or removed; every earlier one is unharmed."""


class CommitDamaged(JobFailed):
    """A commit on disk is not what was written: bytes differ, or (some of) its files are gone or unreadable."""
