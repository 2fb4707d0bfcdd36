"""How much memory this process holds."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

_STATM = Path("/proc/self/statm")


def resident_bytes(statm: Path = _STATM) -> int:
    """Returns the resident memory of this process in bytes, shared pages too; 0 where the system does not tell."""
    with contextlib.suppress(OSError, ValueError, IndexError):
        return int(statm.read_text(encoding="ascii").split()[1]) * os.sysconf("SC_PAGE_SIZE")
    return 0
