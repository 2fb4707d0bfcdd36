"""Files of float32 vectors in the safetensors format, written and read in one pass, without a second copy in memory.

The format is eight bytes of header length, a JSON header, then the raw little-endian values. It is written and read
here rather than by the safetensors package because a commit wants what the package does not do together: a checksum
taken on the way, system errors that keep their number, and no memory map, which a file truncated meanwhile turns into
SIGBUS. The package reads these files, and its own are read here (both tested).
Format: https://huggingface.co/docs/safetensors/index#format
"""

from __future__ import annotations

import hashlib
import io
import json
import struct
from collections.abc import Iterator, Mapping
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tfleet.checkpoint.disk import BLOCK

Vector = NDArray[np.float32]
"""A flat float32 vector."""

_LENGTH = struct.Struct("<Q")
_ALIGN = 8
_ITEM = 4


class Target(NamedTuple):
    """Where a range of a vector in a file goes.

    Attributes:
        start: first element wanted.
        into: filled completely, float32, contiguous.
    """

    start: int
    into: Vector


def pieces(vectors: Mapping[str, Vector], metadata: Mapping[str, str]) -> Iterator[bytes | Vector]:
    """Returns what a file of these vectors consists of: header bytes, then the vectors themselves, not copied.

    Raises:
        ValueError: a vector is not flat, contiguous, little-endian float32.
    """
    header: dict[str, Any] = {"__metadata__": dict(metadata)}
    offset = 0
    for name, vector in vectors.items():
        if vector.ndim != 1 or vector.dtype != np.dtype("<f4") or not vector.flags.c_contiguous:
            raise ValueError(f"{name} must be a flat contiguous little-endian float32 vector")
        end = offset + vector.nbytes
        header[name] = {"dtype": "F32", "shape": [vector.size], "data_offsets": [offset, end]}
        offset = end
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % _ALIGN)
    return chain((_LENGTH.pack(len(text)) + text,), vectors.values())


def read_into(path: Path, size: int, sha256: str, targets: Mapping[str, Target]) -> None:
    """Reads ranges of vectors out of a file, and verifies the whole file in the same pass; blocks.

    Every byte of the file is read, since that is what its checksum is over; only what is wanted is kept. On any error
    the contents of the targets mean nothing.

    Args:
        path: the file.
        size: its length in bytes.
        sha256: its checksum.
        targets: by name of the vector; empty to verify only.

    Raises:
        OSError: the file cannot be read.
        ValueError: it is not the file with this length and checksum, or a target is not in it. The message goes on
            after the file's name.
    """
    with path.open("rb", buffering=0) as file:
        if (found := file.seek(0, 2)) != size:
            raise ValueError(f"has {found} bytes instead of {size}")
        file.seek(0)
        source = _HashedReader(file)
        offsets = _header(source, size)
        if missing := targets.keys() - offsets.keys():
            raise ValueError(f"does not hold {', '.join(sorted(missing))}")
        for name, length in offsets.items():
            start, into = targets.get(name, Target(length, np.empty(0, np.float32)))
            if start + into.size > length:
                raise ValueError(f"holds {length} values of {name} instead of at least {start + into.size}")
            source.skip(start * _ITEM)
            source.fill(into)
            source.skip((length - start - into.size) * _ITEM)
        if source.digest.hexdigest() != sha256:
            raise ValueError("does not have the bytes that were written (its checksum differs)")


class _HashedReader:
    """Takes the checksum of what goes through it."""

    def __init__(self, file: io.FileIO) -> None:
        self.digest = hashlib.sha256()
        self._file = file
        self._scratch = memoryview(b"")

    def take(self, count: int) -> bytes:
        """Returns the next bytes."""
        data = bytearray(count)
        self._read(memoryview(data))
        return bytes(data)

    def fill(self, vector: Vector) -> None:
        """Reads the next values into all of `vector`."""
        if not vector.size:
            return
        view = vector.data.cast("B")
        for start in range(0, len(view), BLOCK):
            self._read(view[start : start + BLOCK])

    def skip(self, count: int) -> None:
        """Reads the next bytes for the checksum only."""
        if len(self._scratch) < min(count, BLOCK):
            self._scratch = memoryview(bytearray(min(count, BLOCK)))
        while count:
            block = self._scratch[:count]
            self._read(block)
            count -= len(block)

    def _read(self, block: memoryview) -> None:
        rest = block
        while rest:
            count = self._file.readinto(rest)
            if not count:
                raise ValueError("became shorter while it was read")
            rest = rest[count:]
        self.digest.update(block)


def _header(source: _HashedReader, size: int) -> dict[str, int]:
    """Returns length by name, in the order of the file; nothing is believed, for no byte is verified yet."""
    broken = ValueError("does not begin with the header that was written")
    if size < _LENGTH.size:
        raise broken
    (length,) = _LENGTH.unpack(source.take(_LENGTH.size))
    if length > size - _LENGTH.size:
        raise broken
    try:
        entries = json.loads(source.take(length))
        entries.pop("__metadata__", None)
        lengths: dict[str, int] = {}
        offset = 0
        for name, entry in sorted(entries.items(), key=lambda item: item[1]["data_offsets"]):
            start, end = entry["data_offsets"]
            (count,) = entry["shape"]
            if entry["dtype"] != "F32" or start != offset or count < 0 or end != start + count * _ITEM:
                raise broken
            lengths[name] = count
            offset = end
    except (ValueError, TypeError, LookupError, AttributeError, RecursionError):
        raise broken from None
    if offset != size - _LENGTH.size - length:
        raise broken
    return lengths
