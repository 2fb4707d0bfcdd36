"""The server end: accepts connections, has them open TLS where the job has it, and authenticates them."""

from __future__ import annotations

import socket
from collections.abc import Callable
from selectors import EVENT_READ
from typing import TYPE_CHECKING

from tfleet.wire import auth
from tfleet.wire.address import tune
from tfleet.wire.connection import BACKLOG_LIMIT, NOTHING, Connection, Handler
from tfleet.wire.frames import Header, Kind, WrongPeer
from tfleet.wire.inbox import Inbox
from tfleet.wire.loop import Loop

if TYPE_CHECKING:
    from tfleet.wire.opening import Opening
    from tfleet.wire.tls import Tls, TlsSocket

__all__ = ["BACKLOG_LIMIT", "NOTHING", "Connection", "Handler", "Server"]

SILENT_SECONDS = 5.0
"""A connection that has not proven the token after so many seconds is closed."""
SILENT_LIMIT = 256
"""So many unproven connections at once; one more closes the oldest."""
REFUSALS_TOLD = 32
"""So many refusals of one generation are logged: who keeps trying must not fill a disk."""


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
