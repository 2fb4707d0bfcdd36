"""How a connection with TLS begins at the server's end: the handshake, without blocking."""

from __future__ import annotations

import contextlib
import socket
import ssl
from collections.abc import Callable
from selectors import EVENT_READ, EVENT_WRITE

from tfleet.spec.errors import ExitCode
from tfleet.wire.frames import Kind, pack_header, pack_json
from tfleet.wire.loop import Loop
from tfleet.wire.tls import Tls, TlsSocket

HANDSHAKE = 22
"""The first byte that a TLS client sends: the type of its record."""
LEFT = 1 << 16
"""Bytes that are thrown away of what somebody who is refused has sent."""
PLAIN = "this ps speaks TLS only; give tls_cert, tls_key and tls_ca of the job"


class Opening:
    """A connection whose TLS handshake is under way.

    Args:
        loop: that the server runs in.
        sock: just accepted.
        tls: of the job.
        done: gets the socket after the handshake.
        refused: gets a sentence about who was refused.
        closed: is told that it was closed before it was done.

    Raises:
        OSError: when the connection is lost already.
    """

    def __init__(
        self,
        loop: Loop,
        sock: socket.socket,
        tls: Tls,
        done: Callable[[Opening, TlsSocket], None],
        refused: Callable[[Opening, str], None],
        closed: Callable[[Opening], None],
    ) -> None:
        self._loop = loop
        self._tls = tls
        self._done = done
        self._refused = refused
        self._on_close = closed
        self._begun = False
        self._closed = False
        self._sock = tls.accept(sock)
        loop.watch(self._sock, EVENT_READ, self._ready)

    def close(self) -> None:
        """Closes the connection and tells so; the second time nothing happens."""
        if not self._closed:
            self.drop()
            self._on_close(self)

    def drop(self) -> None:
        """Closes the connection and tells nobody."""
        if not self._closed:
            self._leave()
            self._sock.close()

    def _leave(self) -> None:
        self._closed = True
        self._loop.watch(self._sock, 0, self._ready)

    def _ready(self, _events: int) -> None:
        try:
            if not self._begun:
                self._look()
            self._sock.do_handshake()
        except _Plain:
            with contextlib.suppress(OSError):
                socket.socket.send(self._sock, _error_frame(PLAIN))
            self._refuse("it does not speak TLS; give it tls_cert, tls_key and tls_ca of the job")
        except (ssl.SSLWantReadError, BlockingIOError):
            self._loop.watch(self._sock, EVENT_READ, self._ready)
        except ssl.SSLWantWriteError:
            self._loop.watch(self._sock, EVENT_WRITE, self._ready)
        except (ssl.SSLEOFError, ssl.SSLZeroReturnError, ssl.SSLSyscallError):
            self._refuse("")
        except ssl.SSLError as error:
            self._refuse(self._tls.why_not(error))
        except OSError:
            self._refuse("")
        else:
            self._leave()
            self._done(self, self._sock)

    def _look(self) -> None:
        """Looks at the first byte, and leaves it there: who does not speak TLS is answered as he can understand."""
        first = socket.socket.recv(self._sock, 1, socket.MSG_PEEK)
        if first and first[0] != HANDSHAKE:
            raise _Plain
        self._begun = True

    def _refuse(self, sentence: str) -> None:
        with contextlib.suppress(OSError):  # closed with something unread it would be reset, and what it said lost
            socket.socket.recv(self._sock, LEFT)
        if sentence:
            self._refused(self, sentence)
        self.close()


class _Plain(Exception):
    """The client does not speak TLS."""


def _error_frame(sentence: str) -> bytes:
    meta = pack_json({"message": sentence, "exit_code": int(ExitCode.WRONG_INPUT)})
    return pack_header(Kind.ERROR, len(meta), 0) + meta
