"""A whole job in one thread: real coordinator, partitions, connections; simulated sockets, workers, time, threads.

Nothing happens by itself. What could happen next (a socket has bytes, a worker can go on, a thread could end, time
could pass) is listed, and a random generator chooses; so every interleaving has a seed, and a worker can die anywhere.
"""

import heapq
import itertools
import random
from pathlib import Path
from selectors import EVENT_READ

import numpy as np
from simulated_sockets import FakeSocket, Line, Lost
from simulated_worker import Worker

from tfleet.checkpoint.disk import Disk
from tfleet.checkpoint.store import Store
from tfleet.server.coordinator import Coordinator
from tfleet.server.history import History
from tfleet.server.replica import PsReplica
from tfleet.server.watch import Watch
from tfleet.spec.job import JobSpec
from tfleet.spec.rundir import RunDir
from tfleet.wire.frames import (
    Kind,
    pack_json,
    unpack_json,
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
        self.now, self.woke = shared.now, 0.0

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
        self.dead, self.life = False, 0
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
            self.rejoin_soon()

    def rejoin_soon(self):
        life = self.life
        self.fleet.soon.append(lambda: self.rejoin() if life == self.life else None)

    def rejoin(self):
        if not self.dead:
            self.again()
            try:
                self.join()
            except Lost:
                self.rejoin_soon()

    def end(self, killed=False):
        """Ends a generation, or by SIGKILL the whole process with its threads."""
        self.loop.closed, self.loop.killed = True, killed
        self.replica.listener = None
        for connection in self.connections:
            connection.drop()

    def kill(self):
        self.dead, self.life = True, self.life + 1
        self.end(killed=True)


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

    def start(self, index, role="worker", guest=""):
        """Starts a worker or the evaluator."""
        worker = Worker(index, role, self, guest=guest)
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
