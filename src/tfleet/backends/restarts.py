"""How often, and when, replicas are started again in place: plain data, the time is an argument."""

from __future__ import annotations

FIRST = 1.0
"""Seconds before the second restart of a replica; each later one waits twice as long. The first comes at once."""
LONGEST = 30.0
"""Seconds that a restart waits at most."""
STEADY = 60.0
"""Seconds of life after which a replica is well: its next restart comes at once again."""


class Restarts:
    """The restarts of one job's replicas.

    Args:
        budget: restarts that each replica has.
    """

    def __init__(self, budget: int) -> None:
        self._budget = budget
        self._counts: dict[str, int] = {}
        self._row: dict[str, int] = {}
        self._since: dict[str, float] = {}
        self._due: dict[str, float] = {}

    def count(self, name: str) -> int:
        """Returns how often a replica was started again, one that is planned included."""
        return self._counts.get(name, 0)

    def died(self, name: str, now: float) -> bool:
        """Plans the next start of a replica that has died; False: its budget is spent."""
        before = self.count(name)
        if before >= self._budget:
            return False
        self._counts[name] = before + 1
        # The budget is for the whole job; pauses are for who dies again and again.
        row = 0 if now - self._since.get(name, now) >= STEADY else self._row.get(name, 0)
        self._row[name] = row + 1
        self._due[name] = now + (min(LONGEST, FIRST * 2 ** (row - 1)) if row else 0.0)
        return True

    def planned(self, name: str) -> bool:
        """Whether a replica is down now and will be started again."""
        return name in self._due

    @property
    def pending(self) -> bool:
        """Whether any is."""
        return bool(self._due)

    def cancel(self, name: str) -> None:
        """Forgets the planned start of a replica that is not wanted any more."""
        self._due.pop(name, None)

    def due(self, now: float) -> list[str]:
        """Returns the replicas to start now, each once."""
        names = [name for name, when in self._due.items() if when <= now]
        for name in names:
            del self._due[name]
            self._since[name] = now
        return names
