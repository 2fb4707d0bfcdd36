"""The client end of a connection: blocking sockets, for workers and for commands that talk to a job."""

from __future__ import annotations

import contextlib
import socket
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

from tfleet.spec.errors import JobFailed, WrongInput, error_for
from tfleet.wire import auth
from tfleet.wire.address import Address, send_parts
from tfleet.wire.frames import (
    HEADER,
    META_LIMIT,
    UNPROVEN_META,
    VERSION,
    Kind,
    ProtocolError,
    WrongPeer,
    WrongVersion,
    pack_header,
    pack_json,
    unpack_header,
    unpack_json,
    versions_differ,
)
from tfleet.wire.inbox import Inbox

if TYPE_CHECKING:
    from tfleet.wire.tls import Tls

Buffer = bytes | bytearray | memoryview
TRY = 5.0
"""Seconds for one try to connect and prove the token."""
LONGEST_PAUSE = 0.3
"""Seconds between two tries at most: so long a job may stand still although its ps is back."""
PAYLOAD_LIMIT = 1 << 34
"""Bytes of payload that a client takes from a proven peer."""


class ConnectionLost(JobFailed):
    """The peer closed the connection or did not answer in time."""


class Frame(NamedTuple):
    """A received frame."""

    kind: Kind
    meta: bytearray
    payload: memoryview


