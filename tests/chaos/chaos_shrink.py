"""Makes a failing schedule small: as long as a simpler one fails too, that one is taken.

After Zeller & Hildebrandt, "Simplifying and Isolating Failure-Inducing Input" (2002), but greedy: schedules are short.
Processes race, so a simpler schedule that holds once may fail the next time: each has several tries.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from chaos_schedule import Schedule

KEPT = Path(__file__).with_name("kept")
TRIES = 2


def shrink(schedule: Schedule, fails: Callable[[Schedule], bool], tries: int = TRIES) -> Schedule:
    """Returns a failing schedule of which nothing can be left out; blocks for all the runs that this takes.

    Args:
        schedule: that has failed.
        fails: plays one and tells whether it fails.
        tries: how often a simpler schedule may hold until it is given up.
    """
    smaller = True
    while smaller:
        smaller = False
        for simpler in schedule.simpler():
            if any(fails(simpler) for _ in range(tries)):
                schedule, smaller = simpler, True
                break
    return schedule


def keep(schedule: Schedule, name: str, folder: Path = KEPT) -> Path:
    """Writes a schedule where every later run of these tests plays it again."""
    path = folder / f"{name}.json"
    path.write_text(schedule.dumps(), encoding="utf-8")
    return path


def kept(folder: Path = KEPT) -> dict[str, Path]:
    """Returns the files of the kept schedules by name."""
    return {path.stem: path for path in sorted(folder.glob("*.json"))}
