"""Which ps lives but hangs, and so holds up everybody: plain data, the time is an argument."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

LEAST = 10.0
"""Seconds that a ps may be silent, at least."""
START = 60.0
"""Seconds that it may take from its start until it is heard of, at least: on a machine that has too much to do, killing
who is slow to start makes nobody quicker."""
STOOD_STILL = 5.0
"""Seconds between two looks after which the launcher itself stood still, perhaps with the whole machine."""
HANGS = "it did not answer"
"""Why a ps is killed."""


class Hanging:
    """Finds ps that hang, by the job's status.

    ps 0 hangs when it does not write its status any more, another one when ps 0 waits for it.

    Args:
        peer_timeout: of the job, in seconds.
    """

    def __init__(self, peer_timeout: float) -> None:
        # ps 0 may wait for a ps as long as that, and a ps just started has neither joined nor told anything yet.
        self._patience = max(2 * peer_timeout, LEAST)
        self._heard: set[int] = set()
        self._signs: dict[int, tuple[Any, float]] = {}
        self._looked: dict[int, float] = {}

    def look(self, index: int, status: Mapping[str, Any], now: float) -> bool:
        """Returns whether ps `index`, whose process lives, has given no sign of life for too long.

        Args:
            index: of the ps.
            status: the job's last one.
            now: seconds, monotonic.
        """
        between, self._looked[index] = now - self._looked.get(index, now), now
        missing = {int(row["index"]) for row in status.get("ps", []) if row["state"] == "missing"}
        if index and index not in missing:
            self.forget(index)
            self._heard.add(index)
            return False
        sign = 0 if index else status.get("updated")
        last, since = self._signs.get(index, (sign, now))
        since = min(now, since + between) if between > STOOD_STILL else since
        if sign != last:
            self._heard.add(index)
        self._signs[index] = (sign, since if sign == last else now)
        patience = self._patience if index in self._heard else max(self._patience, START)
        return now - self._signs[index][1] > patience

    def forget(self, index: int) -> None:
        """Gives a ps that was just started, or is well, all the time again."""
        self._signs.pop(index, None)
        self._heard.discard(index)
