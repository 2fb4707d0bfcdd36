"""A ps: its partition, the sockets that push to it and pull from it, and what the coordinator asks of it.

Every ps runs this, ps 0 too; in ps 0 a coordinator listens in (see `Listener`). All of it runs in the loop's thread,
but for the writing of a commit's part, which has a thread of its own.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from typing import Any, Protocol

import numpy as np

from tfleet.checkpoint.manifest import Part
from tfleet.checkpoint.store import Store
from tfleet.optimizers import OptimizerSpec, build
from tfleet.server import background
from tfleet.server.buffers import BufferPool
from tfleet.server.memory import resident_bytes
from tfleet.server.partition import Partition
from tfleet.server.row_pushes import RowPushes
from tfleet.spec.errors import ExitCode, TfleetError, out_of_memory
from tfleet.spec.layout import Table
from tfleet.spec.scheduling import prefer_throughput
from tfleet.spec.times import Times
from tfleet.strategies import strategy
from tfleet.strategies.memory import MemoryPlan, Shared
from tfleet.strategies.rule import Rule, Vector
from tfleet.wire.frames import (
    BY_SOCKET,
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
from tfleet.wire.halves import Half, decode
from tfleet.wire.loop import Loop
from tfleet.wire.memory import NoSharedMemory, adopt
from tfleet.wire.rows import Rows, unpack_rows
from tfleet.wire.server import NOTHING, Connection, Handler

Reply = Callable[[dict[str, Any]], None]
"""Answers a call, now or later; a key `error` makes it an error."""
OF_COORDINATOR = ("prepare", "fence", "hold", "cut", "written", "over", "ping")
"""Calls that only the coordinator makes."""
WRONG_VALUES = (LookupError, TypeError, ValueError, ArithmeticError, AttributeError)
"""What reading a call's values raises when they are not what they should be."""


class Listener(Protocol):
    """What ps 0's coordinator adds to a ps."""

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


