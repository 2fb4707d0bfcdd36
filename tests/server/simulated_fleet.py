"""A whole job in one thread: real coordinator, partitions, connections; simulated sockets, workers, time, threads.

Nothing happens by itself. What could happen next (a socket has bytes, a worker can go on, a thread could end, time
could pass) is listed, and a random generator chooses; so every interleaving has a seed, and a worker can die anywhere.
"""

import heapq
import itertools
import random
from dataclasses import dataclass, field
from pathlib import Path
from selectors import EVENT_READ

import numpy as np

from tfleet.checkpoint.disk import Disk
from tfleet.checkpoint.store import Store
from tfleet.server.coordinator import Coordinator
from tfleet.server.history import History
from tfleet.server.plan import TrainingPlan
from tfleet.server.replica import PsReplica
from tfleet.server.watch import Watch
from tfleet.spec.errors import TfleetError, error_for
from tfleet.spec.job import JobSpec
from tfleet.spec.layout import CHUNK, Layout, Variable, partition_bounds
from tfleet.spec.rundir import RunDir
from tfleet.strategies.ledger import permutation
from tfleet.wire.frames import (
    HEADER,
    Kind,
    Order,
    Push,
    pack_header,
    pack_json,
    pack_push,
    unpack_header,
    unpack_json,
    unpack_take,
)
from tfleet.wire.server import Connection

TICK = 0.05
QUIET_TICKS = 400
"""So many ticks (20 s) in which nothing else could happen mean that the job is stuck."""


class MemoryDisk(Disk):
    """A disk that is quick, and full when told."""

    def __init__(self):
        self.full = False

    def write(self, handle, data):
        if self.full:
            raise OSError(28, "No space left on device")
        return super().write(handle, data)

    def sync(self, handle):
        pass

    def sync_directory(self, path):
        pass


class StepLoop:
    """A loop whose time, threads and readiness are in the hands of the test."""

    def __init__(self):
        self.time = 1000.0
        self.stopped = False
        self.threads = []
        self.calls = []
        self.watched = {}
        self._timers = []
        self._order = itertools.count()

    def now(self):
        return self.time

    def watch(self, sock, events, callback):
        if events:
            self.watched[sock] = (events, callback)
        else:
            self.watched.pop(sock, None)

    def call_later(self, seconds, callback):
        heapq.heappush(self._timers, (self.time + seconds, next(self._order), callback))

    def call_every(self, seconds, callback):
        def again():
            callback()
            self.call_later(seconds, again)

        self.call_later(seconds, again)

    def call_from_thread(self, callback):
        self.calls.append(callback)

    def start_thread(self, work):
        self.threads.append(work)

    def stop(self):
        self.stopped = True

    def run_calls(self):
        while self.calls:
            self.calls.pop(0)()

    def run_due(self):
        while self._timers and self._timers[0][0] <= self.time:
            heapq.heappop(self._timers)[2]()

    @property
    def due(self):
        return bool(self._timers) and self._timers[0][0] <= self.time

    def advance(self, seconds):
        """Lets time pass, running each timer at its own time."""
        end = self.time + seconds
        while self._timers and self._timers[0][0] <= end:
            self.time = max(self.time, self._timers[0][0])
            heapq.heappop(self._timers)[2]()
        self.time = end


class Own:
    """The loop of one ps for one generation: what is left of it means nothing once that has ended."""

    def __init__(self, shared, stop):
        self.shared, self.stop = shared, stop
        self.closed = self.killed = False
        self.now = shared.now

    def watch(self, sock, events, callback):
        self.shared.watch(sock, events, callback)

    def call_later(self, seconds, callback):
        self.shared.call_later(seconds, lambda: self.closed or callback())

    def call_every(self, seconds, callback):
        def again():
            if not self.closed:
                callback()
                self.shared.call_later(seconds, again)

        self.shared.call_later(seconds, again)

    def call_from_thread(self, callback):
        self.shared.call_from_thread(lambda: self.closed or callback())

    def start_thread(self, work):
        self.shared.start_thread(lambda: self.killed or work())


