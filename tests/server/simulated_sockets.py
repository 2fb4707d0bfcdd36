"""Sockets without a network: what one end sends waits until the test lets the other end read it."""

from dataclasses import dataclass

from tfleet.wire.frames import HEADER, Kind, pack_header, unpack_header


class Pipe:
    """One direction of a connection."""

    def __init__(self):
        self.bytes = bytearray()
        self.ended = False
        self.broken = False


class FakeSocket:
    """One end of a connection; takes any number of bytes, gives as many as `allow`."""

    def __init__(self, incoming, outgoing):
        self.incoming, self.outgoing = incoming, outgoing
        self.allow = 0

    @classmethod
    def pair(cls):
        a, b = Pipe(), Pipe()
        return cls(a, b), cls(b, a)

    def setblocking(self, _flag):
        pass

    def sendmsg(self, parts):
        if self.outgoing.broken:
            raise BrokenPipeError(32, "Broken pipe")
        for part in parts:
            self.outgoing.bytes += part
        return sum(len(part) for part in parts)

    def recv_into(self, view):
        count = min(len(view), len(self.incoming.bytes), self.allow)
        if count:
            view[:count] = self.incoming.bytes[:count]
            del self.incoming.bytes[:count]
            self.allow -= count
        elif not (self.incoming.ended and not self.incoming.bytes):
            raise BlockingIOError
        return count

    @property
    def readable(self):
        return bool(self.incoming.bytes) or self.incoming.ended

    def close(self):
        self.outgoing.ended = True
        self.incoming.broken = True


@dataclass
class Frame:
    """A frame that a worker received."""

    kind: Kind
    meta: bytes
    payload: bytes


class Lost(Exception):
    """The other end is gone."""


class Line:
    """The worker's end of a connection."""

    def __init__(self, sock):
        self.sock = sock
        self.half = 0

    def send(self, kind, meta=b"", *payload):
        data = b"".join(bytes(p) for p in payload)
        if self.sock.outgoing.broken:
            raise Lost
        self.sock.sendmsg([pack_header(kind, len(meta), len(data)), meta, data])

    @property
    def ready(self):
        return self._length() > 0 or self.sock.incoming.ended

    def take(self):
        length = self._length()
        if not length:
            raise Lost
        data, self.sock.incoming.bytes = self.sock.incoming.bytes[:length], self.sock.incoming.bytes[length:]
        header = unpack_header(data[: HEADER.size])
        meta = bytes(data[HEADER.size : HEADER.size + header.meta])
        return Frame(header.kind, meta, bytes(data[HEADER.size + header.meta :]))

    def _length(self):
        data = self.sock.incoming.bytes
        if len(data) < HEADER.size:
            return 0
        header = unpack_header(data[: HEADER.size])
        length = HEADER.size + header.meta + header.payload
        return length if len(data) >= length else 0
