"""What a replica prints, on a disk that may be full: lines may be lost, the replica may not."""

from __future__ import annotations

import io
import os
import sys
from typing import Any


class _Lossy(io.RawIOBase):
    """A descriptor whose writing never fails: what cannot be written is dropped."""

    def __init__(self, handle: int) -> None:
        self._handle = handle

    def writable(self) -> bool:
        """Returns that it can be written."""
        return True

    def fileno(self) -> int:
        """Returns the descriptor."""
        return self._handle

    def write(self, data: Any) -> int:
        """Writes what can be written; returns the length of `data`."""
        left = memoryview(data).cast("B")
        size = left.nbytes
        try:
            while left:
                left = left[os.write(self._handle, left) :]
        except OSError:
            pass  # there is nowhere else to tell it
        return size


def lossy(handle: int) -> io.TextIOWrapper:
    """Returns a text stream to a descriptor, which it does not close; a line is out once it is printed."""
    raw = io.BufferedWriter(_Lossy(handle))
    return io.TextIOWrapper(raw, encoding="utf-8", errors="backslashreplace", line_buffering=True)


def never_fail_to_print() -> None:
    """Has `print` and tracebacks of this process drop what their file does not take."""
    sys.stdout, sys.stderr = lossy(1), lossy(2)