class Channel:
    """A connected, blocking connection; `authenticate` comes first.

    Not safe for use by several threads at once.

    Attributes:
        proven: whether the peer has proven the token; until then it may only send small frames.
    """

    def __init__(self, sock: socket.socket, peer: str) -> None:
        self.proven = False
        self._sock = sock
        self._peer = peer
        self._header = bytearray(HEADER.size)
        self._inbox = Inbox()

    @property
    def local(self) -> bool:
        """Whether the peer is on this machine and can be handed file descriptors."""
        return self._sock.family == socket.AF_UNIX

    def send_descriptor(self, fd: int) -> None:
        """Hands a file descriptor to the peer, which must expect it.

        Raises:
            ConnectionLost: when the peer is gone.
        """
        try:
            socket.send_fds(self._sock, [b"f"], [fd])
        except OSError as error:
            raise self._lost(error) from None

    def send(self, kind: Kind, meta: Buffer = b"", *payload: Buffer) -> None:
        """Sends one frame; blocks until the system has taken all of it.

        Args:
            kind: of the frame.
            meta: packed meta.
            payload: buffers that make up the payload, in order; not copied.

        Raises:
            ConnectionLost: when the peer is gone.
        """
        try:
            if not payload:
                self._sock.sendall(pack_header(kind, len(meta), 0) + meta)
                return
            views = [memoryview(part).cast("B") for part in payload if len(part)]
            size = sum(len(view) for view in views)
            send_parts(self._sock, [memoryview(pack_header(kind, len(meta), size) + meta), *views])
        except OSError as error:
            raise self._lost(error) from None

    def receive(self, into: memoryview | None = None) -> Frame:
        """Blocks for one frame.

        Args:
            into: where a payload of exactly this size goes; another size gets memory of its own.

        Raises:
            ConnectionLost: when the peer is gone or silent for longer than the timeout.
            ProtocolError: when it is no valid frame.
        """
        self._fill(memoryview(self._header))
        header = unpack_header(self._header, META_LIMIT if self.proven else UNPROVEN_META)
        if header.payload > (PAYLOAD_LIMIT if self.proven else 0):
            raise ProtocolError(f"a frame with {header.payload} bytes of payload")
        meta = bytearray(header.meta)
        self._fill(memoryview(meta))
        payload = into if into is not None and len(into) == header.payload else memoryview(bytearray(header.payload))
        self._fill(payload)
        return Frame(header.kind, meta, payload)

    def call(self, name: str, payload: Buffer = b"", **values: Any) -> tuple[dict[str, Any], memoryview]:
        """Calls a procedure of the peer and blocks for its result.

        Returns:
            The result's values and payload.

        Raises:
            TfleetError: what the peer answered with, with its exit code.
            ConnectionLost: when the peer is gone.
        """
        self.send(Kind.CALL, pack_json({"call": name, **values}), payload)
        frame = self.receive()
        return self.result(frame), frame.payload

    def result(self, frame: Frame) -> dict[str, Any]:
        """Returns the values of a RESULT frame, or raises what an ERROR frame says."""
        values = unpack_json(frame.meta)
        if frame.kind is Kind.ERROR:
            raise error_for(int(values.get("exit_code", 1)), str(values.get("message", "")))
        if frame.kind is not Kind.RESULT:
            raise ProtocolError(f"{self._peer} answered with {frame.kind.name} instead of a result")
        return values

    def set_timeout(self, seconds: float | None) -> None:
        """Limits how long `send` and `receive` block without progress; None: for ever."""
        self._sock.settimeout(seconds)

    def detach(self) -> tuple[socket.socket, Inbox]:
        """Gives the socket away, with what was read ahead from it; the channel is not used any more."""
        return self._sock, self._inbox

    def abort(self) -> None:
        """Makes a thread that blocks in `send` or `receive` raise `ConnectionLost`; never raises, for any thread."""
        with contextlib.suppress(OSError):
            self._sock.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Closes the connection; never raises."""
        with contextlib.suppress(OSError):
            self._sock.close()

    def _fill(self, view: memoryview) -> None:
        try:
            while view:
                view = self._inbox.fill(view, self._sock.recv_into)
                if self._inbox.ended:
                    raise ConnectionLost(f"{self._peer} closed the connection")
        except OSError as error:
            raise self._lost(error) from None

    def _lost(self, error: OSError) -> ConnectionLost:
        reason = "did not answer in time" if isinstance(error, TimeoutError) else (error.strerror or str(error))
        return ConnectionLost(f"the connection to {self._peer} is lost: {reason}")


def authenticate(channel: Channel, token: bytes) -> None:
    """Proves the token to the peer and has the peer prove it; blocks for a round trip.

    Raises:
        WrongInput: when the peer does not know the same token, or refuses this end.
        WrongPeer: when it speaks another protocol, another version, or TLS.
        ConnectionLost: when the peer closes the connection.
    """
    try:
        channel.send(Kind.HELLO)  # its header says the version, and a ps that expects TLS sees that this is none
    except ConnectionLost as lost:
        challenge = _last_word(channel, lost)
    else:
        challenge = _first(channel)
    if challenge.kind is Kind.ERROR:
        channel.result(challenge)
    if challenge.kind is not Kind.CHALLENGE or len(challenge.meta) != auth.NONCE:
        raise ProtocolError("the peer did not start with a challenge")
    server, client = bytes(challenge.meta), auth.nonce()
    channel.send(Kind.ANSWER, client + auth.prove(token, b"client", client, server))
    welcome = channel.receive()
    if welcome.kind is Kind.ERROR:
        channel.result(welcome)
    if welcome.kind is not Kind.WELCOME or not auth.proven(token, b"server", client, server, bytes(welcome.meta)):
        raise WrongInput("the peer does not know this job's token; give the token file of that job")
    channel.proven = True


def _first(channel: Channel) -> Frame:
    try:
        return channel.receive()
    except WrongVersion as error:
        raise WrongPeer(versions_differ(VERSION, error.version)) from None


def _last_word(channel: Channel, lost: ConnectionLost) -> Frame:
    """Returns what a peer has said that is gone already, such as why it refuses this end."""
    try:
        return _first(channel)
    except ConnectionLost:
        raise lost from None


def connect(
    address: Address,
    token: bytes,
    *,
    patience: float,
    tls: Tls | None = None,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> Channel:
    """Connects and authenticates; tries again (resolving the name again) until it works or patience ends.

    Args:
        address: of the peer.
        token: the job's.
        patience: seconds to keep trying; 0: one try.
        tls: certificates for a connection by TCP; None, or for a Unix socket: there is no TLS.
        clock: time in seconds.
        sleep: waits so many seconds.

    Raises:
        ConnectionLost: when nobody answered within `patience`.
        WrongInput: when somebody answered who does not know the token, or whose certificate is not valid.
        WrongPeer: when somebody answered who speaks another protocol, another version, or TLS where this end does not.
    """
    end = clock() + patience
    delay = 0.01
    while True:
        try:
            sock = address.connect(TRY)
            if tls is not None and not address.path:
                sock = tls.connect(sock, address.host, str(address))
            channel = Channel(sock, str(address))
            try:
                authenticate(channel, token)
            except BaseException:
                channel.close()
                raise
            channel.set_timeout(None)
            return channel
        except (OSError, ConnectionLost) as error:
            if clock() >= end:
                raise ConnectionLost(f"nobody answers at {address}: {error}") from None
        sleep(delay)
        delay = min(delay * 1.5, LONGEST_PAUSE)
