"""The run directory: where a job keeps everything, the same on a disk and on a mounted volume.

Each file has one writer: the launcher `job.yaml`, each ps its part of a checkpoint, ps 0 the rest of it and
`deploy.log`, `metrics.jsonl`, `status.json`; workers and the evaluator their own summaries; the holder of the
finalisation lease `export/`.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import secrets
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tfleet.spec.errors import WrongInput
from tfleet.version import __version__

PRIVATE = ".tfleet"
"""Folder inside a run directory for token, endpoint and lock; readable by its owner only."""

OVER = ("done", "stopped", "failed", "interrupted")
"""The phases in which a job is over."""

ROOM = 1 << 20
"""Bytes that must be free where a job is to start: about what the logs and the first commit of a small model take."""

FORMAT = 1
"""Version of what a run directory holds and means; a greater one is of a newer tfleet. Without a word it is 1."""


@dataclass(frozen=True)
class RunDir:
    """Names of everything in one run directory.

    Attributes:
        path: the run directory, absolute.
    """

    path: Path

    @classmethod
    def at(cls, path: Path | str) -> RunDir:
        """Returns the run directory at `path`, made absolute; touches nothing."""
        return cls(Path(path).expanduser().absolute())

    @classmethod
    def existing(cls, path: Path | str) -> RunDir:
        """Returns the run directory at `path`.

        Raises:
            WrongInput: when there is no job in it, or one of a newer tfleet.
        """
        run = cls.at(path)
        if not run.job_file.is_file():
            raise WrongInput(f"{path} is not a run directory (it has no job.yaml); give the folder that train printed")
        run.check_format()
        return run

    @property
    def job_file(self) -> Path:
        """The resolved JobSpec."""
        return self.path / "job.yaml"

    @property
    def checkpoints(self) -> Path:
        """Folder of the commits."""
        return self.path / "checkpoints"

    @property
    def summaries(self) -> Path:
        """TensorBoard's log folder, with `train/` and `eval/` inside."""
        return self.path / "summaries"

    @property
    def export(self) -> Path:
        """Folder of exported versions."""
        return self.path / "export"

    @property
    def logs(self) -> Path:
        """Folder of one log per replica."""
        return self.path / "logs"

    @property
    def deploy_log(self) -> Path:
        """One line for (some of) the steps of each worker, and the time that training took."""
        return self.path / "deploy.log"

    @property
    def metrics(self) -> Path:
        """One JSON object a line: training and held-out metrics by global step."""
        return self.path / "metrics.jsonl"

    @property
    def status_file(self) -> Path:
        """What ps 0 last told about the job."""
        return self.path / "status.json"

    @property
    def profile(self) -> Path:
        """Where the time of the steps went, as a table; written at the end of a job that asks for it."""
        return self.path / "profile.txt"

    @property
    def private(self) -> Path:
        """Folder of token, endpoint and lock."""
        return self.path / PRIVATE

    @property
    def format_file(self) -> Path:
        """Version of the run directory."""
        return self.private / "format"

    @property
    def token_file(self) -> Path:
        """The job's secret, mode 0600."""
        return self.private / "token"

    @property
    def endpoint_file(self) -> Path:
        """Address of ps 0, for the commands that talk to a running job."""
        return self.private / "endpoint"

    @property
    def lock_file(self) -> Path:
        """Locked (flock) for as long as the launcher or any replica of the job lives."""
        return self.private / "lock"

    @property
    def launcher_log(self) -> Path:
        """What the launcher of a detached job would have shown on a terminal."""
        return self.logs / "launcher.log"

    @property
    def reserve_file(self) -> Path:
        """Keeps some room on the disk, for the status of a job whose disk is full."""
        return self.private / "reserve"

    def log(self, role: str, index: int) -> Path:
        """Returns the log of one replica."""
        return self.logs / f"{role}-{index}.log"

    def check_format(self) -> None:
        """Checks that this tfleet knows what the run directory means; changes nothing.

        Raises:
            WrongInput: when a newer tfleet has written it.
        """
        try:
            text = self.format_file.read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError):
            return
        if text.isascii() and text.isdigit() and int(text) > FORMAT:
            raise WrongInput(
                f"the run directory {self.path} is of a newer tfleet: it has format {text}, and this tfleet "
                f"({__version__}) knows up to {FORMAT}; use that tfleet, or another run directory"
            )

    def write_job(self, text: str) -> None:
        """Writes the job file, and the version of the run directory.

        Raises:
            OSError: when they cannot be written.
        """
        write_atomically(self.format_file, f"{FORMAT}\n")
        write_atomically(self.job_file, text)

    def create(self) -> list[Path]:
        """Makes the folders that every job needs.

        Returns:
            Those that were not there before, the outermost first.

        Raises:
            WrongInput: when a newer tfleet has written the folder, it cannot be written, or its disk is full; nothing
                that was made stays.
        """
        self.check_format()
        inside = (self.checkpoints, self.summaries, self.export, self.logs, self.private)
        missing = [p for p in (*reversed(self.path.parents), self.path, *inside) if not p.exists()]
        try:
            for folder in missing:
                folder.mkdir(mode=0o700 if folder == self.private else 0o777, exist_ok=True)
            with tempfile.NamedTemporaryFile(dir=self.private) as probe:
                probe.write(bytes(ROOM))
                probe.flush()
                os.fsync(probe.fileno())
        except OSError as error:
            for folder in reversed(missing):
                with contextlib.suppress(OSError):
                    folder.rmdir()
            raise self.not_writable(error) from None
        return missing

    def not_writable(self, error: OSError) -> WrongInput:
        """Returns the error that tells a user why the run directory cannot be written."""
        what = "make room on its disk or " if error.errno in (errno.ENOSPC, errno.EDQUOT) else ""
        return WrongInput(
            f"the run directory {self.path} cannot be written: {error.strerror}; {what}choose another with --run-dir"
        )

    def make_token(self) -> None:
        """Writes a new secret for this job, readable by its owner only."""
        self.token_file.unlink(missing_ok=True)
        handle = os.open(self.token_file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(handle, "w") as file:
            file.write(secrets.token_hex(32))

    def lock(self) -> int:
        """Takes the lock of the run directory without waiting.

        Returns:
            A file descriptor; the lock lasts until it and every inherited copy of it are closed.

        Raises:
            WrongInput: when a living job holds it.
        """
        handle = os.open(self.lock_file, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # A refused job removes its lock: one on a file without a name keeps nobody out.
            os.stat(self.lock_file)
        except OSError:
            os.close(handle)
            raise WrongInput(
                f"the run directory {self.path} is in use by a living job; "
                "stop that with 'tfleet stop' or choose another with --run-dir"
            ) from None
        return handle

    def alive(self) -> bool:
        """Tells whether a launcher or replica of this job lives on this machine."""
        if not self.lock_file.exists():
            return False
        with contextlib.suppress(WrongInput):
            os.close(self.lock())
            return False
        return True

    def status(self) -> dict[str, Any]:
        """Returns what ps 0 last told, or an empty dict before it told anything."""
        with contextlib.suppress(OSError, ValueError):
            values: dict[str, Any] = json.loads(self.status_file.read_text(encoding="utf-8"))
            return values
        return {}


def outcome_of(status: Mapping[str, Any], generation: int) -> int | None:
    """Returns the exit code of a job that is over, by its status, or None.

    Args:
        status: the last one.
        generation: which the asking replica has taken part in; the status of an earlier one says nothing about it.
    """
    if status.get("phase") not in OVER or int(status.get("generation", 0)) < generation:
        return None
    code = status.get("exit_code")
    return 1 if code is None else int(code)


def utc(seconds: float) -> str:
    """Writes a Unix time as people read it in notes, whose readers may be in another time zone than the job."""
    return time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(seconds))


def write_atomically(path: Path, text: str) -> None:
    """Replaces `path` by `text` in one step, so that a reader sees the old text or the new.

    Raises:
        OSError: when it cannot be written; the old text is still there, and nothing else.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        temporary.write_text(text, encoding="utf-8")
        os.replace(temporary, path)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise
