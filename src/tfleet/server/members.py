"""Who takes part: workers and the evaluator, when they were last heard of, and who is silent."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field
from typing import Any

from tfleet.server.progress import Rate
from tfleet.wire.server import Connection


@dataclass(eq=False)
class Member:
    """One joined replica.

    Attributes:
        number: unique in the job; a replica that joins again gets a new one.
        role: worker or evaluator.
        index: of the replica.
        connection: the one it joined by.
        seen: when it was last heard of, in the loop's time.
        state: joined, working, done or lost.
        steps: pushes taken from it; under average the batches of its runs.
        under_way: steps that it has told of besides, of a run that is not pushed yet.
        restarts: how often its backend had started it again when it joined.
        draining: whether it leaves after the batch at hand: it gets no more.
        guest: what a worker that was started by hand calls itself (see `tfleet.server.guests`); empty: a backend's.
        host: name of the machine of a guest; else empty.
    """

    number: int
    role: str
    index: int
    connection: Connection
    seen: float
    state: str = "joined"
    steps: int = 0
    restarts: int = 0
    draining: bool = False
    under_way: int = 0
    guest: str = ""
    host: str = ""
    rate: Rate = field(default_factory=Rate)
    steps_per_second: float = 0.0

    def describe(self, epoch: float = 0.0) -> dict[str, Any]:
        """Returns the member's row of the status.

        Args:
            epoch: Unix time at which the loop's time is 0.
        """
        return {
            "role": self.role,
            "index": self.index,
            "state": self.state,
            "steps": self.steps + self.under_way,
            "steps_per_second": round(self.steps_per_second, 1),
            "restarts": self.restarts,
            "host": self.host,
            "heard": round(epoch + self.seen, 3),
        }


class Members:
    """All replicas that have joined, living and gone."""

    def __init__(self) -> None:
        self._numbers = itertools.count(1)
        self.living: dict[int, Member] = {}
        self._gone: dict[tuple[str, int], Member] = {}

    def join(self, role: str, index: int, connection: Connection, now: float, restarts: int = 0) -> Member:
        """Adds a replica; one that was here before is a new member."""
        member = Member(next(self._numbers), role, index, connection, now, restarts=restarts)
        self.living[member.number] = member
        self._gone.pop((role, index), None)
        connection.owner = member
        return member

    def remove(self, member: Member, state: str) -> None:
        """Takes a member out; it stays in the status with this state."""
        self.living.pop(member.number, None)
        member.state = state
        self._gone[member.role, member.index] = member

    @property
    def workers(self) -> list[Member]:
        """The living workers."""
        return [m for m in self.living.values() if m.role == "worker"]

    def find(self, role: str, index: int) -> Member | None:
        """Returns the living replica of this role and index."""
        return next((m for m in self.living.values() if (m.role, m.index) == (role, index)), None)

    def silent(self, now: float, limit: float) -> list[Member]:
        """Returns the living members that were not heard of for longer than `limit` seconds."""
        return [m for m in self.living.values() if now - m.seen > limit]

    def tick(self, now: float) -> None:
        """Updates each member's rate."""
        for member in self.living.values():
            member.steps_per_second = member.rate.update(now, member.steps + member.under_way)

    def describe(self, epoch: float = 0.0) -> list[dict[str, Any]]:
        """Returns the rows of the status, by role and index; `epoch` as for `Member.describe`."""
        rows = [m.describe(epoch) for m in (*self.living.values(), *self._gone.values())]
        return sorted(rows, key=lambda row: (row["role"] != "worker", row["index"]))
