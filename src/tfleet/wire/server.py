"""The server end: accepts connections, authenticates them, and reads and writes frames without blocking."""

from __future__ import annotations

import contextlib
import socket
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable
from selectors import EVENT_READ, EVENT_WRITE
from typing import TYPE_CHECKING, Any

from tfleet.spec.errors import ExitCode
from tfleet.wire import auth
from tfleet.wire.address import send_parts, tune
from tfleet.wire.frames import (
    HEADER,
    META_LIMIT,
    UNPROVEN_META,
    VERSION,
    Header,
    Kind,
    ProtocolError,
    WrongPeer,
    WrongVersion,
    pack_header,
    pack_json,
    unpack_header,
    versions_differ,
)
from tfleet.wire.inbox import Inbox
from tfleet.wire.loop import Loop

if TYPE_CHECKING:
    from tfleet.wire.opening import Opening
    from tfleet.wire.tls import Tls, TlsSocket

SILENT_SECONDS = 5.0
"""A connection that has not proven the token after so many seconds is closed."""
SILENT_LIMIT = 256
"""So many unproven connections at once; one more closes the oldest."""
BACKLOG_LIMIT = 64
"""Buffers (up to three a frame) that may wait for one slow reader before it counts as gone."""
REFUSALS_TOLD = 32
"""So many refusals of one generation are logged: who keeps trying must not fill a disk."""
NOTHING = memoryview(b"")


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


_UNPROVEN = (Kind.HELLO, Kind.ANSWER)


def _none() -> int:
    return 0


class Server:
    """Accepts and authenticates connections on one listening socket.

    Args:
        loop: to run in.
        listener: a listening socket that does not block.
        token: of the job.
        handler: gets the frames of those who have proven it.
        tls: certificates for connections by TCP; None, or for a Unix socket: there is no TLS.
        tell: logs a sentence about somebody who was refused.
    """

    def __init__(
        self,
        loop: Loop,
        listener: socket.socket,
        token: bytes,
        handler: Handler,
        tls: Tls | None = None,
        tell: Callable[[str], None] | None = None,
    ) -> None:
        self._loop = loop
        self._listener = listener
        self._token = token
        self._handler = handler
        self._tls = tls if listener.family != socket.AF_UNIX else None
        self._tell = tell or _print
        self._told: set[str] = set()
        self._unproven: dict[Connection | Opening, bytes] = {}
        self._hosts: dict[Connection | Opening, str] = {}
        self._open: set[Connection] = set()
        loop.watch(listener, EVENT_READ, self._accept)

    @property
    def unproven(self) -> int:
        """How many connections have not proven the token yet."""
        return len(self._unproven)

    def close(self) -> None:
        """Stops listening; open connections stay."""
        self._loop.watch(self._listener, 0, self._accept)
        self._listener.close()

    def end(self) -> None:
        """Accepts nothing more and drops every connection; the listening socket stays as it is, for another server."""
        self._loop.watch(self._listener, 0, self._accept)
        for connection in {*self._open, *self._unproven}:
            connection.drop()
        self._open.clear()
        self._unproven.clear()
        self._hosts.clear()

    def adopt(self, sock: socket.socket, inbox: Inbox | None = None) -> Connection:
        """Takes a socket that was connected and authenticated elsewhere, with what was read ahead from it."""
        connection = Connection(self._loop, sock, self._handler, proven=True, inbox=inbox)
        self._open.add(connection)
        return connection

    def _accept(self, _events: int) -> None:
        try:
            sock, address = self._listener.accept()
        except OSError:
            return
        if len(self._unproven) >= SILENT_LIMIT:
            next(iter(self._unproven)).close()
        end, host = self._loop.now() + SILENT_SECONDS, str(address[0]) if isinstance(address, tuple) else ""
        if self._tls is None:
            self._challenge(tune(sock), host, end)
        else:
            self._open_tls(tune(sock), host, end)

    def _open_tls(self, sock: socket.socket, host: str, end: float) -> None:
        from tfleet.wire.opening import Opening  # only here: a ps without TLS starts sooner

        assert self._tls is not None

        def done(opening: Opening, secure: TlsSocket) -> None:
            self._forget(opening)
            self._challenge(secure, host, end)

        try:
            opening = Opening(self._loop, sock, self._tls, done, self._refused, self._forget)
        except OSError:
            sock.close()
            return
        self._await(opening, host, b"", end)

    def _challenge(self, sock: socket.socket, host: str, end: float) -> None:
        connection = Connection(self._loop, sock, self._handler, proven=False)
        connection.on_unproven = self._answered
        connection.on_refused = self._refused
        connection.on_close = self._forget
        self._open.add(connection)
        nonce = auth.nonce()
        self._await(connection, host, nonce, end)
        connection.send(Kind.CHALLENGE, nonce)

    def _await(self, who: Connection | Opening, host: str, nonce: bytes, end: float) -> None:
        self._unproven[who] = nonce
        self._hosts[who] = host
        self._loop.call_later(max(0.0, end - self._loop.now()), lambda: self._expire(who))

    def _forget(self, who: Connection | Opening) -> None:
        self._unproven.pop(who, None)
        self._hosts.pop(who, None)
        self._open.discard(who)

    def _expire(self, who: Connection | Opening) -> None:
        if who in self._unproven:
            who.close()

    def _refused(self, who: Connection | Opening, sentence: str) -> None:
        line = f"refused a connection from {self._hosts.get(who) or 'this machine'}: {sentence}"
        if line not in self._told and len(self._told) < REFUSALS_TOLD:
            self._told.add(line)
            self._tell(line)

    def _answered(self, connection: Connection, header: Header, meta: bytearray) -> None:
        if header.kind is Kind.HELLO:  # it is there for the version in its header, and for who expects TLS
            return
        server = self._unproven[connection]
        client, proof = bytes(meta[: auth.NONCE]), bytes(meta[auth.NONCE :])
        if len(client) != auth.NONCE or not auth.proven(self._token, b"client", client, server, proof):
            raise WrongPeer("wrong token: give the token file of this job")
        del self._unproven[connection]
        del self._hosts[connection]
        connection.proven = True
        connection.send(Kind.WELCOME, auth.prove(self._token, b"server", client, server))


def _print(sentence: str) -> None:
    print(f"tfleet: {sentence}", flush=True)
