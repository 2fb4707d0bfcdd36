"""A job of the local backend: one that this process started, and one found again by its run directory."""

from __future__ import annotations

import atexit
import contextlib
import json
import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from tfleet.backends.base import Ending, Job
from tfleet.backends.logtail import LogTail
from tfleet.backends.processes import GRACE, Children
from tfleet.backends.upkeep import Upkeep
from tfleet.server.control import request_end, request_remark, request_scale
from tfleet.spec.errors import ExitCode, TfleetError, WrongInput
from tfleet.spec.job import JobSpec
from tfleet.spec.rundir import RunDir, write_atomically
from tfleet.wire.secure import tls_of

RequestEnd = Callable[[RunDir, Ending, str], None]
"""Tells ps 0 how and why to end the job; raises TfleetError or OSError when it does not answer."""


OVER: dict[str, ExitCode | None] = {
    "done": ExitCode.DONE,
    "stopped": ExitCode.DONE,
    "interrupted": ExitCode.INTERRUPTED,
    "failed": None,
}
"""The phases in which a job is over, with the exit code of each; a failed job names its own."""

SETTLE = 1.0
"""Seconds that ps 0 has to tell the job's end itself, after a replica ended and before it is told what happened."""

FINISH = 10.0
"""Seconds that replicas have to end by themselves once the job is over."""

AT_ONCE = 0.5
"""Seconds between SIGTERM and SIGKILL for a job that was asked to end before and is to end now."""

POLL = 0.2
"""Seconds between two looks at the logs of a job that is followed."""

LOST = "every replica ended without a word, as when the machine or the launcher is killed; go on with --resume"


class LocalJob(Job):
    """A job found by its run directory, whoever started it.

    Args:
        run: its run directory.
        request: how ps 0 is told to end.
    """

    outlives = True

    def __init__(self, run: RunDir, request: RequestEnd = request_end) -> None:
        self.handle = str(run.path)
        self._run = run
        self._request = request

    def status(self) -> dict[str, Any]:
        """Returns what ps 0 last told; the phase is `failed` when nobody lives who could still finish the job."""
        alive = self._run.alive()
        status = self._run.status()
        if not alive and status.get("phase") not in OVER:
            status |= {"phase": "failed", "exit_code": int(ExitCode.FAILED), "reason": LOST}
        return status

    def poll(self) -> ExitCode | None:
        """Returns the result once no process of the job lives, else None; does not block."""
        return None if self._run.alive() else result_of(self.status())

    def end(self, how: Ending, reason: str) -> None:
        """Asks ps 0 to end the job; when it does not answer, sends SIGTERM to all processes, then SIGKILL.

        Returns at once, or after the `GRACE` seconds between the two signals.

        Raises:
            WrongInput: when the job is not running, or it is to stop and its certificates cannot be used any more.
        """
        self._require_running()
        if how == "stop":
            tls_of(JobSpec.load(self._run.job_file))  # told and renewed, rather than that SIGTERM interrupts the job
        try:
            self._request(self._run, how, reason)
        except (TfleetError, OSError):
            self._terminate()

    def scale(self, workers: int) -> None:
        """Asks ps 0 for so many workers; the launcher starts and drains them. See `Job.scale`."""
        self._require_running()
        request_scale(self._run, workers)

    def logs(self, role: str = "", index: int = -1, follow: bool = False) -> Iterator[str]:
        """Yields log lines, each after its replica's name; see `Job.logs`.

        Raises:
            WrongInput: when the job has no such replica.
        """
        paths = sorted(self._run.logs.glob("*-*.log"))
        wanted = {p.stem: p for p in paths if role in ("", p.stem.rpartition("-")[0])}
        wanted = {name: p for name, p in wanted.items() if index in (-1, int(name.rpartition("-")[2]))}
        if not wanted:
            asked = f"{role or 'replica'} {index}" if index >= 0 else role or "replica"
            known = ", ".join(p.stem for p in paths) or "none yet"
            raise WrongInput(f"the job in {self.handle} has no log of {asked}; there are: {known}")
        return self._lines(LogTail(wanted), follow)

    def _require_running(self) -> None:
        if self.poll() is not None:
            raise WrongInput(f"the job in {self.handle} is not running; its result is in {self._run.status_file}")

    def _lines(self, tail: LogTail, follow: bool) -> Iterator[str]:
        while follow and self.poll() is None:
            yield from tail.read()
            time.sleep(POLL)
        yield from tail.read(last=True)

    def _terminate(self) -> None:
        _signal(replicas_of(self._run), signal.SIGTERM)
        deadline = time.monotonic() + GRACE
        while left := replicas_of(self._run):
            if time.monotonic() >= deadline:
                _signal(left, signal.SIGKILL)
                return
            time.sleep(0.05)


