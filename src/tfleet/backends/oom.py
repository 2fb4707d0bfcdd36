"""Whether the kernel has ended processes for want of memory, as far as it tells those who are not root."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

KEY = "oom_kill"
"""The counter's name, in `memory.events` (cgroup v2), `memory.oom_control` (v1) and `/proc/vmstat`."""


class OomKills:
    """Counts what the kernel has killed for want of memory since it was last asked.

    Args:
        root: of the file system; tests give another.
    """

    def __init__(self, root: Path = Path("/")) -> None:
        self._group = next((path for path in _of_cgroup(root) if _read(path) is not None), None)
        self._machine = root / "proc/vmstat"
        self._last = self._counts()

    def evidence(self) -> str:
        """Says what is known of a process that somebody has just ended with SIGKILL, for a sentence."""
        before, self._last = self._last, self._counts()
        if self._last[0] > before[0]:
            return "out of memory: its cgroup's limit was reached"
        if self._last[1] > before[1]:
            return "probably out of memory: the kernel has just ended a process for that"
        return "perhaps out of memory"

    def _counts(self) -> tuple[int, int]:
        group = _read(self._group) if self._group else None
        return group or 0, _read(self._machine) or 0


def _of_cgroup(root: Path) -> Iterator[Path]:
    """Yields the files that may count for this process: of its cgroup, then as a container sees its own."""
    with contextlib.suppress(OSError, ValueError):
        for line in (root / "proc/self/cgroup").read_text(encoding="ascii").splitlines():
            _, controllers, path = line.split(":", 2)
            if controllers and "memory" not in controllers.split(","):
                continue
            place, name = ("memory", "memory.oom_control") if controllers else ("", "memory.events")
            top = root / "sys/fs/cgroup" / place
            yield Path(f"{top}{os.path.normpath('/' + path)}") / name
            yield top / name


def _read(path: Path) -> int | None:
    with contextlib.suppress(OSError, ValueError):
        for line in path.read_text(encoding="ascii").splitlines():
            key, _, value = line.partition(" ")
            if key == KEY:
                return int(value)
    return None