class Ps:
    """The process of one ps: a replica for each generation."""

    def __init__(self, index, fleet, store):
        self.index, self.fleet, self.store = index, fleet, store
        self.dead = False
        self.again()

    def again(self):
        """Begins a generation."""
        self.connections = []
        self.loop = Own(self.fleet.loop, self.fleet.stopped if self.index == 0 else lambda: None)
        self.replica = PsReplica(self.index, self.loop, self.store)
        self.link = None

    def accept(self):
        """Returns the other end of a new connection."""
        if self.dead:
            raise Lost
        here, there = FakeSocket.pair()
        self.connections.append(Connection(self.loop, here, self.replica, proven=True))
        return there

    def join(self):
        """Joins ps 0, as it does at the start and after it was lost."""
        self.link = there = self.fleet.processes[0].accept()
        Line(there).send(Kind.CALL, pack_json({"call": "join", "role": "ps", "index": self.index}))
        connection = self.replica.coordinator = Connection(self.loop, there, self.replica, proven=True)
        self.connections.append(connection)
        connection.on_close = lambda _: self.lost()
        self.replica.on_over = lambda values: self.fleet.over.update({self.index: values})

    def lost(self):
        """Ps 0 is gone: ends this generation, and joins again soon."""
        if not (self.dead or self.loop.closed):
            self.end()
            self.fleet.soon.append(self.rejoin)

    def rejoin(self):
        if not self.dead:
            self.again()
            try:
                self.join()
            except Lost:
                self.fleet.soon.append(self.rejoin)

    def end(self, killed=False):
        """Ends a generation, or by SIGKILL the whole process with its threads."""
        self.loop.closed, self.loop.killed = True, killed
        self.replica.listener = None
        for connection in self.connections:
            connection.drop()

    def kill(self):
        self.dead = True
        self.end(killed=True)


class Pipe:
    """One direction of a connection."""

    def __init__(self):
        self.bytes = bytearray()
        self.ended = False
        self.broken = False


class FakeSocket:
    """One end of a connection; takes any number of bytes, gives as many as `allow`."""

    def __init__(self, incoming, outgoing):
        self.incoming, self.outgoing = incoming, outgoing
        self.allow = 0

    @classmethod
    def pair(cls):
        a, b = Pipe(), Pipe()
        return cls(a, b), cls(b, a)

    def setblocking(self, _flag):
        pass

    def sendmsg(self, parts):
        if self.outgoing.broken:
            raise BrokenPipeError(32, "Broken pipe")
        for part in parts:
            self.outgoing.bytes += part
        return sum(len(part) for part in parts)

    def recv_into(self, view):
        count = min(len(view), len(self.incoming.bytes), self.allow)
        if count:
            view[:count] = self.incoming.bytes[:count]
            del self.incoming.bytes[:count]
            self.allow -= count
        elif not (self.incoming.ended and not self.incoming.bytes):
            raise BlockingIOError
        return count

    @property
    def readable(self):
        return bool(self.incoming.bytes) or self.incoming.ended

    def close(self):
        self.outgoing.ended = True
        self.incoming.broken = True


@dataclass
class Frame:
    """A frame that a worker received."""

    kind: Kind
    meta: bytes
    payload: bytes


class Lost(Exception):
    """The other end is gone."""


class Rejoined(Exception):
    """The worker was told that it is out of the job."""