class PsReplica(Handler):
    """One parameter server.

    Attributes:
        index: of this ps.
        generation: of the job; frames of an older one are refused.
        partition: None until the coordinator has told what this ps holds.
        coordinator: the connection to it; None in ps 0, which holds it.
        restarts: how often the backend has started this ps again.
        heard: when the coordinator was last heard of, in the loop's time.
        owns_thread: whether the loop's thread is this ps's alone, to be set up for nothing but updates.
        late: pushes that were refused, because their worker is out of the job.
        times: of pushes: from being ready to its turn, the update, and all that follows.
    """

    def __init__(self, index: int, loop: Loop, store: Store, restarts: int = 0) -> None:
        self.index = index
        self.restarts = restarts
        self.heard = loop.now()
        self.owns_thread = False
        self.late = 0
        self.times = Times("queue", "update", "answer")
        self.generation = 0
        self.partition: Partition | None = None
        self.listener: Listener | None = None
        self.coordinator: Connection | None = None
        self.on_over: Callable[[dict[str, Any]], None] = lambda values: None
        self._loop = loop
        self._store = store
        self._rule: Rule | None = None
        self._aggregates = False
        self._pool = BufferPool(0)
        self._rows = RowPushes([])
        self._extra = 0
        self._first_sizes = (0, 0)
        self._width = 0
        self._half: Half | None = None
        self._decoded: Vector = np.empty(0, np.float32)
        self._told: tuple[memoryview, ...] = ()
        self._waiting: deque[Connection] = deque()
        self._unanswered: dict[Connection, int] = {}
        self._admitted: dict[int, int] = {}
        self._receiving: dict[int, Connection] = {}
        self._initial = False
        self._applied: dict[int, int] = {}
        self._fenced: set[int] = set()
        self._limit: dict[int, int] | None = None
        self._cut: Callable[[], None] | None = None
        self._written: dict[int, tuple[dict[str, Any] | None, Reply | None]] = {}

    # What the coordinator asks, of this process or over a connection. Each answers through `reply`.

    def prepare(self, values: dict[str, Any], reply: Reply) -> None:
        """Makes the partition, from scratch or from a commit, which is read in a thread.

        Args:
            values: generation, low, high, start, tables (low, rows, width of each), optimizer, decay (of the rest),
                strategy, batch_size, wire_dtype, state, metrics (lengths in ps 0), and restore (number of a commit,
                or -1).
            reply: gets {} once it is there.
        """
        spec = OptimizerSpec.from_json(values["optimizer"])
        low, high = int(values["low"]), int(values["high"])
        state = int(values["state"])
        decay = [(int(a), int(b)) for a, b in values["decay"]]
        tables = [Table(*map(int, table)) for table in values["tables"]]
        optimizer = build(spec)
        partition = Partition(low, high, optimizer, decay, state, tables, start=int(values["start"]))
        self.generation = int(values["generation"])
        self._initial = values["restore"] < 0
        chosen = strategy(str(values["strategy"]))
        self._aggregates = chosen.aggregates
        if self.owns_thread:
            optimizer.keep_thread()
            if not chosen.aggregates:  # else everybody waits for this ps
                prefer_throughput()
        self._rule = chosen.rule(partition, int(values["batch_size"]))
        vectors = (partition.parameters, *(partition.slots.values() if chosen.local else ()))
        self._width = len(vectors) * partition.size
        self._told = (partition.state.data, *(vector.data for vector in vectors))
        self._half = None if values["wire_dtype"] == "float32" else values["wire_dtype"]
        self._decoded = np.empty(self._width if self._half else 0, np.float32)
        self._first_sizes = (state, int(values["metrics"]))
        self._extra = 4 * sum(self._first_sizes)

        def restore() -> None:
            manifest = self._store.get(int(values["restore"]))
            parameters, slots = self._store.read(manifest, low, high)
            partition.load(parameters, slots, manifest.iterations(low, high))
            if state:
                partition.state[:] = self._store.read_state(manifest)[0]

        def ready(_: None = None) -> None:
            self._pool = BufferPool((4 if self._half is None else 2) * self._width + self._extra)
            self._rows = RowPushes([table.shape for table in partition.tables])
            self.partition = partition
            reply({})

        if self._initial:
            ready()
        else:
            background.run(self._loop, restore, ready, lambda why: reply({"error": why}))

    def fence(self, values: dict[str, Any], reply: Reply) -> None:
        """Takes nothing more from a member; replies with the last sequence that was applied."""
        member = int(values["member"])
        self._fenced.add(member)
        self._admitted.pop(member, None)
        self._rows.forget(member)
        if member in self._receiving:
            self._receiving.pop(member).close()  # half a push of a silent worker would keep its buffer
        sequence = self._applied.pop(member, 0)
        if self._limit is not None:
            self._limit.pop(member, None)
        self._check_cut()
        reply({"sequence": sequence})

    def hold(self, _values: dict[str, Any], reply: Reply) -> None:
        """Lets no new sequence in until `cut`; replies with the (member, sequence) table."""
        self._limit = dict(self._admitted)
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
        self._limit = table if values["table"] else self._limit
        if self._aggregates:
            self.reach(int(values["step"]))
        self._initial = False

        def copied() -> None:
            self._limit = None
            self._begin_writing(number)
            reply({})
            self._retry()

        self._cut = copied
        self._retry()
        self._check_cut()

    def reach(self, step: int) -> None:
        """Is told that ps 0 has completed every step before this one; tells the workers that wait for it."""
        assert self._rule is not None
        self._rule.reach(step)
        waiting, self._unanswered = self._unanswered, {}
        for connection, slot in waiting.items():
            self._tell(connection, slot)

    def written(self, values: dict[str, Any], reply: Reply) -> None:
        """Replies with the written part, or an error, once the thread has ended."""
        number = int(values["number"])
        result, _ = self._written.get(number, (None, None))
        if result is None:
            self._written[number] = (None, reply)
        else:
            del self._written[number]
            reply(result)

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
        return {
            **self.times.to_json(),
            "wall": time.monotonic(),
            "cpu": time.process_time(),
            "memory": resident_bytes(),
            "late": self.late,
        }

    # What workers ask of a partition.

    def attach(self, connection: Connection, values: dict[str, Any], reply: Reply) -> None:
        """A worker tells who it is, on its connection to this partition."""
        if int(values["generation"]) != self.generation or int(values["member"]) in self._fenced:
            reply({"error": "this worker is out of the job: join again"})
            return
        connection.owner = int(values["member"])
        reply({})

    def share(self, connection: Connection, values: dict[str, Any], reply: Reply) -> None:
        """A worker of this machine is about to hand over memory that its vectors travel through.

        Replies {} at once, and once the descriptor is there {"refused": why not, or empty}.
        """
        partition, plan = self.partition, MemoryPlan.from_json(values["plan"])
        if partition is None or connection.owner is None or plan.parameters < partition.start + partition.size:
            raise ProtocolError("memory is not expected now")
        if not self.index and (plan.state, plan.metrics) != self._first_sizes:
            raise ProtocolError(f"the memory of a worker holds {plan}, ps 0 has another plan")

        def arrived(descriptor: int) -> None:
            try:
                memory = adopt(descriptor, plan.size)
            except NoSharedMemory as error:
                connection.result({"refused": str(error)})
                return
            start = partition.start
            connection.memory = Shared.of(plan, memory, start, start + partition.size, first=not self.index)
            connection.result({"refused": ""})

        connection.expect_descriptor(arrived)
        reply({})

    def set(self, values: dict[str, Any], payload: memoryview, reply: Reply) -> None:
        """Takes initial parameters: this partition's slice; refused from who is out, and after the first cut."""
        stale = values.get("generation") != self.generation or values.get("member") in self._fenced
        if self.partition is None or not self._initial or stale:
            raise ProtocolError("initial parameters are not expected now")
        if payload.nbytes != 4 * self.partition.extent:
            raise ProtocolError(f"{payload.nbytes} bytes of parameters, this partition holds {self.partition.extent}")
        self.partition.load(np.frombuffer(payload, np.float32), {}, 0)
        reply({})

    # Frames.

    def admit(self, connection: Connection, header: Header, meta: bytearray) -> memoryview | None:
        """Bounds the payload; a push waits for a buffer, or for the end of a hold."""
        if header.kind is Kind.PUSH:
            return self._admit_push(connection, header, meta)
        if header.kind in (Kind.ROWS, Kind.FETCH):
            return self._admit_rows(connection, header, unpack_rows(meta))
        allowed = 0
        if header.kind is Kind.CALL:
            allowed = self._call_limit(unpack_json(meta))
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
            self._call(connection, unpack_json(meta), payload)
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
        partition = self.partition
        assert partition is not None
        views: tuple[memoryview, ...] = ()
        if slot == BY_SOCKET:
            views = self._told
        elif slot is not None:
            target = connection.memory.slots[slot]
            np.copyto(target.parameters, partition.parameters)
            np.copyto(target.state, partition.state)
        connection.send(Kind.TAKE, pack_take(take), *views)

    def _admit_push(self, connection: Connection, header: Header, meta: bytearray) -> memoryview | None:
        push = connection.asked = unpack_push(meta)
        shared = self._shared(connection, push)
        if header.payload != (0 if shared else self._pool.size) or self.partition is None:
            raise ProtocolError(f"a push of {header.payload} bytes, this partition takes {self._pool.size}")
        if not self._refused(connection, push):
            if self._limit is not None and push.sequence > self._limit.get(push.member, 0):
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

    def _shared(self, connection: Connection, push: Push) -> bool:
        """Whether vectors travel through memory that this worker shares."""
        if push.slot == BY_SOCKET:
            return False
        if connection.memory is None or push.slot >= len(connection.memory.slots):
            raise ProtocolError(f"slot {push.slot} of a memory that is not shared")
        return True

    def _admit_rows(self, connection: Connection, header: Header, rows: Rows) -> memoryview | None:
        """Bounds rows; those of a push wait like the push."""
        ahead = header.kind is Kind.ROWS
        size = self._rows.size(rows, gradients=ahead)
        if header.payload != size or self.partition is None:
            raise ProtocolError(f"rows of {header.payload} bytes instead of {size}")
        if ahead and not self._refused(connection, rows):
            held = self._limit is not None and rows.sequence > self._limit.get(rows.member, 0)
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
        gradient, state, metrics = self._vectors(connection, push, payload)
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
        self._check_cut()  # only now: the ledger that goes with the copy must know this push
        if self._waiting:
            self._retry()

    def _vectors(self, connection: Connection, push: Push, payload: memoryview) -> tuple[Vector, Vector, Vector]:
        """Returns gradient, state and metrics of a push: views that are valid until it is answered."""
        if push.slot != BY_SOCKET:
            shared = connection.memory
            return shared.gradient, shared.state, shared.metrics
        assert self.partition is not None
        split = payload.nbytes - self._extra
        gradient: Vector = self._decoded
        if self._half is None:
            gradient = np.frombuffer(payload[:split], np.float32)
        else:
            decode(np.frombuffer(payload[:split], np.uint16), gradient, self._half)
        rest = np.frombuffer(payload[split:], np.float32)
        state = len(self.partition.state)
        return gradient, rest[:state], rest[state:]

    def _pull(self, connection: Connection, pull: Push) -> None:
        if self.partition is None:
            raise ProtocolError("a pull before the parameters exist")
        self._shared(connection, pull)
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

    def _call(self, connection: Connection, values: dict[str, Any], payload: memoryview) -> None:
        def reply(result: dict[str, Any]) -> None:
            tag = {"id": values["id"]} if "id" in values else {}
            if "error" in result:
                connection.error(result["error"], result.get("exit_code", ExitCode.FAILED), **tag)
            else:
                connection.result({**tag, **result})

        name = str(values.get("call"))
        try:
            if name in OF_COORDINATOR and self.coordinator and connection is self.coordinator:
                getattr(self, name)(values, reply)
            elif name == "set":
                self.set(values, payload, reply)
            elif name == "share":
                self.share(connection, values, reply)
            elif name == "attach" and not self.listener:
                self.attach(connection, values, reply)
            elif self.listener:
                self.listener.call(connection, values, payload, reply)
            else:
                raise ProtocolError(f"unknown call {name!r}")
        except TfleetError as error:
            reply({"error": str(error), "exit_code": int(error.exit_code)})
        except WRONG_VALUES as error:
            raise ProtocolError(f"a call {name!r} with wrong values: {error}") from None

    def _call_limit(self, values: dict[str, Any]) -> int:
        if values.get("call") == "set" and self.partition is not None:
            return 4 * self.partition.extent
        return self.listener.payload_limit(values) if self.listener else 0

    def _retry(self) -> None:
        waiting, self._waiting = self._waiting, deque()
        for connection in waiting:
            connection.retry()

    def _check_cut(self) -> None:
        if self._cut is None:
            return
        if all(self._applied.get(member, 0) >= sequence for member, sequence in (self._limit or {}).items()):
            copied, self._cut = self._cut, None
            copied()

    def _begin_writing(self, number: int) -> None:
        assert self.partition is not None
        low, high, generation = self.partition.low, self.partition.high, self.generation
        try:
            parameters, slots, iterations = self.partition.copy()
            catch_up = self.partition.catch_up()
        except MemoryError as error:  # as a full disk: the commit before is as good as it was
            why = out_of_memory("this ps", error, "give more ps, or more memory, for the copy of a commit")
            self._written[number] = ({"error": why}, None)
            return

        def write() -> Part:
            catch_up(slots)
            return self._store.write_part(
                number, generation, self.index, low, high, parameters, slots, iterations=iterations
            )

        def ended(result: dict[str, Any]) -> None:
            _, reply = self._written.pop(number, (None, None))
            if reply:
                reply(result)
            else:
                self._written[number] = (result, None)

        background.run(
            self._loop, write, lambda part: ended({"part": part.model_dump()}), lambda why: ended({"error": why})
        )
