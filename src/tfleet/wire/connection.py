"""The server's end of a connection: reads and writes frames without blocking."""

from __future__ import annotations

import contextlib
import socket
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable
from selectors import EVENT_READ, EVENT_WRITE
from typing import Any

from tfleet.spec.errors import ExitCode
from tfleet.wire.address import send_parts
from tfleet.wire.frames import (
    HEADER,
    META_LIMIT,
    UNPROVEN_META,
    VERSION,
    Header,
    Kind,
    ProtocolError,
    WrongVersion,
    pack_header,
    pack_json,
    unpack_header,
    versions_differ,
)
from tfleet.wire.inbox import Inbox
from tfleet.wire.loop import Loop

BACKLOG_LIMIT = 64
"""Buffers (up to three a frame) that may wait for one slow reader before it counts as gone."""
NOTHING = memoryview(b"")
_UNPROVEN = (Kind.HELLO, Kind.ANSWER)


class Handler(ABC):
    """What a server does with frames. All methods run in the loop's thread and do not block."""

    @abstractmethod
    def admit(self, connection: Connection, header: Header, meta: bytearray) -> memoryview | None:
        """Decides about a frame before its payload is read.

        Returns:
            A buffer of exactly `header.payload` bytes, or None to leave the payload unread for now: the connection
            pauses until `Connection.retry` asks again.

        Raises:
            ProtocolError: when the frame is not allowed; the connection is closed.
        """

    @abstractmethod
    def frame(self, connection: Connection, header: Header, meta: bytearray, payload: memoryview) -> None:
        """Takes a whole frame; `payload` is what `admit` returned, filled."""

    @abstractmethod
    def closed(self, connection: Connection, payload: memoryview | None) -> None:
        """Is told that a proven connection is gone; `payload` is an admitted buffer that was not filled."""


