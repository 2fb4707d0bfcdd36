"""A real ps in this process with a worker that takes part, and frames to damage it with."""

import json

import numpy as np
from wire_peers import Stepped, frame, frame_of

from tfleet.checkpoint.store import Store
from tfleet.server.coordinator import Coordinator
from tfleet.server.plan import TrainingPlan
from tfleet.server.replica import PsReplica
from tfleet.spec.job import JobSpec
from tfleet.spec.layout import Layout, Variable
from tfleet.spec.rundir import RunDir
from tfleet.wire.frames import (
    HEADER,
    Have,
    Kind,
    Push,
    pack_have,
    pack_header,
    pack_json,
    pack_push,
    pack_reach,
    unpack_take,
)
from tfleet.wire.rows import Rows, pack_rows

SIZE = 2048
TABLE = (64, 4)
WHOLE = SIZE + 64 * 4
ROWS = [0, 7, 63]


class Ps:
    """A real ps with a partition of SIZE zeros, behind a real server."""

    def __init__(self, folder, index):
        run = RunDir.at(folder)
        run.create()
        self.peers = Stepped()
        self.peers.__enter__()
        store = Store(run.checkpoints)
        self.replica = PsReplica(index, self.peers.loop, store)
        self.peers.server._handler = self.replica
        self.job = None
        self.extra = 0
        values = {"generation": 1, "low": 0, "strategy": "async", "batch_size": 4, "wire_dtype": "float32", "decay": []}
        values |= {"high": WHOLE, "start": 0, "tables": [[SIZE, *TABLE]]}
        optimizer = {"name": "sgd", "hyper": {}, "weight_decay": 0.0}
        if index == 0:
            spec = JobSpec(task="t", ps=1, workers=1, steps=0)
            clock = self.peers.clock
            self.job = Coordinator(spec, run, self.peers.loop, self.replica, store, ["unix:@x"], False, clock)
            self.extra = 8
        else:
            nothing = {"state": 0, "metrics": 0, "restore": -1}
            self.replica.prepare({**values, **nothing, "optimizer": optimizer}, lambda _: None)
            self.replica.coordinator = self.peers.adopt()[0]
        layout = Layout((Variable("w", (SIZE,)), Variable("table", TABLE)), sparse=(1,))
        self.plan = TrainingPlan(layout, optimizer, 100, 4, 4, 0, False).to_json()

    def worker(self):
        """Returns a socket of a worker that takes part."""
        _, sock = self.peers.adopt()
        if not self.job:
            self.call(sock, call="attach", member=1, generation=1)
        else:
            self.call(sock, call="join", role="worker", index=0)
            self.call(sock, call="describe", plan=self.plan)
            self.call(sock, call="start")
            self.call(sock, bytes(4 * WHOLE), call="set", generation=1)
            self.call(sock, call="initialised")
            while self.job.phase == "starting":
                self.peers.loop.turn(0.01)
            self.call(sock, call="start")
        return sock

    def call(self, sock, payload=b"", **values):
        sock.sendall(frame(Kind.CALL, json.dumps(values).encode(), payload))
        self.peers.step()
        answered = frame_of(sock)
        assert answered[0] is Kind.RESULT, answered
        return answered

    def fetch(self, sock, ids):
        """Returns rows of the table."""
        sock.sendall(frame(Kind.FETCH, pack_rows(Rows(1, 1, 0, (len(ids),))), np.array(ids, np.int64).tobytes()))
        self.peers.step()
        kind, _, payload = frame_of(sock)
        assert kind is Kind.TAKE
        return np.frombuffer(payload, np.float32).reshape(len(ids), TABLE[1])

    def push(self, sock, sequence, lease=None):
        """Pushes a gradient of minus ones, with three rows, and returns the answer."""
        rows = np.array(ROWS, np.int64).tobytes() + np.full((len(ROWS), TABLE[1]), -1, np.float32).tobytes()
        sock.sendall(frame(Kind.ROWS, pack_rows(Rows(1, 1, sequence, (len(ROWS),))), rows))
        epoch, batch = lease[:2] if lease else (0, 0)
        meta = pack_push(Push(1, 1, sequence, 1.0, 4, 0, epoch, batch, 1, 1, 0))
        sock.sendall(frame(Kind.PUSH, meta, np.full(SIZE, -1, np.float32).tobytes() + bytes(self.extra)))
        self.peers.step()
        kind, meta, payload = frame_of(sock)
        assert kind is Kind.TAKE
        return unpack_take(meta), np.frombuffer(payload, np.float32)

    def pull(self, sock):
        sock.sendall(frame(Kind.PULL, pack_push(Push(1, 1, 0, 0.0, 0, 0, 0, 0, 0, 1, 0))))
        self.peers.step()
        return unpack_take(frame_of(sock)[1])

    def close(self):
        if self.job and self.job.progress:
            self.job.progress.close()
        self.peers.__exit__()


