"""The run directory as the pods of a job share it: who may write it, whose it is, and whether the job is over."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from pathlib import Path
from typing import Any

from tfleet.spec.errors import WrongInput
from tfleet.spec.job import JobSpec
from tfleet.spec.rundir import RunDir, outcome_of, write_atomically

KEPT = (
    "phase",
    "exit_code",
    "reason",
    "task",
    "strategy",
    "step",
    "steps",
    "training_elapsed",
    "evaluation",
    "export",
)
"""What a pod's last word repeats of the status."""

LAST_WORD = 4000
"""Bytes of a pod's last word: Kubernetes keeps 4096."""


class PodRun:
    """A run directory on a volume that every pod of the job mounts.

    There is no launcher that could tell a job from an earlier one in the same folder: ps 0 leaves a digest of the
    job's token there, and until it has, what stands in the folder is of an earlier job.

    Args:
        run: the run directory.
        token: of the job.
    """

    def __init__(self, run: RunDir, token: bytes) -> None:
        self.run = run
        self._digest = hashlib.sha256(b"tfleet run " + token).hexdigest()[:32]
        self._mark = run.private / "job"

    @property
    def ours(self) -> bool:
        """Whether this job has begun in the folder."""
        with contextlib.suppress(OSError):
            return self._mark.read_text(encoding="ascii") == self._digest
        return False

    def check(self) -> None:
        """Makes the folders, by writing a file for a moment.

        Raises:
            WrongInput: when this user may not write there, or the volume is full.
        """
        try:
            self.run.create()
        except WrongInput as error:
            text = str(error).rpartition("; ")[0]
            raise WrongInput(
                f"{text} by user {os.getuid()}, group {os.getgid()}; mount a volume that they may write, or set "
                "user.uid and user.gid to its owner"
            ) from None

    def adopt(self, spec: JobSpec, resume: bool) -> bool:
        """Takes the folder for this job; ps 0 calls it once the folder is writable.

        Args:
            spec: the job as it was submitted, or as an upgrade has changed it.
            resume: whether the user wants to go on with an earlier job.

        Returns:
            Whether there may be commits to go on from.

        Raises:
            WrongInput: when an earlier job is there and is not to be gone on with, or the other way round.
        """
        if self.ours:
            return True  # a pod that was started again; the job is as it was submitted first
        before = self.run.job_file.exists()
        if before and not resume:
            raise WrongInput(
                f"the run directory {self.run.path} holds an earlier job; "
                "go on with it with resume=true (--resume of tfleet train), or choose another with runDir (--run-dir)"
            )
        if resume and not before:
            raise WrongInput(f"there is no job to resume in {self.run.path}; correct runDir, or leave resume out")
        try:
            self.run.status_file.unlink(missing_ok=True)
            earlier = JobSpec.load(self.run.job_file) if before else None
            self.run.write_job(spec.pinned(earlier).dump())
            write_atomically(self._mark, self._digest)
        except OSError as error:
            raise self.run.not_writable(error) from None
        return resume

    def status(self) -> dict[str, Any]:
        """Returns what ps 0 last told about this job, or an empty dict."""
        return self.run.status() if self.ours else {}

    def over(self) -> int | None:
        """Returns the exit code of this job once it is over, else None."""
        return outcome_of(self.status(), generation=0)


def last_word(path: Path, status: dict[str, Any]) -> None:
    """Leaves the result where Kubernetes keeps it with the pod; passed over where there is no such file.

    Args:
        path: of the termination log.
        status: the last one.
    """
    if not path.exists():
        return
    word = {key: status[key] for key in KEPT if key in status}
    if len(json.dumps(word)) > LAST_WORD:
        word["reason"] = str(word.get("reason", ""))[:1000]
    with contextlib.suppress(OSError):
        path.write_text(json.dumps(word)[:LAST_WORD], encoding="utf-8")
