"""Both ends of a connection for tests: a handler that echoes, a clock, a loop that is stepped or has a thread."""

import contextlib
import itertools
import os
import socket
import threading

from tfleet.wire import auth
from tfleet.wire.address import Address
from tfleet.wire.client import Channel
from tfleet.wire.frames import HEADER, Kind, ProtocolError, pack_header, unpack_header, unpack_json
from tfleet.wire.loop import Loop
from tfleet.wire.server import NOTHING, Connection, Handler, Server

TOKEN = b"secret of this job"
_names = itertools.count()


class Clock:
    """Time that passes when told."""

    def __init__(self):
        self.time = 100.0

    def __call__(self):
        return self.time


class Echo(Handler):
    """Sends back what it gets; a frame of kind PUSH waits while `full`."""

    def __init__(self):
        self.full = False
        self.limit = 1 << 30
        self.frames = []
        self.closings = []
        self.connections = []
        self.on_frame = None

    def admit(self, connection, header, meta):
        if connection not in self.connections:
            self.connections.append(connection)
        if header.payload > self.limit:
            raise ProtocolError(f"{header.payload} bytes are too many")
        if header.kind is Kind.PUSH and self.full:
            return None
        return memoryview(bytearray(header.payload)) if header.payload else NOTHING

    def frame(self, connection, header, meta, payload):
        self.frames.append((header.kind, bytes(meta), len(payload)))
        if self.on_frame:
            self.on_frame(connection)
        if header.kind is Kind.CALL and unpack_json(meta).get("call") == "fail":
            connection.error("it failed; try again", 2)
        elif header.kind is Kind.CALL:
            connection.result(unpack_json(meta), payload)
        else:
            connection.send(header.kind, bytes(meta), payload)

    def closed(self, connection, payload):
        self.closings.append((connection, None if payload is None else len(payload)))


def address():
    """Returns an abstract Unix address that nobody else uses."""
    return Address(path=f"@tfleet-test-{os.getpid()}-{next(_names)}")


def tcp_address():
    """Returns a TCP address on loopback whose port was free a moment ago."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return Address("127.0.0.1", probe.getsockname()[1])


class Stepped:
    """A server whose loop is stepped by the test, with a clock of its own."""

    def __init__(self, handler=None, tls=None):
        self.clock = Clock()
        self.loop = Loop(self.clock)
        self.handler = handler or Echo()
        self.address = tcp_address() if tls else address()
        self.told = []
        self.server = Server(self.loop, self.address.listen(), TOKEN, self.handler, tls, self.told.append)
        self.sockets = []

    def step(self, turns=4):
        for _ in range(turns):
            self.loop.turn(0)

    def dial(self):
        """Returns a connected socket that has proven nothing."""
        sock = self.address.connect(5)
        sock.setblocking(False)
        self.sockets.append(sock)
        return sock

    def adopt(self):
        """Returns the other end of a connection that counts as proven."""
        here, there = socket.socketpair()
        connection = self.server.adopt(here)
        there.setblocking(False)
        self.sockets.append(there)
        return connection, there

    def prove(self, sock, token=TOKEN):
        """Does the client's part of authentication; returns the server's answer."""
        challenge = frame_of(sock)
        client = auth.nonce()
        sock.sendall(frame(Kind.ANSWER, client + auth.prove(token, b"client", client, challenge[1])))
        self.step()
        return frame_of(sock)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.server.close()
        for sock in self.sockets:
            sock.close()
        self.step()
        self.loop.close()


def frame(kind, meta=b"", payload=b""):
    """Returns the bytes of a frame."""
    return pack_header(kind, len(meta), len(payload)) + meta + payload


def frame_of(sock):
    """Reads one frame that has arrived: (kind, meta, payload); None at the end of the connection."""
    head = read(sock, HEADER.size)
    if head is None:
        return None
    header = unpack_header(head)
    return header.kind, read(sock, header.meta), read(sock, header.payload)


def read(sock, count):
    data = b""
    while len(data) < count:
        more = sock.recv(count - len(data))
        if not more:
            return None
        data += more
    return data


def ended(sock):
    """Tells whether the other end has closed, whatever it said before."""
    try:
        while sock.recv(1 << 16):
            pass
    except BlockingIOError:
        return False
    except ConnectionError:  # it had not read all that was sent
        pass
    return True


@contextlib.contextmanager
def served(kind="unix", handler=None, tls=None, told=None):
    """Runs an echo server in a thread; gives (address or socket, handler, loop).

    Args:
        kind: unix, tcp, tls (by TCP), or pair: a socket that counts as proven.
        handler: another than one that echoes.
        tls: other certificates than good ones.
        told: list that gets what the server logs.
    """
    loop, handler = Loop(), handler or Echo()
    where, there = None, None
    tls = tls or tls_for(kind)
    if kind == "pair":
        here, there = socket.socketpair()
        Connection(loop, here, handler, proven=True)
    else:
        where = address() if kind == "unix" else tcp_address()
        server = Server(loop, where.listen(), TOKEN, handler, tls, (told if told is not None else []).append)
    thread = threading.Thread(target=loop.run)
    thread.start()
    try:
        yield (there or where), handler, loop
    finally:
        loop.call_from_thread(loop.stop)
        thread.join(20)
        assert not thread.is_alive()
        if kind != "pair":
            server.close()
        loop.close()


def tls_for(kind):
    """Returns the certificates of a kind of connection; None but for tls."""
    if kind != "tls":
        return None
    import certificates  # only here: those that need none start sooner

    return certificates.tls()


def channel_over(where, tls=None):
    """Returns a channel to a `served` echo."""
    if isinstance(where, Address):
        from tfleet.wire.client import connect

        return connect(where, TOKEN, patience=0, tls=tls)
    channel = Channel(where, "the echo")
    channel.proven = True
    return channel
