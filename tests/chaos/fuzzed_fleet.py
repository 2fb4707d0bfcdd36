"""A simulated job whose ps also get what others send: damaged frames, and handshakes that are none."""

from __future__ import annotations

import json
import random
import socket
from selectors import EVENT_READ

import numpy as np
from fuzzed_ps import damaged
from simulated_fleet import Fleet, acknowledged
from simulated_sockets import FakeSocket
from simulated_worker import Counting

from tfleet.spec.layout import CHUNK
from tfleet.wire import auth
from tfleet.wire.frames import (
    Have,
    Kind,
    Push,
    pack_have,
    pack_header,
    pack_json,
    pack_push,
    pack_reach,
)
from tfleet.wire.rows import Rows, pack_rows
from tfleet.wire.server import Connection, Server

TOKEN = b"token of the simulated job"


class Ring(Counting):
    """Counts batches modulo CHUNK, so that a job may go on for ever."""

    def gradient(self, parameters, epoch, batch):
        gradient = np.zeros(self.parameters, np.float32)
        gradient[(epoch * self.batches + batch) % CHUNK :: CHUNK] = -1
        return gradient

    def expected(self, ledger):
        """Returns the counts that every chunk must have for what a ledger's JSON calls done."""
        done = acknowledged(ledger, self.batches) if "next" in ledger else range(ledger["step"])  # sync: in order
        return np.bincount(np.array([*done], int) % CHUNK, minlength=CHUNK)


class RealSize(FakeSocket):
    """As much of a real socket as a server's end needs: options, and no descriptor ever comes."""

    family = socket.AF_UNIX

    def setsockopt(self, *_):
        pass

    def recvmsg(self, *_):
        if not self.readable:
            raise BlockingIOError
        data = bytes(self.incoming.bytes[:1])
        del self.incoming.bytes[:1]
        return data, [], 0, None


class Listener:
    """A listening socket to which the test connects."""

    family = socket.AF_UNIX

    def __init__(self):
        self.waiting = []

    @property
    def readable(self):
        return bool(self.waiting)

    def accept(self):
        if not self.waiting:
            raise BlockingIOError
        return self.waiting.pop(0), None

    def close(self):
        pass


class FuzzedFleet(Fleet):
    """A job with an honest worker; `attack` sends one connection's worth of damage."""

    def __init__(self, folder, seed, **spec):
        self.ring = Ring(items=50, batch=4)
        super().__init__(folder, self.ring, seed, ps=2, workers=1, steps=0, **spec)
        self.rng = random.Random(seed)
        self.listener = Listener()
        self.server = Server(self.loop, self.listener, TOKEN, self.processes[0].replica)
        (self.honest,) = self.start_all()
        self.run(until=lambda: self.job.step >= 1)
        self.calls = [json.dumps(values) for values in calls(self.honest.member, self.task.plan.to_json())]
        self.valid = [self._valid(index) for index in range(2)]
        self.refused = 0

    def attack(self):
        """Sends one to four damaged frames to one ps by a new connection; returns how many."""
        index = self.rng.randrange(2)
        here, there = RealSize.pair()
        process = self.processes[index]
        connection = Connection(process.loop, here, process.replica, proven=True)
        if index == 0 and self.rng.random() < 0.3:
            self._send(there, here, _call(call="join", role="evaluator", index=self.rng.randrange(3)))
        count = self.rng.randrange(1, 5)
        for _ in range(count):
            self._send(there, here, self._frame(index))
        there.close()
        self._read_all(here)
        self.loop.run_calls()
        self.loop.run_due()
        assert connection.closed
        return count

    def shake(self):
        """Sends one handshake that proves nothing; returns 1."""
        here, there = RealSize.pair()
        self.listener.waiting.append(here)
        self.loop.watched[self.listener][1](EVENT_READ)
        nonce = bytes(there.incoming.bytes[-32:])
        answer = bytearray(_frame(Kind.ANSWER, bytes(32) + auth.prove(TOKEN, b"client", bytes(32), nonce)))
        how = self.rng.randrange(5)
        if how == 0:
            answer[-1 - self.rng.randrange(64)] ^= 1 << self.rng.randrange(8)
        elif how == 1:
            answer = bytearray(self.rng.randbytes(self.rng.randrange(600)))
        elif how == 2:
            answer = bytearray(self._frame(0))
        elif how == 3:
            answer = answer[: self.rng.randrange(len(answer))]
        else:
            answer[4:16] = self.rng.randbytes(12)
        self._send(there, here, bytes(answer))
        assert not any(connection.proven for connection in self.server._open)
        if self.rng.random() < 0.7:  # else it stays, and says no more
            there.close()
            self._read_all(here)
        self.loop.run_calls()
        self.loop.run_due()
        return 1

    def check(self):
        """The honest worker goes on, and every partition holds its pushes and nothing else."""
        step = self.job.step
        self.honest.stopped = False
        self.run(until=lambda: self.job.step > step and self.honest.waits, limit=2_000)
        self.honest.stopped = True  # where it waits for an answer, so that all of its push is on the way
        self.settle()
        assert not self.honest.ended
        assert self.job.phase == "training"
        assert self.client("beat", member=self.honest.member)[1]["known"]
        json.dumps(self.job.status())
        self.job.profile.table()
        assert (self.ring.counts(self.parameters()) == self.ring.expected(self.job.ledger.to_json())).all()
        for replica in self.ps:
            assert not replica._receiving
            assert not replica._waiting
            assert not replica._pool._lent
            assert not replica._rows._senders

    def _frame(self, index):
        if self.rng.random() < 0.1:
            return self.rng.randbytes(self.rng.randrange(1, 300))
        if self.rng.random() < 0.3:
            values = odd(json.loads(self.rng.choice(self.calls)), self.rng)
            if values.get("call") == "attach":  # whoever has the token and takes the honest worker's number is believed
                values["generation"] = 0
            return _call(**values)
        return damaged(self.rng.choice(self.valid[index]), self.rng)

    def _send(self, there, here, data):
        if not there.outgoing.broken:
            there.outgoing.bytes += data
            self._read_all(here)

    def _read_all(self, here):
        for _ in range(10_000):
            if not (here in self.loop.watched and here.readable):
                return
            here.allow = 1 << 30
            self.loop.watched[here][1](EVENT_READ)
        raise AssertionError("a connection is read for ever")

    def _valid(self, index):
        honest, extra = self.honest.member, 16 if index == 0 else 0
        size = 4 * self.ps[index].partition.size
        frames = [_frame(Kind.CALL, values.encode()) for values in self.calls]
        for member, generation, sequence in ((99, 1, 7), (honest, 1, 1 << 40), (honest, 0, 3), (honest, 2, 3)):
            push = pack_push(Push(generation, member, sequence, 1.0, 4, 0, 0, 0, 1, 1, 0))
            frames += [_frame(Kind.PUSH, push, bytes(size + extra)), _frame(Kind.PULL, push)]
            frames.append(_frame(Kind.PUSH, push[:-1] + b"\0"))  # a slot of memory that nobody shares
            rows = pack_rows(Rows(generation, member, sequence, ()))
            frames += [_frame(Kind.ROWS, rows), _frame(Kind.FETCH, rows)]
            frames.append(_frame(Kind.HAVE, pack_have(Have(member, sequence))))
        frames += [_frame(Kind.RESULT, b'{"id":1}'), _frame(Kind.ERROR, b'{"id":1,"message":"x"}')]
        frames += [_frame(Kind.REACH, pack_reach(1 << 40)), _frame(Kind.TAKE, bytes(13))]
        return [*frames, _frame(Kind.CHALLENGE, bytes(32)), _frame(Kind.ANSWER, bytes(64)), _frame(Kind.WELCOME, b"x")]