class Line:
    """The worker's end of a connection."""

    def __init__(self, sock):
        self.sock = sock
        self.half = 0

    def send(self, kind, meta=b"", *payload):
        data = b"".join(bytes(p) for p in payload)
        if self.sock.outgoing.broken:
            raise Lost
        self.sock.sendmsg([pack_header(kind, len(meta), len(data)), meta, data])

    @property
    def ready(self):
        return self._length() > 0 or self.sock.incoming.ended

    def take(self):
        length = self._length()
        if not length:
            raise Lost
        data, self.sock.incoming.bytes = self.sock.incoming.bytes[:length], self.sock.incoming.bytes[length:]
        header = unpack_header(data[: HEADER.size])
        meta = bytes(data[HEADER.size : HEADER.size + header.meta])
        return Frame(header.kind, meta, bytes(data[HEADER.size + header.meta :]))

    def _length(self):
        data = self.sock.incoming.bytes
        if len(data) < HEADER.size:
            return 0
        header = unpack_header(data[: HEADER.size])
        length = HEADER.size + header.meta + header.payload
        return length if len(data) >= length else 0


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

    @property
    def plan(self):
        layout = Layout((Variable("w", (self.parameters,)),), (Variable("s", (self.state,)),), (Variable("f", (2,)),))
        optimizer = {"name": "sgd", "hyper": {}, "weight_decay": 0.0}
        return TrainingPlan(layout, optimizer, self.items, self.batch, self.batch, 0, self.evaluates)

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
    fleet: "Fleet"
    lines: list = field(default_factory=list)
    member: int = 0
    ended: str = ""
    waits: Line | None = None
    pushing: bool = False
    stopped: bool = False
    draining: bool = False
    sequence: int = 0

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
        welcome, _ = yield from self._call(first, "join", role=self.role, index=self.index)
        self.member, self.generation, self.sequence, self.step = welcome["member"], welcome["generation"], 0, 0
        if self.role == "evaluator":
            return (yield from self._follow(first))
        self.lines += [fleet.connect(i) for i in range(1, len(welcome["ps"]))]
        self.bounds = partition_bounds(task.parameters, len(self.lines))
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
            for line, (low, high) in zip(self.lines, self.bounds, strict=True):
                yield from self._call(line, "set", task.initial()[low:high].tobytes(), generation=self.generation)
            rest = np.concatenate([np.zeros(task.state), [3.0, 4.0]]).astype(np.float32)
            yield from self._call(first, "initialised", rest.tobytes())
        assert np.frombuffer(frozen, np.float32).tolist() == [3.0, 4.0]

    def _train(self, first, task):
        self.parameters = np.zeros(task.parameters, np.float32)
        self.state = np.zeros(task.state, np.float32)
        take = yield from self._pull()
        while take.order is not Order.OVER:
            if take.leases:
                take = yield from self._compute(task, take.leases[0])
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
        gradient = task.gradient(self.parameters, lease.epoch, lease.batch)
        samples = len(task.rows(lease.epoch, lease.batch))
        self.sequence += 1
        meta = self._meta(task.rate, samples, lease.epoch, lease.batch, lease.batches)
        parts = [gradient[low:high].tobytes() for low, high in self.bounds]
        change = np.ones(task.state, np.float32)
        parts[0] += (change if self.fleet.spec.strategy == "async" else self.state + change).tobytes()
        parts[0] += np.array([2.0 * samples, samples], np.float32).tobytes()
        self.pushing = True
        take = yield from (self._push_async if self.fleet.spec.strategy == "async" else self._push_sync)(meta, parts)
        self.pushing = False
        return take

    def _push_async(self, meta, parts):
        for line, part in [*zip(self.lines[1:], parts[1:], strict=True), (self.lines[0], parts[0])]:
            line.send(Kind.PUSH, meta, part)
            yield None
        yield from self._take_others()
        return (yield from self._take_first())

    def _push_sync(self, meta, parts):
        for line, part in zip(self.lines[1:], parts[1:], strict=True):
            line.send(Kind.PUSH, meta, part)
            yield None
        for line in self.lines[1:]:
            yield from self._taken(line)
        self.lines[0].send(Kind.PUSH, meta, parts[0])
        before = self.step
        take = yield from self._take_first()
        if self.step != before:
            yield from self._pull_others()
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
        yield from self._take_others()

    def _take_others(self):
        for line, (low, high) in zip(self.lines[1:], self.bounds[1:], strict=True):
            _, payload = yield from self._taken(line)
            if payload:
                self.parameters[low:high] = np.frombuffer(payload, np.float32)

    def _take_first(self):
        take, payload = yield from self._taken(self.lines[0])
        if payload:
            values = np.frombuffer(payload, np.float32)
            self.state[:] = values[: len(self.state)]
            self.parameters[: self.bounds[0][1]] = values[len(self.state) :]
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


