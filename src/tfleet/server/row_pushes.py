"""Row gradients that have come to a partition, and wait for the push that they belong to."""

from __future__ import annotations

from typing import NamedTuple

from tfleet.server.buffers import BUFFERS
from tfleet.spec.arrays import Ids, Matrix
from tfleet.wire.frames import ProtocolError
from tfleet.wire.rows import Rows, payload_size, read_gradients, read_ids
from tfleet.wire.server import Connection


class TouchedRows(NamedTuple):
    """What one push does to the tables of a partition.

    Attributes:
        ids: of each table, int64 [n] ascending.
        gradients: of each table, float32 [n, width].
    """

    ids: list[Ids]
    gradients: list[Matrix]


class RowPushes:
    """What came ahead of pushes, bounded: at most `BUFFERS` at once, so it does not grow with the number of workers.

    A worker sends the rows of a push right before the push, on one connection. So whoever is waited for here has
    nothing to wait for itself but a buffer for the push, of which there are as many.
    """

    def __init__(self, shapes: list[tuple[int, int]]) -> None:
        """Takes rows and width of the partition's part of each table."""
        self._shapes = shapes
        self._senders: dict[int, Connection] = {}
        self._come: dict[int, tuple[int, TouchedRows]] = {}

    def size(self, rows: Rows, *, gradients: bool) -> int:
        """Returns the bytes of payload that must come with this meta.

        Raises:
            ProtocolError: when there cannot be such rows.
        """
        return payload_size(rows.counts, self._shapes, gradients)

    def ids(self, rows: Rows, payload: memoryview) -> list[Ids]:
        """Returns the ids in a payload.

        Raises:
            ProtocolError: when they are none.
        """
        return read_ids(payload, rows.counts, self._shapes)

    def admit(self, connection: Connection, member: int) -> bool:
        """Makes room for a member's rows; False: there is none yet.

        Raises:
            ProtocolError: when there are rows of this member already.
        """
        if member in self._senders:
            raise ProtocolError("rows of a second push before the first push")
        if len(self._senders) >= BUFFERS:
            return False
        self._senders[member] = connection
        return True

    def came(self, rows: Rows, payload: memoryview) -> None:
        """Keeps rows that have come until their push has.

        Raises:
            ProtocolError: when they are no rows of the partition.
        """
        touched = TouchedRows(self.ids(rows, payload), read_gradients(payload, rows.counts, self._shapes))
        self._come[rows.member] = (rows.sequence, touched)

    def take(self, member: int, sequence: int) -> TouchedRows | None:
        """Returns the rows of this push and makes room; None when it has none."""
        self._senders.pop(member, None)
        of, touched = self._come.pop(member, (0, None))
        return touched if of == sequence else None

    def forget(self, member: int) -> None:
        """Drops what a member sent that is out of the job."""
        self._senders.pop(member, None)
        self._come.pop(member, None)

    def gone(self, connection: Connection) -> bool:
        """Drops what came over a connection that is closed; tells whether that made room."""
        mine = [member for member, sender in self._senders.items() if sender is connection]
        for member in mine:
            self.forget(member)
        return bool(mine)
