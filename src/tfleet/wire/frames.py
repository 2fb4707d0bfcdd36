"""Frames: a fixed header, a small meta part, a payload of raw bytes.

```
0       2         3      4            8              16
| 'tf'  | version | kind | meta bytes | payload bytes | meta | payload
```

All integers are little-endian. The meta of CALL, RESULT and ERROR is a JSON object; PUSH, PULL and TAKE, and HAVE and
REACH between the ps, which travel with every step, have fixed structures. No length is believed before it is checked
against a limit.
"""

from __future__ import annotations

import json
import math
import struct
from enum import IntEnum
from typing import Any, NamedTuple

from tfleet.spec.errors import ExitCode, JobFailed

MAGIC = b"tf"
VERSION = 2
"""Of the protocol; 1 had no HELLO."""
HEADER = struct.Struct("<2sBBIQ")
META_LIMIT = 16 << 20
"""Bytes of meta that an authenticated peer may send (the layout of a large model is JSON)."""
BY_SOCKET = 255
"""The slot of a PUSH or PULL whose gradient and parameters are payloads."""
UNPROVEN_META = 512
"""Bytes of meta, without payload, that a peer may send before it has proven the token."""


class Kind(IntEnum):
    """What a frame is."""

    CHALLENGE = 1
    ANSWER = 2
    WELCOME = 3
    CALL = 4
    RESULT = 5
    ERROR = 6
    PUSH = 7
    PULL = 8
    TAKE = 9
    HAVE = 10
    REACH = 11
    ROWS = 12
    FETCH = 13
    HELLO = 14


_TLS_RECORDS, _TLS_MAJOR = (20, 21, 22, 23), 3  # how every record of TLS begins
_KINDS = {int(kind): kind for kind in Kind}  # three times faster than Kind(number)


class ProtocolError(JobFailed):
    """A peer sent something that is no valid frame, or not now; the connection is closed."""


class WrongPeer(ProtocolError):
    """What is at the other end will never be understood, however often it is tried: exit code 2."""

    exit_code = ExitCode.WRONG_INPUT


class WrongVersion(WrongPeer):
    """The peer speaks another version of the protocol.

    Attributes:
        version: the peer's.
    """

    def __init__(self, version: int) -> None:
        super().__init__(f"the peer speaks protocol version {version}, this is {VERSION}: use one tfleet version")
        self.version = version


class Header(NamedTuple):
    """A checked frame header; lengths in bytes."""

    kind: Kind
    meta: int
    payload: int


def pack_header(kind: Kind, meta: int, payload: int) -> bytes:
    """Returns the 16 bytes that start a frame."""
    return HEADER.pack(MAGIC, VERSION, kind, meta, payload)


def unpack_header(data: bytes | bytearray | memoryview, meta_limit: int = META_LIMIT) -> Header:
    """Checks and returns a frame header.

    Args:
        data: 16 bytes.
        meta_limit: the most bytes of meta that are allowed now.

    Raises:
        WrongPeer: for another protocol, another version, or TLS.
        ProtocolError: for an unknown kind, or too much meta.
    """
    magic, version, kind, meta, payload = HEADER.unpack(data)
    if magic != MAGIC:
        if magic[0] in _TLS_RECORDS and magic[1] == _TLS_MAJOR:
            raise WrongPeer("the peer speaks TLS and this end does not: give all replicas the same tls_cert and tls_ca")
        raise WrongPeer("the peer does not speak tfleet's protocol")
    if version != VERSION:
        raise WrongVersion(version)
    if meta > meta_limit:
        raise ProtocolError(f"a frame with {meta} bytes of meta, at most {meta_limit} are allowed here")
    known = _KINDS.get(kind)
    if known is None:
        raise ProtocolError(f"unknown kind of frame: {kind}")
    return Header(known, meta, payload)


def versions_differ(client: int, server: int) -> str:
    """Says in a sentence, the same for both ends, that they cannot understand each other."""
    age = "older" if client < server else "newer"
    return (
        f"who connects speaks protocol version {client}, {age} than version {server} of the ps; "
        "use one tfleet version for the whole job"
    )


def pack_json(values: dict[str, Any]) -> bytes:
    """Returns the meta of a CALL, RESULT or ERROR."""
    return json.dumps(values, separators=(",", ":"), allow_nan=False).encode()


def unpack_json(meta: bytes | bytearray) -> dict[str, Any]:
    """Returns the JSON object in `meta`.

    Raises:
        ProtocolError: when it is none.
    """
    try:
        values = json.loads(meta, parse_constant=_no_constant, parse_float=_finite)
    except (ValueError, RecursionError):
        raise ProtocolError("a frame's meta is not JSON") from None
    if not isinstance(values, dict):
        raise ProtocolError("a frame's meta is not a JSON object")
    return values


def _no_constant(name: str) -> float:
    raise ValueError(name)  # NaN and infinities are no JSON, and nothing that is told on could be packed again


