"""Meta of ROWS and FETCH, by which rows of tables travel instead of whole tables.

FETCH asks a partition for rows: its payload is their ids, int64, those of one table after those of another. The answer
is a TAKE with the rows, float32, in the same order. ROWS brings the row gradients of the PUSH that follows on the same
connection, with the same sequence: its payload is ids like those of FETCH, then the gradients, float32.

Ids count the rows that the partition holds of a table, from 0; they ascend, each once.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from tfleet.spec.arrays import Ids, Matrix
from tfleet.wire.frames import ProtocolError

_HEAD = struct.Struct("<IIQ")
_COUNT = struct.Struct("<Q")
ID_BYTES = 8


class Rows(NamedTuple):
    """Meta of ROWS and FETCH.

    Attributes:
        generation: of the job; older ones are refused.
        member: the worker's number in this generation.
        sequence: of the push that the gradients belong to; FETCH: 0.
        counts: how many rows of each table of the partition.
    """

    generation: int
    member: int
    sequence: int
    counts: tuple[int, ...]


def pack_rows(rows: Rows) -> bytes:
    """Returns the meta of a ROWS or FETCH."""
    return _HEAD.pack(*rows[:3]) + b"".join([_COUNT.pack(count) for count in rows.counts])


def unpack_rows(meta: bytes | bytearray) -> Rows:
    """Returns what `pack_rows` packed.

    Raises:
        ProtocolError: when the length is wrong.
    """
    rest = len(meta) - _HEAD.size
    if rest < 0 or rest % _COUNT.size:
        raise ProtocolError(f"a frame of rows with {len(meta)} bytes of meta")
    counts = tuple(_COUNT.unpack_from(meta, at)[0] for at in range(_HEAD.size, len(meta), _COUNT.size))
    generation, member, sequence = _HEAD.unpack_from(meta)
    return Rows(generation, member, sequence, counts)


def payload_size(counts: Sequence[int], shapes: Sequence[tuple[int, int]], gradients: bool) -> int:
    """Returns the bytes of payload that must come with these counts.

    Args:
        counts: rows of each table.
        shapes: rows and width of the tables that the partition holds.
        gradients: of a ROWS, else of a FETCH.

    Raises:
        ProtocolError: when there are more rows than the partition holds, or another number of tables.
    """
    if len(counts) != len(shapes) or any(count > rows for count, (rows, _) in zip(counts, shapes, strict=True)):
        raise ProtocolError(f"{list(counts)} rows of tables, this partition holds {[rows for rows, _ in shapes]}")
    size = ID_BYTES * sum(counts)
    return size + gradients * sum(4 * count * width for count, (_, width) in zip(counts, shapes, strict=True))


def read_ids(payload: memoryview, counts: Sequence[int], shapes: Sequence[tuple[int, int]]) -> list[Ids]:
    """Returns the ids at the start of a payload of the right size, as views of it.

    Raises:
        ProtocolError: when they do not ascend, or one is of no row that the partition holds.
    """
    found, at = [], 0
    for count, (rows, _) in zip(counts, shapes, strict=True):
        ids = np.frombuffer(payload, np.int64, count, at)
        at += ID_BYTES * count
        if count and (ids[0] < 0 or ids[-1] >= rows or (ids[1:] <= ids[:-1]).any()):
            raise ProtocolError(f"ids of rows that do not ascend within the {rows} that this partition holds")
        found.append(ids)
    return found


def read_gradients(payload: memoryview, counts: Sequence[int], shapes: Sequence[tuple[int, int]]) -> list[Matrix]:
    """Returns the row gradients of a ROWS payload of the right size, as views of it."""
    found, at = [], ID_BYTES * sum(counts)
    for count, (_, width) in zip(counts, shapes, strict=True):
        found.append(np.frombuffer(payload, np.float32, count * width, at).reshape(count, width))
        at += 4 * count * width
    return found
