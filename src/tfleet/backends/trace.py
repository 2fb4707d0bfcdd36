"""What a start changes in a run directory, taken back when the job is refused: who corrects the input tries again."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterable
from pathlib import Path

from tfleet.checkpoint import names
from tfleet.spec.rundir import RunDir


class Trace:
    """Remembers a run directory as it was before a job was started in it.

    Args:
        run: the run directory, with the folders that `RunDir.create` makes; the caller holds its lock.
        made: folders that were made for it, the outermost first.
        logs: of the replicas that are about to be started.
    """

    def __init__(self, run: RunDir, made: Iterable[Path], logs: Iterable[Path]) -> None:
        self._run = run
        self._made = tuple(made)
        self._logs = tuple(log for log in logs if not log.exists())
        self._commits = self._manifests()
        self._texts = {file: file.read_bytes() for file in (run.job_file, run.status_file) if file.exists()}

    def remove(self) -> None:
        """Makes the run directory what it was, unless the job has made a commit; removes nothing that it did not make.

        Never raises: what cannot be removed stays.
        """
        if self._manifests() != self._commits:
            return
        for file in (self._run.job_file, self._run.status_file):
            with contextlib.suppress(OSError):
                if file in self._texts:
                    file.write_bytes(self._texts[file])
                else:
                    file.unlink(missing_ok=True)
        if self._run.job_file in self._texts:
            return
        claims = (p for p in self._run.checkpoints.glob("*") if names.generation_of(p.name) is not None)
        for file in (*claims, *self._logs, self._run.deploy_log, self._run.metrics):
            with contextlib.suppress(OSError):
                file.unlink(missing_ok=True)
        if self._run.private in self._made:
            shutil.rmtree(self._run.private, ignore_errors=True)
        for folder in reversed(self._made):
            with contextlib.suppress(OSError):
                folder.rmdir()

    def _manifests(self) -> set[str]:
        return {path.name for path in self._run.checkpoints.glob("*") if names.is_manifest(path.name)}