class Connection:
    """One non-blocking connection.

    Attributes:
        owner: whatever the handler wants to remember of the peer.
        memory: likewise, of memory that it shares with the peer.
        asked: likewise, of the frame that it was asked to admit.
        proven: whether the peer has proven the token.
    """

    def __init__(
        self, loop: Loop, sock: socket.socket, handler: Handler, proven: bool, inbox: Inbox | None = None
    ) -> None:
        self.owner: Any = None
        self.memory: Any = None
        self.asked: Any = None
        self.proven = proven
        self.closed = False
        self._loop = loop
        self._sock = sock
        self._handler = handler
        self._queue: deque[memoryview] = deque()
        self._header: Header | None = None
        self._meta: bytearray | None = None
        self._payload: memoryview | None = None
        self._head_bytes = bytearray(HEADER.size)
        self._target = memoryview(self._head_bytes)
        self._inbox = inbox or Inbox()
        self._pending: Callable[[], int] = getattr(sock, "pending", _none)  # what TLS has decrypted, and nobody read
        self._on_descriptor: Callable[[int], None] | None = None
        self._paused = False
        self.on_unproven: Callable[[Connection, Header, bytearray], None] | None = None
        self.on_close: Callable[[Connection], None] | None = None
        self.on_refused: Callable[[Connection, str], None] | None = None
        sock.setblocking(False)
        self._watch()
        if self._ahead:
            loop.call_later(0, self._read_ahead)

    def expect_descriptor(self, callback: Callable[[int], None]) -> None:
        """Takes the next thing that the peer sends for a file descriptor, and hands it to `callback`."""
        self._on_descriptor = callback

    def send(self, kind: Kind, meta: bytes = b"", *payload: memoryview) -> None:
        """Sends a frame; what the system does not take now is kept by reference and sent later.

        A payload that changes meanwhile is sent as it is then. A peer that does not read is dropped.
        """
        if self.closed:
            return
        views = [view.cast("B") for view in payload if view.nbytes]
        size = sum(len(view) for view in views)
        parts: list[memoryview] = [memoryview(pack_header(kind, len(meta), size) + meta), *views]
        if not self._queue:
            parts = self._send_now(parts)
        if not parts or self.closed:
            return
        self._queue.extend(parts)
        if len(self._queue) > BACKLOG_LIMIT:
            self._close_soon()
        else:
            self._watch()

    def result(self, values: dict[str, Any], *payload: memoryview) -> None:
        """Answers a CALL."""
        self.send(Kind.RESULT, pack_json(values), *payload)

    def error(self, message: str, exit_code: int = ExitCode.FAILED, **values: Any) -> None:
        """Answers a CALL with an error for the peer to raise; `values` go along."""
        self.send(Kind.ERROR, pack_json({"message": message, "exit_code": int(exit_code), **values}))

    def retry(self) -> None:
        """Asks the handler again about the frame that `admit` left waiting."""
        if self._paused and not self.closed:
            self._paused = False
            self._guard(self._admit)
            if not self.closed:
                self._watch()
                self._read_ahead()

    def close(self) -> None:
        """Closes the connection and tells the handler; the second time nothing happens."""
        if self.closed:
            return
        payload = self._payload
        self.drop()
        if self.on_close:
            self.on_close(self)
        if self.proven:
            self._handler.closed(self, payload)

    def drop(self) -> None:
        """Closes the connection and tells nobody."""
        if self.closed:
            return
        self.closed = True
        self._loop.watch(self._sock, 0, self._ready)
        with contextlib.suppress(OSError):
            self._sock.close()
        self._header = self._meta = self._payload = None  # who remembers the connection keeps no buffers by it
        self._target = NOTHING
        self._queue.clear()
        self.memory = None

    @property
    def _ahead(self) -> bool:
        """Whether something was read that the selector does not know of."""
        return self._inbox.full or bool(self._pending())

    def _watch(self) -> None:
        events = (0 if self._paused else EVENT_READ) | (EVENT_WRITE if self._queue else 0)
        self._loop.watch(self._sock, events, self._ready)

    def _ready(self, events: int) -> None:
        if events & EVENT_WRITE:
            self._flush()
        if events & EVENT_READ and not self.closed:
            self._guard(self._read)

    def _guard(self, action: Callable[[], None]) -> None:
        try:
            action()
        except ProtocolError as error:
            sentence = versions_differ(error.version, VERSION) if isinstance(error, WrongVersion) else str(error)
            self.error(sentence, ExitCode.WRONG_INPUT)
            if self.on_refused and not self.proven:
                self.on_refused(self, sentence)
            self.close()

    def _read(self) -> None:
        # At most what was read at once, so that a peer that never stops sending does not keep the others waiting.
        delivered = False
        while self._receive(only_ahead=delivered):
            self._advance()
            if self.closed or self._paused:
                return
            delivered = delivered or self._header is None

    def _read_ahead(self) -> None:
        if not self.closed and not self._paused and self._ahead:
            self._guard(self._read)

    def _receive(self, *, only_ahead: bool) -> bool:
        try:
            if self._on_descriptor:
                self._take_descriptor()
                return False
            while self._target:
                if only_ahead and not self._ahead:
                    return False
                self._target = self._inbox.fill(self._target, self._sock.recv_into)
                if self._inbox.ended:
                    self.close()
                    return False
        except (BlockingIOError, InterruptedError):
            return False
        except OSError:
            self.close()
            return False
        return True

    def _take_descriptor(self) -> None:
        _, descriptors, _, _ = socket.recv_fds(self._sock, 1, 1)
        callback, self._on_descriptor = self._on_descriptor, None
        if callback and descriptors:
            callback(descriptors[0])
        else:
            self.close()

    def _advance(self) -> None:
        if self._header is None:
            self._header = unpack_header(self._head_bytes, META_LIMIT if self.proven else UNPROVEN_META)
            if not self.proven and (self._header.payload or self._header.kind not in _UNPROVEN):
                raise ProtocolError("prove the token first")
            self._meta = bytearray(self._header.meta)
            self._target = memoryview(self._meta)
        elif self._payload is None:
            self._admit()
        else:
            self._deliver()

    def _admit(self) -> None:
        assert self._header is not None
        assert self._meta is not None
        payload = self._handler.admit(self, self._header, self._meta) if self.proven else NOTHING
        if payload is None:
            self._paused = True
            self._watch()
            return
        self._payload = payload
        self._target = payload
        if not payload:
            self._deliver()

    def _deliver(self) -> None:
        header, meta, payload = self._header, self._meta, self._payload
        assert header is not None
        assert meta is not None
        assert payload is not None
        self._header = self._meta = self._payload = None
        self._target = memoryview(self._head_bytes)
        if self.proven:
            self._handler.frame(self, header, meta, payload)
        elif self.on_unproven:
            self.on_unproven(self, header, meta)

    def _send_now(self, parts: list[memoryview]) -> list[memoryview]:
        try:
            send_parts(self._sock, parts)
        except (BlockingIOError, InterruptedError):
            pass
        except OSError:
            self._close_soon()
        return parts

    def _close_soon(self) -> None:
        # Closing at once would run the handler in the middle of whatever it is doing now.
        self._loop.call_later(0, self.close)

    def _flush(self) -> None:
        left = self._send_now(list(self._queue))
        self._queue = deque(left)
        if not self.closed:
            self._watch()


def _none() -> int:
    return 0
