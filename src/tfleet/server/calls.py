"""A call to the coordinator, as its parts handle it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from tfleet.server.members import Member
from tfleet.spec.errors import WrongInput
from tfleet.wire.server import Connection

Values = dict[str, Any]


class Call(NamedTuple):
    """One call.

    Attributes:
        connection: it came by.
        member: who calls, or None before joining and for observers.
        values: its arguments.
        payload: raw bytes that came along.
        reply: answers it, now or later.
    """

    connection: Connection
    member: Member | None
    values: Values
    payload: memoryview
    reply: Callable[[Values], None]

    @property
    def caller(self) -> Member:
        """The member that calls.

        Raises:
            WrongInput: when the caller has not joined.
        """
        if self.member is None:
            raise WrongInput("join the job before this call")
        return self.member


Calls = dict[str, Callable[[Call], None]]
"""The calls that one part of the coordinator handles, by name."""
