"""A ps, as a program, that kills itself or others in the middle of a commit, where a file tells it to.

python faulty_ps.py FAULTS --index I --run-dir RUN [--resume]

FAULTS is a folder with `pid-<index>` of each ps, and perhaps `fault.json`: {"phase", "index", "victims", "number"}.
The ps of that index claims the fault when a commit of that number, or a later one, comes to the phase: it writes
`snapshot.json` (checksums of all files of the commits that exist then) and sends SIGKILL to the victims, itself last.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import signal
import sys
import time
from pathlib import Path

from tfleet.checkpoint import names, store
from tfleet.checkpoint.disk import Disk

PHASES = (
    "before",
    "within a part",
    "between partitions",
    "before the state",
    "within the manifest",
    "before rename",
    "after rename",
    "after",
    "while old ones are removed",
)
"""Where a commit can be killed; each happens in the thread that writes, at a call of the disk."""
OF_ALL = PHASES[:3]
"""Phases that every ps comes to; to the others ps 0 alone."""
HELD = 5.0
"""Seconds that a ps waits for another one to be killed."""


class FaultyDisk(Disk):
    """Tells the phase of a commit from the calls."""

    def __init__(self) -> None:
        self._files: dict[int, Path] = {}
        self._last = ""

    def create(self, path: Path) -> int:
        if ".part-" in path.name:
            hold("between partitions", path)
            fire("before", path)
        if ".state" in path.name:
            fire("before the state", path)
        handle = super().create(path)
        self._files[handle], self._last = path, path.name
        return handle

    def write(self, handle: int, data: memoryview) -> int:
        path = self._files.get(handle)
        if path is not None:
            half = super().write(handle, data[: max(1, len(data) // 2)])
            fire("within a part" if ".part-" in path.name else "within the manifest", path)
            return half
        return super().write(handle, data)

    def close(self, handle: int) -> None:
        self._files.pop(handle, None)
        super().close(handle)

    def rename(self, old: Path, new: Path) -> None:
        fire("before rename", new)
        super().rename(old, new)
        self._last = new.name
        fire("after rename", new)

    def sync_directory(self, path: Path) -> None:
        super().sync_directory(path)
        last, self._last = self._last, ""
        if ".part-" in last:
            fire("between partitions", path / last)
        if names.is_manifest(last):
            fire("after", path / last)

    def remove(self, path: Path) -> None:
        fire("while old ones are removed", path, numbered=False)
        super().remove(path)


def fault() -> dict | None:
    """Returns what is to happen, or None."""
    with contextlib.suppress(OSError, ValueError):
        return json.loads((FAULTS / "fault.json").read_text())
    return None


def due(wanted: dict | None, phase: str, path: Path, numbered: bool) -> bool:
    key = names.key_of(path.name.removesuffix(".tmp"))
    if wanted is None or wanted["phase"] != phase or key is None:
        return False
    if phase == "within the manifest" and ".manifest" not in path.name:
        return False
    return not numbered or key.number >= wanted["number"]


def hold(phase: str, path: Path) -> None:
    """Waits, with a part not begun, until the ps that is to be killed has written its own."""
    wanted, end = fault(), time.monotonic() + HELD
    if due(wanted, phase, path, True) and wanted["index"] != INDEX:
        while fault() == wanted and time.monotonic() < end:
            time.sleep(0.002)


def fire(phase: str, path: Path, *, numbered: bool = True) -> None:
    wanted = fault()
    if not (due(wanted, phase, path, numbered) and wanted["index"] == INDEX):
        return
    try:
        os.rename(FAULTS / "fault.json", FAULTS / "fired.json")
    except OSError:
        return
    sums = {}
    for file in path.parent.glob("commit-*"):
        with contextlib.suppress(OSError):
            sums[file.name] = hashlib.sha256(file.read_bytes()).hexdigest()
    (FAULTS / "snapshot.tmp").write_text(json.dumps(sums))
    os.rename(FAULTS / "snapshot.tmp", FAULTS / "snapshot.json")
    for victim in sorted(wanted["victims"], key=lambda index: index == INDEX):
        with contextlib.suppress(ProcessLookupError):
            os.kill(int((FAULTS / f"pid-{victim}").read_text()), signal.SIGKILL)


if __name__ == "__main__":
    FAULTS = Path(sys.argv.pop(1))
    INDEX = int(sys.argv[sys.argv.index("--index") + 1])
    store.Disk = FaultyDisk
    from tfleet.server.__main__ import main

    sys.exit(main())
