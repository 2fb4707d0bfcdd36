"""Which members were lost, and why, for the status and for whoever of them comes back."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping
from typing import Any

from tfleet.server.members import Member

KEPT = 20
"""Lost members that are remembered."""


class Dropped:
    """The last members that were lost, of earlier generations too.

    Attributes:
        rows: of each its role, index, number, generation, the time, and why.
    """

    def __init__(self, earlier: Iterable[Mapping[str, Any]]) -> None:
        self.rows: deque[Mapping[str, Any]] = deque(earlier, maxlen=KEPT)

    def add(self, member: Member, generation: int, now: float, why: str) -> None:
        """Remembers a member; `now` is wall-clock time in Unix seconds."""
        who = {"role": member.role, "index": member.index, "number": member.number, "generation": generation}
        self.rows.append({**who, "time": round(now, 3), "why": why})

    def why(self, generation: int, number: int) -> str:
        """Returns why a member of a generation was dropped, or the empty string."""
        of = generation, number
        return next((str(row["why"]) for row in self.rows if (row["generation"], row["number"]) == of), "")
