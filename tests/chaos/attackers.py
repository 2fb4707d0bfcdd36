"""Those who attack real ps: each is a thread that opens connections and never does what is expected."""

from __future__ import annotations

import contextlib
import json
import os
import random
import socket
import threading
import time

from fuzzed_fleet import calls, odd
from fuzzed_ps import damaged

from tfleet.spec.layout import CHUNK
from tfleet.wire import auth
from tfleet.wire.address import Address
from tfleet.wire.client import Channel, ConnectionLost, authenticate
from tfleet.wire.frames import Kind, Push, pack_header, pack_json, pack_push

LINGER = 0.05
"""Seconds that an attacker waits for an answer."""


class Attacker(threading.Thread):
    """Attacks until it is told to stop.

    Attributes:
        count: of frames, or of connections where a connection is the attack.
        error: what went wrong in the attacker itself.
    """

    def __init__(self, hosts, token, seed, plan=None):
        super().__init__(daemon=True)
        self.count, self.error = 0, None
        self.rng = random.Random(f"{type(self).__name__} {seed}")
        self.stopped = threading.Event()
        self.plan = plan
        self._addresses = [Address.parse(host) for host in hosts]
        self._token = token

    def run(self):
        try:
            while not self.stopped.is_set():
                with contextlib.suppress(OSError, ConnectionLost):
                    self.attack()
        except Exception as error:
            self.error = error

    def attack(self):
        raise NotImplementedError

    def dial(self):
        return self.rng.choice(self._addresses).connect(5)

    def proven(self):
        """Returns a socket that has proven the token."""
        sock = self.dial()
        channel = Channel(sock, "")
        authenticate(channel, self._token)
        return sock


class Damaged(Attacker):
    """Proves the token, then sends damaged frames; sometimes hands over memory that is none."""

    def attack(self):
        with self.proven() as sock:
            sock.settimeout(LINGER)
            for _ in range(self.rng.randrange(1, 6)):
                self.count += 1
                if self.rng.random() < 0.1:
                    self.share(sock)
                else:
                    sock.sendall(self.frame())
            with contextlib.suppress(TimeoutError):
                sock.recv(1 << 16)

    def frame(self):
        values = json.loads(json.dumps(self.rng.choice(calls(1, self.plan))))
        if values["call"] == "attach":
            values["generation"] = 0
        elif self.rng.random() < 0.5:
            values = odd(values, self.rng)
        frames = [frame(Kind.CALL, pack_json(values))] * 3
        push = pack_push(Push(1, 99, 7, 1.0, 4, 0, 0, 0, 1, 1, 0))
        frames += [frame(Kind.PUSH, push, bytes(4 * CHUNK)), frame(Kind.PULL, push)]
        if self.rng.random() < 0.1:
            return self.rng.randbytes(self.rng.randrange(1, 300))
        chosen = self.rng.choice(frames)
        return damaged(chosen, self.rng) if self.rng.random() < 0.7 else chosen

    def share(self, sock):
        memory = {"state": 2, "parameters": 3 * CHUNK, "metrics": 2, "slots": self.rng.choice([1, 2, 0, 9])}
        if self.rng.random() < 0.5:
            memory[self.rng.choice(list(memory))] = self.rng.choice([-1, 0, 1 << 40, 1 << 70, None, "x"])
        sock.sendall(frame(Kind.CALL, pack_json({"call": "attach", "member": 77, "generation": 1})))
        sock.sendall(frame(Kind.CALL, pack_json({"call": "share", "plan": memory})))
        handle = os.memfd_create("none") if self.rng.random() < 0.7 else os.open(os.devnull, os.O_RDONLY)
        try:
            socket.send_fds(sock, [b"f"], [handle])
        finally:
            os.close(handle)


class Handshakes(Attacker):
    """Never proves the token: wrong proofs, rubbish, frames out of turn."""

    def attack(self):
        self.count += 1
        with self.dial() as sock:
            sock.settimeout(LINGER)
            nonce = sock.recv(16 + auth.NONCE)[16:]
            answer = bytearray(frame(Kind.ANSWER, bytes(32) + auth.prove(self._token, b"client", bytes(32), nonce)))
            how = self.rng.randrange(4)
            if how == 0:
                answer[-1 - self.rng.randrange(64)] ^= 1 << self.rng.randrange(8)
            elif how == 1:
                answer = bytearray(self.rng.randbytes(self.rng.randrange(600)))
            elif how == 2:
                answer = bytearray(frame(Kind.CALL, b'{"call":"end","how":"fail","reason":"x"}'))
            else:
                answer[4:16] = self.rng.randbytes(12)
            sock.sendall(answer)
            with contextlib.suppress(TimeoutError):
                sock.recv(1 << 16)


class Huge(Attacker):
    """Announces more than anybody may send, proven or not, and sends on until it is cut off."""

    def attack(self):
        self.count += 1
        with self.proven() if self.rng.random() < 0.7 else self.dial() as sock:
            sock.settimeout(5)
            meta = self.rng.choice([0, 100, 16 << 20, 1 << 31])
            head = pack_header(self.rng.choice(list(Kind)), meta, self.rng.choice([1 << 20, 1 << 33, (1 << 64) - 1]))
            sent = len(head)
            sock.sendall(head + bytes(min(meta, 1000)))
            with contextlib.suppress(OSError):
                while sent < 64 << 20:
                    sent += sock.send(bytes(1 << 16))
            # A meta of 16 MB is allowed, once the token is proven; of the payload nothing is taken.
            assert sent < 24 << 20, f"{sent} bytes were taken of a frame that is refused"


class Slow(Attacker):
    """Answers the challenge, or sends a push, byte by byte; is cut off when it has proven nothing in time."""

    def attack(self):
        self.count += 1
        with self.dial() as sock:
            began = time.monotonic()
            data = frame(Kind.ANSWER, bytes(64))
            with contextlib.suppress(OSError):
                for byte in data[:-1]:
                    sock.sendall(bytes([byte]))
                    if self.stopped.wait(0.2):
                        return
                raise AssertionError(f"a byte each 0.2 s was listened to for {time.monotonic() - began:.1f} s")


def frame(kind, meta=b"", payload=b""):
    return pack_header(kind, len(meta), len(payload)) + meta + payload