def calls(honest, plan):
    """Returns every call there is, as it should be, but those that end or scale the job by right."""
    memory = {"state": 2, "parameters": 3 * CHUNK, "metrics": 2, "slots": 1}
    return [
        {"call": "attach", "member": 98, "generation": 1},
        {"call": "attach", "member": 98, "generation": 0},
        {"call": "share", "plan": memory},
        {"call": "set", "generation": 1, "member": honest},
        {"call": "join", "role": "evaluator", "index": 3},
        {"call": "join", "role": "ps", "index": 1, "restarts": 0},
        {"call": "describe", "plan": plan},
        {"call": "start"},
        {"call": "initialised"},
        {"call": "beat", "member": honest},
        {"call": "beat", "member": honest, "times": {"rounds": 1, "data": 0.1, "gradient": 0.1, "exchange": 0.1}},
        {"call": "remark", "text": "x"},
        {"call": "report", "step": 1, "commit": 0, "metrics": {"loss": 1.0}},
        {"call": "follow", "seen": 0},
        {"call": "commit"},
        {"call": "progress", "step": 1, "steps": 1},
        {"call": "evaluation"},
        {"call": "finalise"},
        {"call": "finalised", "export": "1", "metrics": {"loss": 1.0}},
        {"call": "outcome"},
        {"call": "leave", "reason": ""},
        {"call": "prepare", "generation": 9, "low": 0, "high": 1 << 50, "state": 1 << 50, "metrics": 1, "restore": -1},
        {"call": "cut", "number": 1, "table": [[1, 5]]},
        {"call": "hold"},
        {"call": "fence", "member": honest},
        {"call": "ping"},
        {"call": "written", "number": 0},
        {"call": "over"},
    ]


ODD = (None, True, -1, 0, 1, 2**31, 2**63, 2**70, 1.5, 1e300, "", "x", "1", "nan", [], [1], [[1, 2]], {}, {"a": 1})
"""Values that are not what a call expects, or hardly."""


def odd(values, rng):
    """Returns a call with a value somewhere in it, at any depth, left out or replaced."""
    inner = values
    while True:
        keys = list(inner) if isinstance(inner, dict) else range(len(inner))
        key = rng.choice(keys)
        if isinstance(inner[key], dict | list) and inner[key] and rng.random() < 0.7:
            inner = inner[key]
        elif rng.random() < 0.3 and isinstance(inner, dict):
            del inner[key]
            return values
        else:
            inner[key] = rng.choice(ODD)
            return values


def _frame(kind, meta=b"", payload=b""):
    return pack_header(kind, len(meta), len(payload)) + meta + payload


def _call(**values):
    return _frame(Kind.CALL, pack_json(values))
