"""One partition's part of a commit: it holds pushes back, is copied at the cut, and a thread writes the copy.

How all partitions find one cut stands in `commits`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from tfleet.checkpoint.manifest import Part
from tfleet.checkpoint.store import Store
from tfleet.server import background
from tfleet.server.listener import Reply
from tfleet.server.partition import Partition
from tfleet.spec.errors import out_of_memory
from tfleet.wire.loop import Loop


class PartWriter:
    """What a ps does for commits.

    Args:
        loop: that results come back to.
        store: of the commits.
        index: of this ps.
        on_written: is told the number of each commit whose part was written, or could not be.
    """

    def __init__(self, loop: Loop, store: Store, index: int, on_written: Callable[[int], None]) -> None:
        self._loop = loop
        self._store = store
        self._index = index
        self._on_written = on_written
        self._limit: dict[int, int] | None = None
        self._cut: Callable[[], None] | None = None
        self._written: dict[int, tuple[dict[str, Any] | None, Reply | None]] = {}

    def hold(self, admitted: Mapping[int, int]) -> None:
        """Begins to hold back: of each member, whatever comes after this sequence."""
        self._limit = dict(admitted)

    def holds(self, member: int, sequence: int) -> bool:
        """Whether a push has to wait until the copy is made."""
        return self._limit is not None and sequence > self._limit.get(member, 0)

    def cut(self, table: dict[int, int] | None, copy: Callable[[], None]) -> None:
        """Sets what has to be applied before `copy` is called, which `check` finds out.

        Args:
            table: newest sequence of each member; None: as far as was held.
            copy: is to copy the partition.
        """
        self._limit = self._limit if table is None else table
        self._cut = copy

    def check(self, applied: Mapping[int, int]) -> None:
        """Makes the copy if one is to be made and everything before the cut is applied."""
        if self._cut is None:
            return
        if all(applied.get(member, 0) >= sequence for member, sequence in (self._limit or {}).items()):
            copy, self._cut, self._limit = self._cut, None, None
            copy()

    def forget(self, member: int) -> None:
        """Waits for nothing more of a member that is out of the job."""
        if self._limit is not None:
            self._limit.pop(member, None)

    def write(self, number: int, generation: int, partition: Partition) -> None:
        """Copies the partition for a commit of this number, and writes the copy in a thread."""
        try:
            parameters, slots, iterations = partition.copy()
            catch_up = partition.catch_up()
        except MemoryError as error:  # as a full disk: the commit before is as good as it was
            why = out_of_memory("this ps", error, "give more ps, or more memory, for the copy of a commit")
            self._written[number] = ({"error": why}, None)
            return
        low, high = partition.low, partition.high

        def work() -> Part:
            catch_up(slots)
            return self._store.write_part(
                number, generation, self._index, low, high, parameters, slots, iterations=iterations
            )

        def ended(result: dict[str, Any]) -> None:
            self._on_written(number)
            _, reply = self._written.pop(number, (None, None))
            if reply:
                reply(result)
            else:
                self._written[number] = (result, None)

        background.run(
            self._loop, work, lambda part: ended({"part": part.model_dump()}), lambda why: ended({"error": why})
        )

    def written(self, number: int, reply: Reply) -> None:
        """Replies with the written part, or an error, once the thread has ended."""
        result, _ = self._written.get(number, (None, None))
        if result is None:
            self._written[number] = (None, reply)
        else:
            del self._written[number]
            reply(result)