def _finite(text: str) -> float:
    value = float(text)
    return value if math.isfinite(value) else _no_constant(text)


class Push(NamedTuple):
    """Meta of PUSH and PULL: one worker's word to one partition.

    Attributes:
        generation: of the job; older ones are refused.
        member: the worker's number in this generation.
        sequence: counts this worker's pushes, from 1; a partition applies each at most once. PULL: the last one.
        learning_rate: for this update.
        samples: in the batch, or in the run.
        step: global step of the parameters that the gradient was computed from, or that the run started from.
        epoch: of the batch.
        batch: its number within the epoch; of a run the first.
        batches: that make up this step (1 under async); under average the runs that make up this round.
        want: how many leases the worker would like (to ps 0 only).
        held: how many it still has besides: with none it waits for one.
        slot: where in the shared memory the answer goes; the gradient is there too. `BY_SOCKET`: as payloads.
    """

    generation: int
    member: int
    sequence: int
    learning_rate: float
    samples: int
    step: int
    epoch: int
    batch: int
    batches: int
    want: int
    held: int
    slot: int = BY_SOCKET


PUSH = struct.Struct("<IIQfIQIQIHHB")


def pack_push(push: Push) -> bytes:
    """Returns the meta of a PUSH or PULL."""
    return PUSH.pack(*push)


def unpack_push(meta: bytes | bytearray) -> Push:
    """Returns what `pack_push` packed.

    Raises:
        ProtocolError: when the length is wrong.
    """
    return Push._make(_fields(PUSH, meta, "push"))


class Have(NamedTuple):
    """Meta of HAVE: what another ps tells ps 0 under a strategy that aggregates.

    Attributes:
        member: whose push has arrived.
        sequence: of the push.
    """

    member: int
    sequence: int


_HAVE = struct.Struct("<IQ")
_REACH = struct.Struct("<Q")


def pack_have(have: Have) -> bytes:
    """Returns the meta of a HAVE."""
    return _HAVE.pack(*have)


def unpack_have(meta: bytes | bytearray) -> Have:
    """Returns what `pack_have` packed.

    Raises:
        ProtocolError: when the length is wrong.
    """
    return Have._make(_fields(_HAVE, meta, "have"))


def pack_reach(step: int) -> bytes:
    """Returns the meta of a REACH, by which ps 0 tells the others that every step before this one is complete."""
    return _REACH.pack(step)


def unpack_reach(meta: bytes | bytearray) -> int:
    """Returns what `pack_reach` packed.

    Raises:
        ProtocolError: when the length is wrong.
    """
    return int(_fields(_REACH, meta, "reach")[0])


def _fields(structure: struct.Struct, meta: bytes | bytearray, what: str) -> tuple[Any, ...]:
    if len(meta) != structure.size:
        raise ProtocolError(f"a {what} with {len(meta)} bytes of meta instead of {structure.size}")
    return structure.unpack(meta)


class Order(IntEnum):
    """What a worker is to do next besides its leases."""

    NONE = 0
    EVALUATE = 1
    FINALISE = 2
    OVER = 3
    REJOIN = 4


class Lease(NamedTuple):
    """The right to compute one batch, or a run of consecutive batches.

    Attributes:
        epoch: of the batch.
        batch: its number within the epoch; of a run the first.
        batches: that make up its step (1 under async); under average the runs that make up its round.
        length: batches of the run; 1 but under average.
        updates: local updates that led to the parameters that the run starts from; 0 but under average.
    """

    epoch: int
    batch: int
    batches: int
    length: int = 1
    updates: int = 0


class Take(NamedTuple):
    """Meta of TAKE: what a partition answers to PUSH and PULL; its payload is the parameters, or nothing.

    Attributes:
        generation: of the job.
        step: the global step now (from ps 0), or the number of updates of this partition.
        order: see `Order`.
        leases: new ones.
    """

    generation: int
    step: int
    order: Order
    leases: tuple[Lease, ...]


_TAKE = struct.Struct("<IQB")
_LEASE = struct.Struct("<IQIIQ")


def pack_take(take: Take) -> bytes:
    """Returns the meta of a TAKE."""
    head = _TAKE.pack(take.generation, take.step, take.order)
    return head + b"".join([_LEASE.pack(*lease) for lease in take.leases])


def unpack_take(meta: bytes | bytearray) -> Take:
    """Returns what `pack_take` packed.

    Raises:
        ProtocolError: when the length is wrong or the order unknown.
    """
    rest = len(meta) - _TAKE.size
    if rest < 0 or rest % _LEASE.size:
        raise ProtocolError(f"a take with {len(meta)} bytes of meta")
    generation, step, order = _TAKE.unpack_from(meta)
    leases = tuple(Lease._make(_LEASE.unpack_from(meta, at)) for at in range(_TAKE.size, len(meta), _LEASE.size))
    try:
        return Take(generation, step, Order(order), leases)
    except ValueError:
        raise ProtocolError(f"unknown order {order}") from None
