"""Follows the logs of several replicas at once."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from pathlib import Path

READ_LIMIT = 1 << 20
"""Bytes read from one log at a time, so that a chatty replica does not hold up the others."""


class LogTail:
    """Reads what was added to log files since the last read, as whole lines with the replica's name before them.

    Args:
        logs: name of each replica (`worker-0`) to its log; a log may appear later.
        from_end: skip what is in the logs now.
    """

    def __init__(self, logs: Mapping[str, Path], from_end: bool = False) -> None:
        self._logs = dict(logs)
        self._offsets = {name: _size(path) if from_end else 0 for name, path in self._logs.items()}
        self._partial = dict.fromkeys(self._logs, b"")

    def read(self, last: bool = False) -> list[str]:
        """Returns the new lines; does not block.

        Args:
            last: nobody writes any more: return everything, and the unfinished lines too.
        """
        lines: list[str] = []
        for name, path in self._logs.items():
            data = self._new(name, path)
            while data:
                *whole, self._partial[name] = (self._partial[name] + data).split(b"\n")
                lines += [_shown(name, line) for line in whole]
                data = self._new(name, path) if last else b""
            if last and self._partial[name]:
                lines.append(_shown(name, self._partial[name]))
                self._partial[name] = b""
        return lines

    def _new(self, name: str, path: Path) -> bytes:
        with contextlib.suppress(FileNotFoundError), path.open("rb") as file:
            file.seek(self._offsets[name])
            data = file.read(READ_LIMIT)
            self._offsets[name] += len(data)
            return data
        return b""


def last_line(path: Path) -> str:
    """Returns the last line of a log that is not blank, or the empty string."""
    with contextlib.suppress(OSError), path.open("rb") as file:
        file.seek(max(0, _size(path) - 4096))
        lines = file.read().decode("utf-8", "replace").split("\n")
        return next((line.strip() for line in reversed(lines) if line.strip()), "")
    return ""


def _shown(name: str, line: bytes) -> str:
    # A progress bar returns to the start of the line, where it would overwrite the name: show its last state.
    text = line.decode("utf-8", "replace").rstrip("\r").rpartition("\r")[2]
    return f"{name} | {text}"


def _size(path: Path) -> int:
    with contextlib.suppress(OSError):
        return path.stat().st_size
    return 0
