"""What the kernel tells about processes: CPU seconds, context switches, memory and its peak; and idle cores."""

from __future__ import annotations

import contextlib
import json
import os
import re
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

TICK = 1 / os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Usage:
    """What a process has used since its start, or between two moments.

    Attributes:
        user: CPU seconds in its own code.
        system: CPU seconds in the kernel.
        waits: context switches because it waited.
        forced: context switches because another was to run.
    """

    user: float
    system: float
    waits: int
    forced: int

    def since(self, earlier: Usage) -> Usage:
        """Returns what was used since then."""
        return Usage(
            self.user - earlier.user,
            self.system - earlier.system,
            self.waits - earlier.waits,
            self.forced - earlier.forced,
        )

    def __add__(self, other: Usage) -> Usage:
        return Usage(
            self.user + other.user, self.system + other.system, self.waits + other.waits, self.forced + other.forced
        )


def usage(pid: int) -> Usage:
    """Returns what a living process has used; context switches of its living threads."""
    user, system = parse_stat(Path(f"/proc/{pid}/stat").read_text(encoding="utf-8"))
    waits = forced = 0
    for thread in Path(f"/proc/{pid}/task").iterdir():
        one = parse_switches((thread / "status").read_text(encoding="utf-8"))
        waits, forced = waits + one[0], forced + one[1]
    return Usage(user, system, waits, forced)


def parse_stat(text: str) -> tuple[float, float]:
    """Returns user and system CPU seconds out of /proc/PID/stat; the name of the program may hold anything."""
    fields = text.rpartition(")")[2].split()
    return int(fields[11]) * TICK, int(fields[12]) * TICK


def parse_switches(text: str) -> tuple[int, int]:
    """Returns voluntary and other context switches out of /proc/PID/task/TID/status."""
    found = {m[1]: int(m[2]) for m in re.finditer(r"^(\w+)_ctxt_switches:\s+(\d+)", text, re.MULTILINE)}
    return found["voluntary"], found["nonvoluntary"]


def parse_cpu(text: str) -> tuple[float, float]:
    """Returns busy and idle CPU seconds of the whole machine out of /proc/stat."""
    values = [int(v) * TICK for v in text.splitlines()[0].split()[1:9]]
    idle = values[3] + values[4]
    return sum(values) - idle, idle


def machine_cpu() -> tuple[float, float]:
    """Returns busy and idle CPU seconds of the whole machine since it started."""
    return parse_cpu(Path("/proc/stat").read_text(encoding="utf-8"))


def parse_private(text: str) -> float:
    """Returns private memory in MB (10^6 bytes) out of /proc/PID/smaps_rollup."""
    return sum(int(m[1]) for m in re.finditer(r"^Private_\w+:\s+(\d+) kB", text, re.MULTILINE)) * 1024 / 1e6


def private_mb(pid: int) -> float:
    """Returns the private memory of a living process in MB."""
    return parse_private(Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="utf-8"))


def parse_peak(text: str) -> float:
    """Returns peak resident memory in MB (10^6 bytes) out of /proc/PID/status; 0 for a process that has ended."""
    found = re.search(r"^VmHWM:\s+(\d+) kB", text, re.MULTILINE)
    return int(found[1]) * 1024 / 1e6 if found else 0.0


def high_water_mark(pid: int) -> float:
    """Returns the peak resident memory of a process in MB; 0 when it has ended."""
    try:
        return parse_peak(Path(f"/proc/{pid}/status").read_text(encoding="utf-8"))
    except OSError:
        return 0.0


def replicas_below(launcher: int) -> dict[str, int]:
    """Returns the process ids of a job's replicas, such as `ps-0`, among the children of its launcher."""
    found = {}
    waiting = [launcher]
    while waiting:
        for child in children(waiting.pop()):
            waiting.append(child)
            with contextlib.suppress(OSError):  # it has just ended
                variables = Path(f"/proc/{child}/environ").read_bytes().split(b"\0")
                name = next((v[9:].decode() for v in variables if v.startswith(b"POD_NAME=")), "")
                if name:
                    found[name] = child
    return found


def children(pid: int) -> list[int]:
    """Returns the children of a process, by whichever of its threads they were started; none when it has ended."""
    found = []
    with contextlib.suppress(OSError):
        for thread in Path(f"/proc/{pid}/task").iterdir():
            found += [int(child) for child in (thread / "children").read_text(encoding="utf-8").split()]
    return found


def moment(run: Path) -> dict[str, Any]:
    """Returns the next status that ps 0 writes, or the last; empty before the first. Blocks for at most a second."""
    file = run / "status.json"
    before = file.stat().st_mtime_ns if file.exists() else 0
    end = time.monotonic() + 1.0
    while time.monotonic() < end and (not file.exists() or file.stat().st_mtime_ns == before):
        time.sleep(0.002)
    return dict(json.loads(file.read_text(encoding="utf-8"))) if file.exists() else {}
