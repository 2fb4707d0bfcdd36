"""How long parts of a repeated work take, in sum: so cheap that it is always measured."""

from __future__ import annotations

import time
from collections.abc import Callable


class Times:
    """Seconds that each part of a round took, in sum over all rounds.

    Attributes:
        rounds: that were counted.
        seconds: by part.
    """

    def __init__(self, *parts: str, clock: Callable[[], float] = time.perf_counter) -> None:
        self.rounds = 0
        self.seconds = dict.fromkeys(parts, 0.0)
        self._clock = clock
        self._since = 0.0

    def begin(self, since: float | None = None) -> None:
        """A round begins, now or at an earlier time."""
        self.rounds += 1
        self._since = self._clock() if since is None else since

    def end(self, part: str) -> None:
        """A part of the round ends, and the next begins."""
        now = self._clock()
        self.seconds[part] += now - self._since
        self._since = now

    def to_json(self) -> dict[str, float]:
        """Returns `rounds` and the seconds of each part."""
        return {"rounds": self.rounds, **self.seconds}
