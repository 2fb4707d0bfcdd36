"""What is trained, and workers that train it: generators that stop wherever a real worker could be interrupted."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np
from simulated_sockets import Line, Lost

from tfleet.optimizers import OptimizerSpec, build
from tfleet.server.plan import TrainingPlan
from tfleet.spec.errors import TfleetError, error_for
from tfleet.spec.layout import CHUNK, Layout, Variable
from tfleet.strategies.ledger import permutation
from tfleet.wire.frames import Kind, Order, Push, Take, pack_json, pack_push, unpack_json, unpack_take
from tfleet.wire.rows import Rows, pack_rows

if TYPE_CHECKING:
    from simulated_fleet import Fleet


class Rejoined(Exception):
    """The worker was told that it is out of the job."""


@dataclass
class Task:
    """What is trained.

    `Counting` and `Linear` say how a gradient comes about.
    """

    items: int
    batch: int
    parameters: int = 3 * CHUNK
    state: int = 2
    evaluates: bool = False
    seed: int = 0
    optimizer: OptimizerSpec = field(default_factory=lambda: OptimizerSpec("sgd"))

    @property
    def plan(self):
        layout = Layout((Variable("w", (self.parameters,)),), (Variable("s", (self.state,)),), (Variable("f", (2,)),))
        return TrainingPlan(layout, self.optimizer.to_json(), self.items, self.batch, self.batch, 0, self.evaluates)

    @property
    def batches(self):
        return -(-self.items // self.batch)

    def rows(self, epoch, batch):
        return permutation(self.seed, epoch, self.items)[batch * self.batch : (batch + 1) * self.batch]

    rate = 1.0


class Counting(Task):
    """Each batch adds 1 to a parameter of its own in every chunk: parameters tell which pushes were applied."""

    def initial(self):
        return np.zeros(self.parameters, np.float32)

    def gradient(self, parameters, epoch, batch):
        gradient = np.zeros(self.parameters, np.float32)
        gradient[epoch * self.batches + batch :: CHUNK] = -1
        return gradient

    def counts(self, parameters):
        """Returns how often each chunk has each batch: int [chunks, CHUNK]."""
        return np.rint(np.asarray(parameters)).astype(int).reshape(-1, CHUNK)


class SparseCounting(Counting):
    """Counting, with a table ahead of it: each batch adds 1 to three rows of its own, in each third of the table."""

    third, width = 32, 33

    @property
    def plan(self):
        plan = super().plan
        table = Variable("table", (3 * self.third, self.width))
        return replace(plan, layout=replace(plan.layout, trainable=(table, *plan.layout.trainable), sparse=(0,)))

    @property
    def table_size(self):
        return 3 * self.third * self.width

    def initial(self):
        return np.zeros(self.table_size + self.parameters, np.float32)

    def touched(self, epoch, batch):
        return epoch * self.batches + batch + np.arange(3) * self.third

    def split(self, parameters):
        """Returns the table, and the rest."""
        table = np.rint(parameters[: self.table_size]).astype(int)
        return table.reshape(3, self.third, self.width), parameters[self.table_size :]


class Linear(Task):
    """Least squares with some features in every chunk."""

    rate = 0.05
    features = np.arange(0, 3 * CHUNK, 200)

    def data(self):
        generator = np.random.default_rng(5)
        x = generator.normal(size=(self.items, len(self.features))).astype(np.float32)
        return x, (x @ generator.normal(size=len(self.features))).astype(np.float32)

    def initial(self):
        values = np.zeros(self.parameters, np.float32)
        values[self.features] = np.random.default_rng(7).normal(size=len(self.features))
        return values

    def gradient(self, parameters, epoch, batch):
        x, y = self.data()
        rows = self.rows(epoch, batch)
        error = x[rows] @ parameters[self.features] - y[rows]
        gradient = np.zeros(self.parameters, np.float32)
        gradient[self.features] = x[rows].T @ error / np.float32(len(rows))
        return gradient


@dataclass(eq=False)
class Worker:
    """A simulated worker: a generator that stops wherever the real one could be interrupted.

    `stopped` is SIGSTOP, or a batch that takes for ever.
    """

    index: int
    role: str
    fleet: Fleet
    lines: list = field(default_factory=list)
    member: int = 0
    ended: str = ""
    waits: Line | None = None
    pushing: bool = False
    stopped: bool = False
    draining: bool = False
    sequence: int = 0
    owed: int = 0
    guest: str = ""

    def __post_init__(self):
        self._steps = self._live()

    @property
    def ready(self):
        return not self.ended and not self.stopped and (self.waits is None or self.waits.ready)

    def go_on(self):
        """Runs until the next point at which something else could happen first."""
        try:
            self.waits = next(self._steps)
        except StopIteration as stop:
            self.end(stop.value)
        except Lost:
            self.end("lost")
        except TfleetError as error:
            self.end(f"{int(error.exit_code)}: {error}")

    def end(self, how):
        self.ended = how
        self._steps.close()
        for line in self.lines:
            line.sock.close()

    def _live(self):
        while True:
            try:
                return (yield from self._member())
            except (Rejoined, Lost):
                for line in self.lines:
                    line.sock.close()
            self.pushing = False
            if self.fleet.job.ending.over:
                return "over"
            yield None

    def _member(self):
        fleet, task = self.fleet, self.fleet.task_of(self)
        self.lines = [fleet.connect(0)]
        first = self.lines[0]
        who = {"guest": self.guest, "host": "elsewhere"} if self.guest else {}
        welcome, _ = yield from self._call(first, "join", role=self.role, index=self.index, **who)
        self.index = welcome["index"]
        self.member, self.generation, self.sequence, self.step = welcome["member"], welcome["generation"], 0, 0
        self.owed = 0
        if self.role == "evaluator":
            return (yield from self._follow(first))
        self.lines += [fleet.connect(i) for i in range(1, len(welcome["ps"]))]
        layout = task.plan.layout
        self.whole, self.bounds = layout.bounds(len(self.lines)), layout.dense_bounds(len(self.lines))
        self.tables = [[table.within(*bounds) for table in layout.tables] for bounds in self.whole]
        try:
            yield from self._call(first, "describe", plan=task.plan.to_json())
            yield from self._start(first, task)
        except TfleetError as error:
            yield from self._call(first, "fail", message=str(error), exit_code=int(error.exit_code))
            raise
        for line in self.lines[1:]:
            yield from self._call(line, "attach", member=self.member, generation=self.generation)
        return (yield from self._train(first, task))

    def _start(self, first, task):
        while True:
            answer, frozen = yield from self._call(first, "start")
            if not answer["initialise"]:
                break
            for line, (low, high) in zip(self.lines, self.whole, strict=True):
                yield from self._call(line, "set", task.initial()[low:high].tobytes(), generation=self.generation)
            rest = np.concatenate([np.zeros(task.state), [3.0, 4.0]]).astype(np.float32)
            yield from self._call(first, "initialised", rest.tobytes())
        assert np.frombuffer(frozen, np.float32).tolist() == [3.0, 4.0]

    def _train(self, first, task):
        self.parameters = np.zeros(task.parameters, np.float32)
        self.state = np.zeros(task.state, np.float32)
        self.vectors = [self.parameters]
        compute = self._compute
        if self.fleet.spec.strategy == "average":
            self.optimizer = build(task.optimizer)
            self.slots = {name: np.zeros(task.parameters, np.float32) for name in self.optimizer.slot_names}
            self.vectors += self.slots.values()
            compute = self._compute_run
        take = yield from self._pull()
        while take.order is not Order.OVER:
            if take.leases:
                take = yield from compute(task, take.leases[0])
                continue
            if self.draining:
                yield from self._call(first, "leave", reason="")
                return "drained"
            if take.order is Order.EVALUATE:
                yield from self._evaluate(first)
            elif take.order is Order.FINALISE:
                yield from self._finalise(first)
            take = yield from self._pull()
        return "over"

    def _evaluate(self, first):
        asked, _ = yield from self._call(first, "evaluation")
        manifest = self.fleet.store.get(asked["commit"])
        metrics = self.fleet.evaluate(manifest)
        yield from self._call(first, "report", step=manifest.step, commit=manifest.number, metrics=metrics)

    def _finalise(self, first):
        asked, _ = yield from self._call(first, "finalise")
        manifest = self.fleet.store.get(asked["commit"])
        metrics = self.fleet.evaluate(manifest)
        exported = manifest.number
        if metrics:
            answer, _ = yield from self._call(
                first, "report", step=manifest.step, commit=manifest.number, metrics=metrics
            )
            exported = answer["export"]
        self.fleet.store.get(exported)
        yield from self._call(first, "finalised", export=str(exported))

    def _follow(self, first):
        seen = 0
        while True:
            answer, _ = yield from self._call(first, "follow", seen=seen)
            if answer["over"]:
                return "over"
            seen = answer["commit"]
            manifest = self.fleet.store.get(seen)
            yield None
            metrics = self.fleet.evaluate(manifest)
            yield from self._call(first, "report", step=manifest.step, commit=seen, metrics=metrics)

    def _compute(self, task, lease):
        touched = task.touched(lease.epoch, lease.batch) if isinstance(task, SparseCounting) else []
        yield from self._fetch(touched)
        gradient = task.gradient(self.parameters, lease.epoch, lease.batch)
        samples = len(task.rows(lease.epoch, lease.batch))
        self.sequence += 1
        meta = self._meta(task.rate, samples, lease.epoch, lease.batch, lease.batches)
        parts = [gradient[low:high].tobytes() for low, high in self.bounds]
        change = np.ones(task.state, np.float32)
        parts[0] += (self.state + change if self.fleet.spec.strategy == "sync" else change).tobytes()
        parts[0] += np.array([2.0 * samples, samples], np.float32).tobytes()
        self.pushing = True
        yield from self._send_rows(touched)
        take = yield from (self._push_sync if self.fleet.spec.strategy == "sync" else self._push_async)(meta, parts)
        self.pushing = False
        return take

    def _held(self, touched):
        """Yields each partition that holds some of these rows of the table, with its own numbers of them."""
        first = 0
        for line, tables in zip(self.lines, self.tables, strict=True):
            for table in tables:
                ids = np.array([row - first for row in touched if 0 <= row - first < table.rows], np.int64)
                if len(ids):
                    yield line, ids, table.width
                first += table.rows

    def _fetch(self, touched):
        for line, ids, width in self._held(touched):
            line.send(Kind.FETCH, pack_rows(Rows(self.generation, self.member, 0, (len(ids),))), ids.tobytes())
            _, payload = yield from self._taken(line)
            rows = np.frombuffer(payload, np.float32).reshape(len(ids), width)
            assert (rows == rows[:, :1]).all()

    def _send_rows(self, touched):
        for line, ids, width in self._held(touched):
            gradients = np.full((len(ids), width), -1, np.float32)
            meta = pack_rows(Rows(self.generation, self.member, self.sequence, (len(ids),)))
            line.send(Kind.ROWS, meta, ids.tobytes(), gradients.tobytes())
            yield None

    def _compute_run(self, task, lease):
        """Trains a run alone; now and then tells how far it is."""
        start, samples, told = self.step, 0, 0
        for number in range(lease.length):
            batch = lease.batch + number
            gradient = task.gradient(self.parameters, lease.epoch, batch)
            updates = lease.updates + number
            self.optimizer.apply(self.parameters, gradient, self.slots, updates, task.rate, [(0, task.parameters)])
            self.state += 1
            samples += len(task.rows(lease.epoch, batch))
            yield None
            if number + 1 == lease.length:
                break
            if self.draining:
                return Take(self.generation, self.step, Order.NONE, ())
            if number % 3 == 2:
                metrics = np.array([6.0, 3.0], np.float32).tobytes()
                answer, _ = yield from self._call(
                    self.lines[0], "progress", metrics, step=start, steps=number + 1 - told
                )
                told = number + 1
                if not answer["go_on"]:
                    return (yield from self._pull())
        return (yield from self._push_run(lease, samples))

    def _push_run(self, lease, samples):
        self.sequence += 1
        meta = self._meta(0.0, samples, lease.epoch, lease.batch, lease.batches)
        for line, (low, high) in zip(self.lines[1:], self.bounds[1:], strict=True):
            line.send(Kind.PUSH, meta, b"".join(vector[low:high].tobytes() for vector in self.vectors))
            yield None
        first = [vector[: self.bounds[0][1]] for vector in self.vectors]
        told = np.array([2.0 * samples, samples], np.float32)
        self.pushing = True
        self.lines[0].send(Kind.PUSH, meta, b"".join(part.tobytes() for part in (*first, self.state, told)))
        self.owed += 1
        before = self.step
        take = yield from self._take_first()
        yield from self._take_others() if self.step != before else self._pull_others()
        self.pushing = False
        return take

    def _push_async(self, meta, parts):
        for line, part in [*zip(self.lines[1:], parts[1:], strict=True), (self.lines[0], parts[0])]:
            line.send(Kind.PUSH, meta, part)
            yield None
        self.owed = 1
        yield from self._take_others()
        return (yield from self._take_first())

    def _push_sync(self, meta, parts):
        for line, part in zip(self.lines[1:], parts[1:], strict=True):
            line.send(Kind.PUSH, meta, part)
            yield None
        self.lines[0].send(Kind.PUSH, meta, parts[0])
        self.owed += 1
        before = self.step
        take = yield from self._take_first()
        if self.step != before:
            yield from self._take_others()
        return take

    def _pull(self):
        self.lines[0].send(Kind.PULL, self._meta())
        take = yield from self._take_first()
        yield from self._pull_others()
        return take

    def _pull_others(self):
        for line in self.lines[1:]:
            line.send(Kind.PULL, self._meta())
            yield None
        self.owed += 1
        yield from self._take_others()

    def _take_others(self):
        owed, self.owed = self.owed, 0
        for line, (low, high) in zip(self.lines[1:], self.bounds[1:], strict=True):
            for _ in range(owed):
                take, payload = yield from self._taken(line)
                if payload:
                    self._put(low, high, np.frombuffer(payload, np.float32))
            if self.fleet.spec.strategy in ("sync", "average") and take.step < self.step:
                line.send(Kind.PULL, self._meta())
                _, payload = yield from self._taken(line)
                self._put(low, high, np.frombuffer(payload, np.float32))

    def _put(self, low, high, values):
        for vector, part in zip(self.vectors, np.split(values, len(self.vectors)), strict=True):
            vector[low:high] = part

    def _take_first(self):
        take, payload = yield from self._taken(self.lines[0])
        if payload:
            values = np.frombuffer(payload, np.float32)
            self.state[:] = values[: len(self.state)]
            self._put(*self.bounds[0], values[len(self.state) :])
        self.step = take.step
        return take

    def _taken(self, line):
        frame = yield from self._receive(line)
        if frame.kind is Kind.ERROR:
            self._result(frame)
        take = unpack_take(frame.meta)
        if take.order is Order.REJOIN:
            raise Rejoined
        return take, frame.payload

    def _meta(self, rate=0.0, samples=0, epoch=0, batch=0, batches=0):
        who = self.generation, self.member, self.sequence
        return pack_push(Push(*who, rate, samples, self.step, epoch, batch, batches, int(not self.draining), held=0))

    def _call(self, line, name, payload=b"", **values):
        line.send(Kind.CALL, pack_json({"call": name, **values}), payload)
        frame = yield from self._receive(line)
        return self._result(frame), frame.payload

    def _result(self, frame):
        values = unpack_json(frame.meta)
        if frame.kind is Kind.ERROR:
            raise error_for(values["exit_code"], values["message"])
        assert frame.kind is Kind.RESULT
        return values

    def _receive(self, line):
        while not line.ready:
            yield line
        return line.take()
