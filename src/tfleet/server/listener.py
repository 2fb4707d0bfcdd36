"""What ps 0's coordinator adds to a ps."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from tfleet.strategies.rule import Vector
from tfleet.wire.frames import Have, Push
from tfleet.wire.server import Connection

Reply = Callable[[dict[str, Any]], None]
"""Answers a call, now or later; a key `error` makes it an error."""


class Listener(Protocol):
    """What the replica of ps 0 hands on, and asks."""

    def knows(self, connection: Connection, member: int) -> bool:
        """Whether the connection is that of a living member of this number."""

    def pushed(self, connection: Connection, push: Push, metrics: Vector) -> None:
        """A push was taken by partition 0; answers the worker."""

    def pulled(self, connection: Connection, pull: Push) -> None:
        """A worker asks for parameters and leases; answers it."""

    def call(self, connection: Connection, values: dict[str, Any], payload: memoryview, reply: Reply) -> None:
        """A call that a ps does not know."""

    def payload_limit(self, values: dict[str, Any]) -> int:
        """Bytes of payload that a call may bring."""

    def gone(self, connection: Connection) -> None:
        """A connection is gone."""

    def answered(self, connection: Connection, values: dict[str, Any], error: bool) -> None:
        """A ps answered a call of the coordinator."""

    def arrived(self, connection: Connection, have: Have) -> None:
        """A push has arrived at another ps."""
