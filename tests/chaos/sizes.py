"""How much each test of this folder does: little with `make test`, much with CHAOS_LONG=1, and what a variable says.

`CHAOS_SEED` moves every random choice; `CHAOS_RESULTS=1` keeps the figures of a run in benchmarks/results.
"""

from __future__ import annotations

import json
import os
import sys
from typing import Any

from measure import LOAD_AT_START, RESULTS, today, write_result

RESULT = "chaos_protocol"

LONG = os.environ.get("CHAOS_LONG", "0") != "0"
SEED = int(os.environ.get("CHAOS_SEED", "0"))


def size(name: str, short: int, long: int) -> int:
    """Returns what CHAOS_<name> says, else the long or the short size."""
    return int(os.environ.get(f"CHAOS_{name}") or (long if LONG else short))


KILLS = size("KILLS", 9, 300)
"""SIGKILLs of ps during commits."""
FRAMES = size("FRAMES", 6_000, 1_000_000)
"""Damaged frames against ps in this process; a hundredth of it against real ones."""
CONNECTIONS = size("CONNECTIONS", 1_000, 1_000)
"""Connections that say nothing."""
FLIPS = size("FLIPS", 0, 1)
"""1: every byte of a commit is changed in nine ways and every length is tried, else a selection."""
MACHINES = size("MACHINES", 15, 200)
"""Fleets that the protocol's state machine lets live."""
DEPTH = size("DEPTH", 40, 400)
"""Rules in the life of each; a rule lets up to 60 things happen."""
DEEP_MACHINES = size("DEEP_MACHINES", 2, 4)
"""Fleets with a long life; of the first nothing is asked but the simplest."""
DEEP = size("DEEP", 150, 10_000)
"""Rules in the life of each of those."""
SYNC_SIMULATED = size("SYNC_SIMULATED", 40, 4_000)
"""Schedules against sync in simulation."""
SYNC_REAL = size("SYNC_REAL", 1, 20)
"""Schedules against sync with real processes."""


def keep(name: str, figures: dict[str, Any]) -> None:
    """Puts figures into benchmarks/results/chaos_protocol.json, when those of this run are to be kept."""
    print(f"chaos {name}: {figures}", file=sys.stderr)
    if os.environ.get("CHAOS_RESULTS", "0") == "0":
        return
    path = RESULTS / f"{RESULT}.json"
    before = json.loads(path.read_text(encoding="utf-8"))["figures"] if path.exists() else {}
    row = {"date": today(), "load_at_start": LOAD_AT_START, "seed": SEED, **figures}
    command = ["-m", "pytest", "tests/chaos"]
    write_result(RESULT, command, {"kind": RESULT, "figures": {**before, name: row}})
