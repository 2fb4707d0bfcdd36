"""Which pushes have arrived at every ps: under a strategy that aggregates only those count.

So a step that ps 0 completes can be applied everywhere, whoever dies between two of its pushes; and a worker need not
wait for the others before it pushes to ps 0.
"""

from __future__ import annotations

from typing import NamedTuple

from tfleet.strategies.rule import Vector
from tfleet.wire.frames import Have, Push
from tfleet.wire.server import Connection


class Held(NamedTuple):
    """A push that has arrived at ps 0, and waits until the others have it.

    Attributes:
        connection: it came by.
        push: its meta.
        metrics: of the batch.
    """

    connection: Connection
    push: Push
    metrics: Vector


class Arrivals:
    """The newest push of each worker, which has one under way at a time.

    Args:
        others: number of ps besides ps 0.
    """

    def __init__(self, others: int) -> None:
        self._others = others
        self._at: dict[int, dict[int, int]] = {}
        self._held: dict[int, Held] = {}

    def complete(self, member: int, sequence: int) -> bool:
        """Whether every other ps has this push."""
        at = self._at.get(member, {})
        return sum(newest >= sequence for newest in at.values()) == self._others

    def hold(self, connection: Connection, push: Push, metrics: Vector) -> None:
        """Keeps a push until the others have it."""
        self._held[push.member] = Held(connection, push, metrics)

    def note(self, index: int, have: Have) -> Held | None:
        """Ps `index` has a push; returns what was held for it, if this was the last that it waited for."""
        self._at.setdefault(have.member, {})[index] = have.sequence
        held = self._held.get(have.member)
        if held is None or not self.complete(have.member, held.push.sequence):
            return None
        return self._held.pop(have.member)

    def forget(self, member: int) -> None:
        """A worker is out of the job."""
        self._at.pop(member, None)
        self._held.pop(member, None)
