"""Ends with 0 when the NFS server of this pod answers and has the export: `answers.py /export`.

An open port is not enough: Ganesha listens without an export too, when the file system below it has no file handles.
One COMPOUND call of NFS version 4.0 (RFC 7530): PUTROOTFH, then LOOKUP of each part of the path, as root of this host.
"""

from __future__ import annotations

import socket
import struct
import sys

PROGRAM, VERSION, COMPOUND = 100003, 4, 1
PUTROOTFH, LOOKUP = 24, 15
LAST_FRAGMENT = 0x80000000


def opaque(data: bytes) -> bytes:
    """Returns bytes as XDR has them (RFC 4506): the length, the bytes, zeros up to a multiple of four."""
    return struct.pack(">I", len(data)) + data + bytes(-len(data) % 4)


def call(path: str) -> bytes:
    """Returns the record of an ONC RPC call (RFC 5531) that looks a path up."""
    names = [name.encode() for name in path.split("/") if name]
    user = opaque(struct.pack(">I", 0) + opaque(b"probe") + struct.pack(">III", 0, 0, 0))
    message = struct.pack(">IIIIII", 1, 0, 2, PROGRAM, VERSION, COMPOUND)
    message += struct.pack(">I", 1) + user + struct.pack(">II", 0, 0)
    message += opaque(b"") + struct.pack(">III", 0, 1 + len(names), PUTROOTFH)
    message += b"".join(struct.pack(">I", LOOKUP) + opaque(name) for name in names)
    return struct.pack(">I", LAST_FRAGMENT | len(message)) + message


def status(reply: bytes) -> int:
    """Returns the status of a COMPOUND reply (0 = NFS4_OK).

    Args:
        reply: the reply after the mark of the record.

    Raises:
        ValueError: when the server did not accept the call.
    """
    kind, accepted, _, length = struct.unpack_from(">IIII", reply, 4)
    if kind != 1 or accepted != 0:
        raise ValueError("the server refused the call")
    at = 20 + (length + 3) // 4 * 4
    state, outcome = struct.unpack_from(">II", reply, at)
    if state:
        raise ValueError(f"the server did not execute the call ({state})")
    return int(outcome)


def receive(connection: socket.socket, count: int) -> bytes:
    """Reads exactly so many bytes; blocks until the time-out of the connection.

    Raises:
        ConnectionError: when the server closes before.
    """
    data = b""
    while len(data) < count:
        more = connection.recv(count - len(data))
        if not more:
            raise ConnectionError("the server closed the connection")
        data += more
    return data


def main() -> int:
    """Asks the server on this host; returns the exit code."""
    path = sys.argv[1]
    try:
        with socket.create_connection(("127.0.0.1", 2049), timeout=5) as connection:
            connection.sendall(call(path))
            (mark,) = struct.unpack(">I", receive(connection, 4))
            outcome = status(receive(connection, mark & ~LAST_FRAGMENT))
    except (OSError, ValueError) as error:
        print(f"no answer: {error}")
        return 1
    if outcome:
        print(f"no export {path} (NFS status {outcome}): the log says why; a file system without handles is one reason")
    return int(outcome != 0)


if __name__ == "__main__":
    sys.exit(main())
