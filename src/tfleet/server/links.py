"""How the coordinator asks all partitions for something: its own directly, the others over their connections."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

from tfleet.server.replica import PsReplica
from tfleet.spec.errors import JobFailed, WrongInput
from tfleet.wire.frames import Kind, pack_json, pack_reach
from tfleet.wire.server import Connection

Values = dict[str, Any]
Done = Callable[[list[Values]], None]
Failed = Callable[[str], None]


class Links:
    """Calls to every ps, ps 0's own partition included.

    Args:
        own: the replica of ps 0.
        count: number of ps.

    Attributes:
        restarts: how often each ps that has joined was started again.
    """

    def __init__(self, own: PsReplica, count: int) -> None:
        self.count = count
        self.restarts = {0: own.restarts}
        self._own = own
        self._peers: dict[int, Connection] = {}
        self._pending: dict[int, tuple[Connection, Callable[[Values], None]]] = {}
        self._numbers = itertools.count(1)

    @property
    def missing(self) -> list[int]:
        """The ps that have not joined yet."""
        return [index for index in range(1, self.count) if index not in self._peers]

    @property
    def complete(self) -> bool:
        """Whether every ps has joined."""
        return len(self._peers) == self.count - 1

    def has(self, index: int) -> bool:
        """Whether this ps is connected now."""
        return index == 0 or (index in self._peers and not self._peers[index].closed)

    def add(self, index: int, connection: Connection, restarts: int) -> None:
        """Remembers the connection that a ps has made.

        Raises:
            WrongInput: when the job has no such ps.
            JobFailed: when the job has it already, or thinks so: it may be tried again.
        """
        if not 0 < index < self.count:
            raise WrongInput(f"ps {index} wants to join a job with {self.count} ps; correct PS_HOSTS or POD_NAME")
        if self.has(index):
            raise JobFailed(f"ps {index} has joined already, and is not known to be dead; start each ps once")
        self._peers[index] = connection
        self.restarts[index] = restarts

    def index_of(self, connection: Connection) -> int | None:
        """Returns the number of the ps behind a connection, or None."""
        return next((i for i, peer in self._peers.items() if peer is connection), None)

    def describe(self) -> list[Values]:
        """Returns a row of the status for each ps."""
        return [
            {
                "index": index,
                "state": "joined" if self.has(index) else "missing",
                "restarts": self.restarts.get(index, 0),
            }
            for index in range(self.count)
        ]

    def reached(self, step: int) -> None:
        """Tells every other ps that all steps before this one are complete."""
        for peer in self._peers.values():
            peer.send(Kind.REACH, pack_reach(step))

    def ask(self, index: int, name: str, values: Values, reply: Callable[[Values], None]) -> None:
        """Calls one ps; `reply` gets the result, with a key `error` when it failed."""
        if index == 0:
            getattr(self._own, name)(values, reply)
            return
        if not self.has(index):
            reply({"error": "is not connected"})
            return
        connection = self._peers[index]
        number = next(self._numbers)
        self._pending[number] = (connection, reply)
        connection.send(Kind.CALL, pack_json({"call": name, "id": number, **values}))

    def ask_all(self, name: str, values: Callable[[int], Values], done: Done, failed: Failed) -> None:
        """Calls every ps; `done` gets the results by index once all are there, `failed` the first error."""
        results: dict[int, Values] = {}

        def one(index: int, result: Values) -> None:
            if "error" in result:
                failed(f"ps {index}: {result['error']}")
                return
            results[index] = result
            if len(results) == self.count:
                done([results[i] for i in range(self.count)])

        for index in range(self.count):
            self.ask(index, name, values(index), lambda result, index=index: one(index, result))  # type: ignore[misc]

    def answered(self, connection: Connection, values: Values, error: bool) -> None:
        """Takes the answer of a ps; what nobody asked for, or not of this peer, is no answer."""
        number = values.get("id")
        if not isinstance(number, int) or number not in self._pending:
            return
        peer, reply = self._pending[number]
        if peer is not connection:
            return
        del self._pending[number]
        reply({"error": str(values.get("message", ""))} if error else values)