class Fleet:
    """A job. Attributes that tests look at: job (the coordinator), ps, workers, store, loop, disks."""

    def __init__(
        self, folder, task, seed=0, resume=False, watch=False, task_of=None, evaluate=None, late_ps=False, **spec
    ):
        spec = {"task": "simulated", "steps": 0, "checkpoint": {"every_seconds": 0}, **spec}
        self.spec = JobSpec.parse(spec)
        self.task = task
        self.random = random.Random(seed)
        self.loop = StepLoop()
        self.run_dir = RunDir.at(Path(folder))
        for path in (self.run_dir.checkpoints, self.run_dir.private):
            path.mkdir(parents=True, exist_ok=True)
        self.disks = [MemoryDisk() for _ in range(self.spec.ps)]
        stores = [Store(self.run_dir.checkpoints, disk) for disk in self.disks]
        self.store = stores[0]
        self.soon = []
        self.over = {}
        self.workers = []
        self.earlier = []
        self._watched = watch
        self._ended = False
        self.processes = [Ps(i, self, store) for i, store in enumerate(stores)]
        self._lead(resume, {})
        if not late_ps:
            self.join_ps()
        self.task_of = task_of or (lambda worker: self.task)
        self.evaluate = evaluate or (lambda manifest: {})

    @property
    def ps(self):
        return [process.replica for process in self.processes]

    @property
    def links(self):
        return [process.link for process in self.processes[1:]]

    def join_ps(self):
        """Lets all other ps connect to ps 0."""
        for process in self.processes[1:]:
            process.join()

    def _lead(self, resume, status):
        first = self.processes[0]
        hosts = [f"unix:@ps-{i}" for i in range(self.spec.ps)]
        history, clock = History.of(status), self.loop.now
        self.job = Coordinator(
            self.spec, self.run_dir, first.loop, first.replica, self.store, hosts, resume, clock, history
        )
        if self._watched:
            self.watch = Watch(self.job)

    def stopped(self):
        """The loop of ps 0 was told to stop: the job is over, or its next generation begins."""
        self._ended = self.job.rolled_back
        self.loop.stopped = not self._ended

    def next_generation(self, status=None):
        """What ps 0 does when a ps was lost; also when it was itself started again, with the status that it finds."""
        self._ended = False
        self.close()
        self.earlier.append(self.job)
        first = self.processes[0]
        if not first.dead:
            status = self.job.status()
            first.end()
        first.dead = False
        first.again()
        self._lead(True, status)

    def kill_ps(self, index):
        """SIGKILL for a ps."""
        if index == 0:
            self._status = self.job.status()
        self.processes[index].kill()

    def start_ps(self, index):
        """Its backend starts it again."""
        process = self.processes[index]
        if index == 0:
            self.next_generation(self._status)
        else:
            process.dead = False
            process.rejoin()

    def connect(self, index):
        """Returns a new connection to a ps, which sees it as proven."""
        return Line(self.processes[index].accept())

    def start(self, index, role="worker"):
        """Starts a worker or the evaluator."""
        worker = Worker(index, role, self)
        self.workers.append(worker)
        return worker

    def start_all(self):
        """Starts as many workers as the job has."""
        return [self.start(index) for index in range(self.spec.workers)]

    def kill(self, worker):
        """SIGKILL: what it has sent stays in the sockets, of the last frame perhaps a beginning only."""
        worker.end("killed")
        lines = [line for line in worker.lines if line.sock.outgoing.bytes]
        if lines and self.random.random() < 0.5:
            pipe = self.random.choice(lines).sock.outgoing
            del pipe.bytes[self.random.randrange(len(pipe.bytes)) :]

    def drain(self, worker):
        """SIGTERM: the worker leaves after the batch at hand; its heartbeat tells so."""
        worker.draining = True
        if worker.member:
            self.client("beat", member=worker.member, draining=True)

    def client(self, name, line=None, payload=b"", **values):
        """A command such as `tfleet stop` calls ps 0, or whoever has a line calls; returns what it is answered."""
        line = line or self.connect(0)
        line.send(Kind.CALL, pack_json({"call": name, **values}), payload)
        while not line.ready:
            self.step(only_reads=True)
        frame = line.take()
        return frame.kind, unpack_json(frame.meta)

    def step(self, only_reads=False):
        """Lets one thing happen that can; returns False when only time could pass."""
        if self._ended:
            self.next_generation()
        choices = [(self._read, sock) for sock, (events, _) in self.loop.watched.items() if events and sock.readable]
        if not only_reads:
            choices += [(Worker.go_on, worker) for worker in self.workers if worker.ready]
            choices += [(self._finish_thread, work) for work in self.loop.threads]
            choices += [(self._do_soon, work) for work in self.soon]
        if self.loop.calls:
            choices.append((StepLoop.run_calls, self.loop))
        if self.loop.due:
            choices.append((StepLoop.run_due, self.loop))
        if not choices:
            return False
        action, target = self.random.choice(choices)
        action(target)
        return True

    def run(self, until=None, at=None, limit=30_000, tick=0.01):
        """Runs the job until it is over, or until `until()`.

        Args:
            until: looked at between any two things that happen.
            at: what to do before which of them: {number: function}.
            limit: of things that happen.
            tick: probability with which time passes although something could happen.
        """
        quiet = 0
        for number in range(limit):
            if self.loop.stopped or (until and until()):
                return self
            if at and number in at:
                at[number](self)
            if self.random.random() < tick or not self.step():
                self.loop.advance(TICK)
                quiet += 1
                assert quiet < QUIET_TICKS, f"stuck: {self.describe()}"
            else:
                quiet = 0
        raise AssertionError(f"no end: {self.describe()}")

    def settle_reads(self, line):
        """Has the server read all that a worker has sent by one connection."""
        other = self.other(line)
        while other.incoming.bytes and other in self.loop.watched:
            self._read(other)

    def settle_links(self, worker):
        """Has every ps notice that a worker is gone."""
        for line in worker.lines:
            if self.other(line):
                self.settle_reads(line)
        while self.step(only_reads=True):
            pass

    def other(self, line):
        """Returns the server's end of a connection, or None when nobody watches it."""
        return next((sock for sock in self.loop.watched if sock.incoming is line.sock.outgoing), None)

    def settle(self):
        """Lets everything happen that can without time."""
        while self.step():
            pass

    def describe(self):
        return self.job.phase, self.job.ending.reason, self.job.ledger and self.job.ledger.counts(), self.workers

    def parameters(self):
        """Returns the parameters of all partitions together."""
        return np.concatenate([ps.partition.parameters for ps in self.ps])

    def committed(self, manifest):
        """Returns all parameters of a commit."""
        return self.store.read(manifest, 0, manifest.parameters)[0]

    def close(self):
        if self.job.progress:
            self.job.progress.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def _read(self, sock):
        _, callback = self.loop.watched[sock]
        # Now and then only a part of a frame has arrived.
        sock.allow = self.random.choice([16, 72, 1000, 1 << 30, 1 << 30, 1 << 30])
        callback(EVENT_READ)

    def _do_soon(self, work):
        self.soon.remove(work)
        work()

    def _finish_thread(self, work):
        self.loop.threads.remove(work)
        work()


def acknowledged(ledger, batches):
    """Returns which batches (numbered through all epochs) an async ledger's JSON counts as done."""
    (epoch, batch), left = ledger["next"], {tuple(key) for key in ledger["open"]}
    every = [divmod(number, batches) for number in range(epoch * batches + batch)]
    return {e * batches + b for e, b in every if (e, b) not in left}


def die_ps(fleet, index=None):
    """Kills a ps, and has its backend start it again soon."""
    index = fleet.random.randrange(fleet.spec.ps) if index is None else index
    if not (fleet.processes[index].dead or fleet.job.ending.over):
        fleet.kill_ps(index)
        fleet.soon.append(lambda: fleet.start_ps(index))


def die(fleet):
    """Kills a worker, and starts another in its place."""
    living = [worker for worker in fleet.workers if not worker.ended]
    if living:
        worker = fleet.random.choice(living)
        fleet.kill(worker)
        fleet.start(worker.index, worker.role)