class StartedJob(LocalJob):
    """A job whose processes this process started; also a context manager that ends them.

    Args:
        run: its run directory.
        children: its processes.
        upkeep: keeps them up.
        request: how ps 0 is told to end.
        clock: seconds, monotonic.
        refused: called when all processes have ended and the result is exit code 2.
    """

    outlives = False

    def __init__(
        self,
        run: RunDir,
        children: Children,
        upkeep: Upkeep,
        request: RequestEnd = request_end,
        clock: Callable[[], float] = time.monotonic,
        refused: Callable[[], None] = lambda: None,
    ) -> None:
        super().__init__(run, request)
        self.children = children
        self._upkeep = upkeep
        self._clock = clock
        self._refused = refused
        self._remark: Callable[[RunDir, str], None] = request_remark
        self._last: dict[str, Any] = {}
        self._trouble = ""
        self._since = self._tell_at = 0.0
        self._over_since: float | None = None
        self._result: ExitCode | None = None
        self._asked = False
        atexit.register(self.close)

    def status(self) -> dict[str, Any]:
        """Returns what ps 0 last told, and after `poll` gave a result the reason that this process found."""
        return self._last or self._run.status()

    def poll(self) -> ExitCode | None:
        """Watches the processes; returns the job's result once all have ended, else None.

        Does not block, but for the moment in which ps 0 is told that a replica it needs has died.
        """
        if self._result is not None:
            return self._result
        self.children.poll()
        self._watch()
        if self.children.poll() and not self._awaited:
            self._result = self._conclude()
            if self._result == ExitCode.WRONG_INPUT:
                self._refused()
            self.children.close()
        return self._result

    def wait(self, seconds: float) -> None:
        """Blocks for a time, or until a process has ended; see `Job.wait`."""
        self.children.wait(seconds)

    def end(self, how: Ending, reason: str) -> None:
        """Asks ps 0 to end the job; see `LocalJob.end`."""
        super().end(how, reason)
        self._asked = True

    def close(self) -> None:
        """Ends the job and every process that still lives, and waits for it.

        A job that nobody has asked to end yet gets the time for a last commit.
        """
        if not self.children.owned:
            return
        if self.poll() is None and not (self._asked or self.children.ending):
            with contextlib.suppress(TfleetError, OSError):
                self._request(self._run, "interrupt", "the launcher has ended")
                deadline = self._clock() + FINISH
                while self.poll() is None and self._clock() < deadline:
                    time.sleep(0.02)
        self.children.close(AT_ONCE if self._asked else GRACE)
        self.poll()
        atexit.unregister(self.close)

    def __enter__(self) -> StartedJob:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _watch(self) -> None:
        now = self._clock()
        status = self._run.status()
        if self._over_since is None and status.get("phase") in OVER:
            self._over_since = now
        if self._over_since is not None:
            if now - self._over_since >= FINISH:
                self.children.terminate(GRACE)
            return
        if not self.children.ending:
            self._upkeep.tend(status, now)
            self._tell_news(now)
        trouble = self._upkeep.trouble()
        if trouble != self._trouble:
            self._trouble, self._since = trouble, now
        elif trouble and now - self._since >= SETTLE:
            self._over_since = now
            try:
                self._request(self._run, "fail", trouble)
            except (TfleetError, OSError):
                self.children.terminate(GRACE)

    def _tell_news(self, now: float) -> None:
        """Has ps 0 tell in the status what only the launcher knows; later, where ps 0 is being started again."""
        if not self._upkeep.news or now < self._tell_at:
            return
        try:
            self._remark(self._run, self._upkeep.news[0])
        except (TfleetError, OSError):
            self._tell_at = now + SETTLE
        else:
            del self._upkeep.news[0]

    @property
    def _awaited(self) -> bool:
        """Whether a replica is down that will be started again."""
        return self._upkeep.pending and self._over_since is None and not self.children.ending

    def _conclude(self) -> ExitCode:
        status = self._run.status()
        if status.get("phase") not in OVER:
            # ps 0 has ended without telling, so that its file has no writer left: what is known is told here.
            reason = self._trouble or self._upkeep.trouble() or LOST
            status |= {"phase": "failed", "exit_code": int(ExitCode.FAILED), "reason": reason}
            # On a full disk the launcher can still tell its user.
            with contextlib.suppress(OSError):
                write_atomically(self._run.status_file, json.dumps(status) + "\n")
        self._last = status
        return result_of(status)

    def _terminate(self) -> None:
        self.children.terminate(GRACE)


def result_of(status: dict[str, Any]) -> ExitCode:
    """Returns the exit code of a job that is over, from its last status."""
    code = OVER.get(str(status.get("phase")))
    if code is not None:
        return code
    with contextlib.suppress(ValueError):
        return ExitCode(status.get("exit_code", ExitCode.FAILED)) or ExitCode.FAILED
    return ExitCode.FAILED


def replicas_of(run: RunDir) -> list[int]:
    """Returns the process numbers of this machine's tfleet replicas of one run directory, from their command lines."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            words = (folder / "cmdline").read_bytes().split(b"\0")
            ours = any(w in (b"tfleet.server", b"tfleet.worker") for w in words) and b"--run-dir" in words
            if ours and words[words.index(b"--run-dir") + 1] == os.fsencode(run.path):
                found.append(int(folder.name))
    return found


def _signal(pids: list[int], number: int) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(pid, number)
