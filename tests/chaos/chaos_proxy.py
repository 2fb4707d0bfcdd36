"""A proxy that replicas connect through, so that one of them can be cut off: its packets stay where they are.

A cut freezes every connection of that replica, both ways; new ones are taken, but nothing comes through. When it is
over all that was sent meanwhile arrives, as after a network that was down: also what is too late by then.
"""

from __future__ import annotations

import contextlib
import socket
import threading
import time

from tfleet.wire.address import Address, tune

CHUNK = 1 << 16
PREFACE = 64
"""Bytes that a replica sends first: its name and the address that it wants, padded by spaces."""


class Proxy:
    """Listens on loopback until it is closed; a context manager.

    Attributes:
        address: HOST:PORT.
        names: of the replicas that listen, by address; filled in as they are cut off by name.
    """

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._listener.getsockname()[1]}"
        self._changed = threading.Condition()
        self._cut: set[str] = set()
        self._open: set[socket.socket] = set()
        self._closed = False
        threading.Thread(target=self._accept, daemon=True).start()

    def cut(self, *ends: str) -> None:
        """Freezes connections of which an end is one of these: a replica such as `worker-1`, or an address."""
        with self._changed:
            self._cut.update(ends)

    def heal(self, *ends: str) -> None:
        """Lets go what was frozen."""
        with self._changed:
            self._cut.difference_update(ends)
            self._changed.notify_all()

    def close(self) -> None:
        """Ends every connection."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
            sockets, self._open = [*self._open, self._listener], set()
        for sock in sockets:
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
            sock.close()

    def __enter__(self) -> Proxy:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _accept(self) -> None:
        while True:
            try:
                caller, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(caller,), daemon=True).start()

    def _serve(self, caller: socket.socket) -> None:
        with contextlib.suppress(OSError, ValueError):
            preface = b""
            while len(preface) < PREFACE:
                more = caller.recv(PREFACE - len(preface))
                if not more:
                    caller.close()
                    return
                preface += more
            name, address = preface.decode().split()
            self._wait(name, address)
            called = self._reach(Address.parse(address))
            if called is None:
                caller.close()
                return
            self._open |= {tune(caller), called}
            for source, target in ((caller, called), (called, caller)):
                threading.Thread(target=self._pump, args=(source, target, name, address), daemon=True).start()

    def _reach(self, address: Address) -> socket.socket | None:
        with contextlib.suppress(OSError):
            sock = address.connect(5.0)
            sock.settimeout(None)
            return sock
        return None

    def _pump(self, source: socket.socket, target: socket.socket, *ends: str) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(CHUNK):
                self._wait(*ends)
                target.sendall(data)
            self._wait(*ends)
        for sock in (source, target):
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
        time.sleep(0)
        self._open -= {source, target}
        # Closed by whoever is last: until then the other thread may still use the number.
        with contextlib.suppress(OSError):
            source.close()

    def _wait(self, *ends: str) -> None:
        with self._changed:
            self._changed.wait_for(lambda: self._closed or not self._cut & set(ends))
