"""Child processes of one launcher: start them, watch them, end them, leave none behind.

Each child leads a process group of its own: a Ctrl-C of the terminal reaches the launcher alone, and whatever a child
starts is ended with it. They share one session, and so one share of the processors, within which the system switches
between them less often than between sessions. Each child inherits the read end of a lifeline
(`tfleet.spec.lifeline`). No threads: `poll` drives everything.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import select
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from tfleet.backends.oom import OomKills
from tfleet.spec.environment import LIFELINE_FD, VARIABLES
from tfleet.spec.errors import WrongInput

GRACE = 5.0
"""Seconds between SIGTERM and SIGKILL."""


class Child:
    """One process that the launcher started, the leader of its own process group.

    Attributes:
        role: its role.
        index: its number within the role.
        log: where its output goes.
        code: its exit code once `poll` has seen its end, -n after signal n; None while it lives.
        killed: why it got SIGKILL, as far as that is known; empty where it did not, or nobody can tell.
    """

    def __init__(
        self, role: str, index: int, process: subprocess.Popen[bytes], log: Path, oom: OomKills | None = None
    ) -> None:
        """Takes charge of a process.

        Args:
            role: its role.
            index: its number within the role.
            process: the process.
            log: where its output goes.
            oom: is asked when somebody else ends it with SIGKILL.
        """
        self.role = role
        self.index = index
        self.log = log
        self.code: int | None = None
        self._process = process
        self._oom = oom
        self.killed = ""

    @property
    def pid(self) -> int:
        """Its process number, also that of its process group."""
        return self._process.pid

    def __str__(self) -> str:
        return f"{self.role} {self.index}"

    def poll(self) -> int | None:
        """Returns the exit code once the process has ended, else None; ends what it left in its group."""
        if self.code is None and self._has_exited():
            # Before it is reaped: until then its number, and so its group, cannot belong to anyone else.
            self._kill_group()
            self.code = self._process.wait()
            if self.code == -signal.SIGKILL and self._oom and not self.killed:
                self.killed = self._oom.evidence()
        return self.code

    def terminate(self) -> None:
        """Sends SIGTERM to the process, which ends its own children."""
        if self.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGTERM)

    def kill(self, why: str = "it did not end when it was asked to") -> None:
        """Sends SIGKILL to the process and everything in its group.

        Args:
            why: for `outcome`.
        """
        if self.poll() is None:
            self.killed = why
            self._kill_group()

    def tell(self, sentence: str) -> None:
        """Adds a sentence of the launcher to the log."""
        with contextlib.suppress(OSError), self.log.open("a", encoding="utf-8") as file:
            file.write(f"tfleet: {sentence}\n")

    def outcome(self) -> str:
        """Says how it ended, as the end of a sentence about it: `ended with code 3`, `was killed (SIGKILL): ...`."""
        code = self.code or 0
        if code == -signal.SIGKILL:
            return f"was killed (SIGKILL){': ' + self.killed if self.killed else ''}"
        return f"ended with signal {-code}" if code < 0 else f"ended with code {code}"

    def _has_exited(self) -> bool:
        if not hasattr(os, "waitid"):
            return self._process.poll() is not None
        try:
            return os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None
        except ChildProcessError:
            return True

    def _kill_group(self) -> None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)


class Children:
    """All child processes of one job; also a context manager that ends them.

    Whatever happens to the launcher they end: on a normal or exceptional exit by `close` (registered with
    atexit), on its sudden death by the lifeline.

    Args:
        keep: descriptors that every child inherits, such as the lock of the run directory; `close` closes them here.
        clock: seconds, monotonic.
    """

    def __init__(self, keep: Sequence[int] = (), clock: Callable[[], float] = time.monotonic) -> None:
        self.all: list[Child] = []
        self._keep = tuple(keep)
        self._clock = clock
        self._oom = OomKills()
        self._kill_at: float | None = None
        self._owner = os.getpid()
        self._lifeline, writer = os.pipe()
        self._open = [self._lifeline, writer, *keep]
        atexit.register(self.close)

    def start(self, role: str, index: int, command: Sequence[str], env: Mapping[str, str], log: Path) -> Child:
        """Starts one process, its output appended to `log`; returns once the program runs.

        It takes the place of an ended one of the same role and index.

        Args:
            role: its role.
            index: its number within the role.
            command: program and arguments.
            env: added to what it inherits of this process's environment, from which `VARIABLES` are removed.
            log: file that takes its standard output and error.

        Raises:
            WrongInput: when the program or the log cannot be opened.
        """
        inherited = {name: value for name, value in os.environ.items() if name not in VARIABLES}
        try:
            with log.open("ab") as output:
                process = subprocess.Popen(
                    list(command),
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    env={**inherited, **env, LIFELINE_FD: str(self._lifeline)},
                    pass_fds=(self._lifeline, *self._keep),
                    process_group=0,
                )
        except OSError as error:
            raise WrongInput(
                f"{role} {index} cannot be started: {error.filename}: {error.strerror}; "
                "check the command, the run directory and the limits of this machine with 'tfleet doctor'"
            ) from None
        child = Child(role, index, process, log, self._oom)
        self.all = [c for c in self.all if c.code is None or (c.role, c.index) != (role, index)]
        self.all.append(child)
        return child

    def of(self, role: str) -> list[Child]:
        """Returns the children of one role."""
        return [child for child in self.all if child.role == role]

    def poll(self) -> bool:
        """Sees who has ended, and sends the SIGKILL that is due; returns whether all have ended."""
        late = self._kill_at is not None and self._clock() >= self._kill_at
        for child in self.all:
            if child.poll() is None and late:
                child.kill()
        return all(child.code is not None for child in self.all)

    def wait(self, seconds: float) -> None:
        """Blocks for so many seconds, or until the first of those that live has ended."""
        living = [child.pid for child in self.all if child.code is None]
        waiting = select.poll()
        with contextlib.ExitStack() as opened:
            try:
                for pid in living:
                    handle = os.pidfd_open(pid)
                    opened.callback(os.close, handle)
                    waiting.register(handle, select.POLLIN)
            except (OSError, AttributeError):  # an old kernel, or another system
                time.sleep(seconds)
            else:
                waiting.poll(seconds * 1000)

    @property
    def ending(self) -> bool:
        """Whether `terminate` was called."""
        return self._kill_at is not None

    @property
    def owned(self) -> bool:
        """Whether this process started them, and is not a fork of the one that did."""
        return self._owner == os.getpid()

    def terminate(self, grace: float = GRACE) -> None:
        """Sends SIGTERM to all that live, once; a `poll` after the least `grace` asked for sends SIGKILL."""
        kill_at = self._clock() + grace
        if self._kill_at is None:
            for child in self.all:
                child.terminate()
        self._kill_at = kill_at if self._kill_at is None else min(kill_at, self._kill_at)

    def end(self, grace: float = GRACE) -> None:
        """Ends all that live and waits for it, `grace` seconds and a moment at most."""
        if not self.poll():
            self.terminate(grace)
            while not self.poll():
                time.sleep(0.01)

    def close(self, grace: float = GRACE) -> None:
        """Ends all that live, and gives up what was kept for them; see `end`."""
        if not self.owned:
            return
        self.end(grace)
        while self._open:
            os.close(self._open.pop())
        atexit.unregister(self.close)

    def __enter__(self) -> Children:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