def seeds(ps):
    """Returns frames as they should be, for damage. Member 99 has never joined."""
    push = pack_push(Push(1, 99, 7, 1.0, 4, 0, 0, 0, 1, 1, 0))
    calls = [
        {"call": "attach", "member": 98, "generation": 1},
        {"call": "set"},
        {"call": "join", "role": "evaluator", "index": 3},
        {"call": "join", "role": "ps", "index": 1},
        {"call": "describe", "plan": ps.plan},
        {"call": "start"},
        {"call": "initialised"},
        {"call": "beat", "member": 1},
        {"call": "report", "step": 1, "commit": 0, "metrics": {"loss": 1.0}},
        {"call": "follow", "seen": 0},
        {"call": "evaluation"},
        {"call": "finalise"},
        {"call": "finalised", "export": "1", "metrics": {"loss": 1.0}},
        {"call": "outcome"},
        {"call": "leave", "reason": ""},
        {"call": "prepare", "generation": 9, "low": 0, "high": 1 << 50, "state": 1 << 50, "metrics": 1, "restore": -1},
        {"call": "cut", "number": 1, "table": [[1, 5]]},
        {"call": "hold"},
        {"call": "fence", "member": 1},
        {"call": "over"},
    ]
    frames = [frame(Kind.CALL, pack_json(values)) for values in calls]
    frames += [frame(Kind.PUSH, push, bytes(4 * SIZE + ps.extra)), frame(Kind.PULL, push)]
    rows = pack_rows(Rows(1, 99, 7, (3,)))
    ids = np.array(ROWS, np.int64).tobytes()
    frames += [frame(Kind.ROWS, rows, ids + bytes(48)), frame(Kind.FETCH, rows, ids)]
    frames += [frame(Kind.RESULT, b'{"id":1}'), frame(Kind.ERROR, b'{"id":1,"message":"x"}')]
    frames += [frame(Kind.HAVE, pack_have(Have(1, 1))), frame(Kind.REACH, pack_reach(1 << 40))]
    return [*frames, frame(Kind.TAKE, bytes(13)), frame(Kind.CHALLENGE, bytes(32)), frame(Kind.ANSWER, bytes(64))]


def damaged(data, rng):
    """Returns the frame with some bytes, lengths or values changed, cut, or repeated."""
    data = bytearray(data)
    how = rng.randrange(6)
    if how == 0:
        data = data[: rng.randrange(len(data))]
    elif how == 1:
        for _ in range(rng.randrange(1, 6)):
            data[rng.randrange(min(len(data), 100))] = rng.randrange(256)
    elif how == 2:
        meta, payload = rng.choice([0, 1, 55, 57, 1 << 24, 2**32 - 1]), rng.choice([0, 1, 4, 1 << 33, 2**64 - 1])
        data[: HEADER.size] = pack_header(rng.choice(list(Kind)), meta, payload)
    elif how == 3:
        odd = rng.choice(["null", "-1", "1e999", '"x"', "[]", "{}", "1.5", "99999999999999999999999"])
        text = bytes(data[HEADER.size :])
        for old in (b":1", b":0", b':""', b":99", b":3", b":{", b'"worker"'):
            text = text.replace(old, b":" + odd.encode(), 1)
        data = bytearray(pack_header(Kind(data[3]), len(text), 0) + text)
    elif how == 4:
        data = data + data
    else:
        data += rng.randbytes(rng.randrange(200))
    return bytes(data)
