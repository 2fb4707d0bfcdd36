"""A ps: its partition, the sockets that push to it and pull from it, and what the coordinator asks of it.

Every ps runs this, ps 0 too; in ps 0 a coordinator listens in (see `Listener`). All of it runs in the loop's thread,
but for the writing of a commit's part, which has a thread of its own.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

from tfleet.checkpoint.store import Store
from tfleet.optimizers import build
from tfleet.server import background
from tfleet.server.assignment import Assignment
from tfleet.server.buffers import BufferPool
from tfleet.server.events import Events
from tfleet.server.listener import Listener, Reply
from tfleet.server.part_writer import PartWriter
from tfleet.server.partition import Partition
from tfleet.server.profile import used
from tfleet.server.ps_calls import PsCalls
from tfleet.server.row_pushes import RowPushes
from tfleet.server.transport import Transport, through_memory
from tfleet.spec.scheduling import prefer_throughput
from tfleet.spec.times import Times
from tfleet.strategies import strategy
from tfleet.strategies.rule import Rule
from tfleet.wire.frames import (
    Have,
    Header,
    Kind,
    Order,
    ProtocolError,
    Push,
    Take,
    pack_have,
    pack_take,
    unpack_have,
    unpack_json,
    unpack_push,
    unpack_reach,
)
from tfleet.wire.loop import Loop
from tfleet.wire.rows import Rows, unpack_rows
from tfleet.wire.server import NOTHING, Connection, Handler


class PsReplica(Handler):
    """One parameter server.

    Attributes:
        index: of this ps.
        generation: of the job; frames of an older one are refused.
        partition: None until the coordinator has told what this ps holds.
        transport: likewise, how vectors travel to it and back.
        initial: whether parameters may still be set, as no commit has been made.
        coordinator: the connection to it; None in ps 0, which holds it.
        restarts: how often the backend has started this ps again.
        heard: when the coordinator was last heard of, in the loop's time.
        owns_thread: whether the loop's thread is this ps's alone, to be set up for nothing but updates.
        late: pushes that were refused, because their worker is out of the job.
        times: of pushes: from being ready to its turn, the update, and all that follows.
        events: where it tells what it does.
    """

    def __init__(self, index: int, loop: Loop, store: Store, restarts: int = 0) -> None:
        self.index = index
        self.restarts = restarts
        self.heard = loop.now()
        self.owns_thread = False
        self.late = 0
        self.times = Times("queue", "update", "answer")
        self.events = Events()
        self.generation = 0
        self.partition: Partition | None = None
        self.transport: Transport | None = None
        self.initial = False
        self.listener: Listener | None = None
        self.coordinator: Connection | None = None
        self.on_over: Callable[[dict[str, Any]], None] = lambda values: None
        self._loop = loop
        self._store = store
        self._rule: Rule | None = None
        self._aggregates = False
        self._pool = BufferPool(0)
        self._rows = RowPushes([])
        self._waiting: deque[Connection] = deque()
        self._unanswered: dict[Connection, int] = {}
        self._admitted: dict[int, int] = {}
        self._receiving: dict[int, Connection] = {}
        self._applied: dict[int, int] = {}
        self._fenced: set[int] = set()
        self._calls = PsCalls(self)
        self._writer = PartWriter(loop, store, index, lambda number: self.events.add("part", number))

    # What the coordinator asks, of this process or over a connection. Each answers through `reply`.

    def prepare(self, values: dict[str, Any], reply: Reply) -> None:
        """Makes the partition, from scratch or from a commit, which is read in a thread.

        Args:
            values: of an `Assignment`.
            reply: gets {} once it is there.
        """
        told = Assignment.from_json(values)
        optimizer = build(told.optimizer)
        partition = told.partition(optimizer)
        self.generation = told.generation
        self.initial = told.commit < 0
        chosen = strategy(told.strategy)
        self._aggregates = chosen.aggregates
        if self.owns_thread:
            optimizer.keep_thread()
            if not chosen.aggregates:  # else everybody waits for this ps
                prefer_throughput()
        self._rule = self.events.watched(chosen.rule(partition, told.batch_size))

        def ready(_: None = None) -> None:
            transport = self.transport = Transport(
                partition, local=chosen.local, half=told.half, metrics=told.metrics, first=not self.index
            )
            self._pool = BufferPool(transport.push_size)
            self._rows = RowPushes([table.shape for table in partition.tables])
            self.partition = partition
            self.events.add("begin", self.generation, told.commit)
            reply({})

        if self.initial:
            ready()
        else:
            background.run(
                self._loop, lambda: told.restore(self._store, partition), ready, lambda why: reply({"error": why})
            )

    def fence(self, values: dict[str, Any], reply: Reply) -> None:
        """Takes nothing more from a member; replies with the last sequence that was applied."""
        member = int(values["member"])
        self._fenced.add(member)
        self.events.add("fence", member)
        self._admitted.pop(member, None)
        self._rows.forget(member)
        if member in self._receiving:
            self._receiving.pop(member).close()  # half a push of a silent worker would keep its buffer
        sequence = self._applied.pop(member, 0)
        self._writer.forget(member)
        self._writer.check(self._applied)
        reply({"sequence": sequence})

    def hold(self, _values: dict[str, Any], reply: Reply) -> None:
        """Lets no new sequence in until `cut`; replies with the (member, sequence) table."""
        self._writer.hold(self._admitted)
        self.events.add("hold")
        reply({"table": [[member, sequence] for member, sequence in self._admitted.items()]})

    def cut(self, values: dict[str, Any], reply: Reply) -> None:
        """Copies the partition once the table is reached, then goes on, and writes the copy in a thread.

        Args:
            values: table (from all partitions' `hold`; empty: copy at once), number of the commit, and the step that
                a strategy without holds has reached.
            reply: gets {} when the copy is made.
        """
        table = {int(m): int(s) for m, s in values["table"] if int(m) not in self._fenced}
        number = int(values["number"])
        if self._aggregates:
            self.reach(int(values["step"]))
        self.initial = False

        def copy() -> None:
            assert self.partition is not None
            self.events.add("cut", number)
            self._writer.write(number, self.generation, self.partition)
            reply({})
            self._retry()

        self._writer.cut(table if values["table"] else None, copy)
        self._retry()
        self._writer.check(self._applied)

    def reach(self, step: int) -> None:
        """Is told that ps 0 has completed every step before this one; tells the workers that wait for it."""
        assert self._rule is not None
        self._rule.reach(step)
        waiting, self._unanswered = self._unanswered, {}
        for connection, slot in waiting.items():
            self._tell(connection, slot)

    def written(self, values: dict[str, Any], reply: Reply) -> None:
        """Replies with the written part, or an error, once the thread has ended."""
        self._writer.written(int(values["number"]), reply)

    def over(self, values: dict[str, Any], reply: Reply) -> None:
        """The job is over: this ps ends soon."""
        reply({})
        self.on_over(values)

    def ping(self, _values: dict[str, Any], reply: Reply) -> None:
        """Shows that this ps is alive, and that the coordinator is."""
        self.heard = self._loop.now()
        reply({"profile": self.profile()})

    def profile(self) -> dict[str, float]:
        """Returns where this ps's time went so far."""
        return {**self.times.to_json(), **used(), "late": self.late}

    def fenced(self, member: int | None) -> bool:
        """Whether nothing more is taken from a member."""
        return member in self._fenced

    # Frames.

    def admit(self, connection: Connection, header: Header, meta: bytearray) -> memoryview | None:
        """Bounds the payload; a push waits for a buffer, or for the end of a hold."""
        if header.kind is Kind.PUSH:
            return self._admit_push(connection, header, meta)
        if header.kind in (Kind.ROWS, Kind.FETCH):
            return self._admit_rows(connection, header, unpack_rows(meta))
        allowed = 0
        if header.kind is Kind.CALL:
            allowed = self._calls.payload_limit(unpack_json(meta))
        if header.payload > allowed:
            raise ProtocolError(f"a {header.kind.name} with {header.payload} bytes of payload, {allowed} are allowed")
        return memoryview(bytearray(header.payload)) if header.payload else NOTHING

    def frame(self, connection: Connection, header: Header, meta: bytearray, payload: memoryview) -> None:
        """Acts on a frame."""
        if header.kind is Kind.PUSH:
            self._push(connection, connection.asked, payload)
        elif header.kind is Kind.PULL:
            self._pull(connection, unpack_push(meta))
        elif header.kind is Kind.ROWS:
            self._take_rows(connection, unpack_rows(meta), payload)
        elif header.kind is Kind.FETCH:
            self._fetch(connection, unpack_rows(meta), payload)
        elif header.kind is Kind.CALL:
            self._calls.take(connection, unpack_json(meta), payload)
        elif header.kind in (Kind.RESULT, Kind.ERROR) and self.listener:
            self.listener.answered(connection, unpack_json(meta), header.kind is Kind.ERROR)
        elif header.kind is Kind.HAVE and self.listener:
            self.listener.arrived(connection, unpack_have(meta))
        elif header.kind is Kind.REACH and connection is self.coordinator:
            self.reach(unpack_reach(meta))
        elif connection is not self.coordinator:  # which answers what this ps asked of it
            raise ProtocolError(f"a {header.kind.name} frame is not expected here")

    def closed(self, connection: Connection, payload: memoryview | None) -> None:
        """Frees what the connection held."""
        if payload is not None:
            self._pool.give(payload)
            self._receiving = {m: c for m, c in self._receiving.items() if c is not connection}
            self._loop.call_later(0, self._retry)
        if self._rows.gone(connection):
            self._loop.call_later(0, self._retry)
        self._unanswered.pop(connection, None)
        if self.listener:
            self.listener.gone(connection)

    def answer(self, connection: Connection, take: Take, slot: int | None) -> None:
        """Sends a TAKE.

        Args:
            connection: of the worker.
            take: what it is told.
            slot: of the push or pull that is answered: there parameters and state go. None: they do not go at all.
        """
        assert self.transport is not None
        views = () if slot is None else self.transport.tell(connection, slot)
        connection.send(Kind.TAKE, pack_take(take), *views)

    def _admit_push(self, connection: Connection, header: Header, meta: bytearray) -> memoryview | None:
        push = connection.asked = unpack_push(meta)
        shared = through_memory(connection, push)
        if header.payload != (0 if shared else self._pool.size) or self.partition is None:
            raise ProtocolError(f"a push of {header.payload} bytes, this partition takes {self._pool.size}")
        if not self._refused(connection, push):
            if self._writer.holds(push.member, push.sequence):
                self._waiting.append(connection)
                return None
            buffer = NOTHING if shared else self._pool.take()
            if buffer is None:
                self._waiting.append(connection)
                return None
            self._admitted[push.member] = max(push.sequence, self._admitted.get(push.member, 0))
            self._receiving[push.member] = connection
            return buffer
        return memoryview(bytearray(header.payload))

    def _admit_rows(self, connection: Connection, header: Header, rows: Rows) -> memoryview | None:
        """Bounds rows; those of a push wait like the push."""
        ahead = header.kind is Kind.ROWS
        size = self._rows.size(rows, gradients=ahead)
        if header.payload != size or self.partition is None:
            raise ProtocolError(f"rows of {header.payload} bytes instead of {size}")
        if ahead and not self._refused(connection, rows):
            held = self._writer.holds(rows.member, rows.sequence)
            if held or not self._rows.admit(connection, rows.member):
                self._waiting.append(connection)
                return None
            self._admitted[rows.member] = max(rows.sequence, self._admitted.get(rows.member, 0))
            self._receiving[rows.member] = connection
        return memoryview(bytearray(size))

    def _take_rows(self, connection: Connection, rows: Rows, payload: memoryview) -> None:
        self._receiving.pop(rows.member, None)
        if not self._refused(connection, rows):  # else its push, which follows, is told so
            self._rows.came(rows, payload)

    def _fetch(self, connection: Connection, rows: Rows, payload: memoryview) -> None:
        if self._refused(connection, rows):
            self.answer(connection, Take(self.generation, 0, Order.REJOIN, ()), None)
            return
        assert self.partition is not None
        ids = self._rows.ids(rows, payload)
        found = [table.parameters[some] for table, some in zip(self.partition.tables, ids, strict=True)]
        take = Take(self.generation, self.partition.iteration, Order.NONE, ())
        connection.send(Kind.TAKE, pack_take(take), *(matrix.data for matrix in found))

    def _refused(self, connection: Connection, push: Push | Rows) -> bool:
        if push.generation != self.generation or push.member in self._fenced:
            return True
        known = self.listener.knows(connection, push.member) if self.listener else connection.owner == push.member
        return not known

    def _push(self, connection: Connection, push: Push, payload: memoryview) -> None:
        assert self.partition is not None
        assert self.transport is not None
        self._receiving.pop(push.member, None)
        self.partition.stage(self._rows.take(push.member, push.sequence))
        if self._refused(connection, push):
            self.late += 1
            self._pool.give(payload)
            self.partition.stage(None)
            self.answer(connection, Take(self.generation, 0, Order.REJOIN, ()), None)
            return
        self.times.begin(self._loop.woke)
        self.times.end("queue")
        gradient, state, metrics = self.transport.read(connection, push, payload)
        if push.sequence > self._applied.get(push.member, 0):
            assert self._rule is not None
            self._rule.take(push, gradient, state)
            self._applied[push.member] = push.sequence
        self.times.end("update")
        metrics = metrics.copy()
        self._pool.give(payload)
        if self.listener:
            self.listener.pushed(connection, push, metrics)
        elif self._aggregates:
            self._arrived(connection, push)
        else:
            self._tell(connection, push.slot)
        self.times.end("answer")
        self._writer.check(self._applied)  # only now: the ledger that goes with the copy must know this push
        if self._waiting:
            self._retry()

    def _pull(self, connection: Connection, pull: Push) -> None:
        if self.partition is None:
            raise ProtocolError("a pull before the parameters exist")
        through_memory(connection, pull)
        if self._refused(connection, pull):
            self.answer(connection, Take(self.generation, 0, Order.REJOIN, ()), None)
        elif self.listener:
            self.listener.pulled(connection, pull)
        else:
            self._settle(connection)
            self.reach(pull.step)
            self._tell(connection, pull.slot)

    def _arrived(self, connection: Connection, push: Push) -> None:
        """A push of a step that ps 0 completes: ps 0 hears that it is here, the worker hears once the step is done.

        Each push is answered once, in order. The last of a step brings the parameters, others bring nothing.
        """
        assert self.partition is not None
        assert self.coordinator is not None
        self.coordinator.send(Kind.HAVE, pack_have(Have(push.member, push.sequence)))
        self._settle(connection)
        if push.step < self.partition.iteration:
            self._tell(connection, push.slot)
        else:
            self._unanswered[connection] = push.slot

    def _settle(self, connection: Connection) -> None:
        if connection in self._unanswered:
            del self._unanswered[connection]
            self._tell(connection, None)

    def _tell(self, connection: Connection, slot: int | None) -> None:
        assert self.partition is not None
        self.answer(connection, Take(self.generation, self.partition.iteration, Order.NONE, ()), slot)

    def _retry(self) -> None:
        waiting, self._waiting = self._waiting, deque()
        for connection in waiting:
            connection.retry()
