"""TFRecord files, read without TensorFlow: an item is a record.

The format (TensorFlow, core/lib/io/record_writer.h): each record is its length (uint64), the masked CRC-32C of those
8 bytes (uint32), the data, and the masked CRC-32C of the data (uint32); all little-endian.
"""

from __future__ import annotations

import mmap
import struct
from collections.abc import Callable
from typing import Any

import numpy as np

from tfleet.data.crc32c import masked_crc32c
from tfleet.data.record_files import Paths, RecordFiles, Spans, cannot_read
from tfleet.spec.errors import WrongInput

_HEADER = struct.Struct("<QI")
_CRC = struct.Struct("<I")


class Records(RecordFiles):
    """TFRecord files with a parse function.

    Lengths and their checksums are checked when the files are indexed, the checksum of the data whenever it is read.

    Args:
        paths: a path, a glob pattern, or several of both.
        parse: (bytes) -> (x,), (x, y) or (x, y, sample_weight) of one sample.

    Raises:
        WrongInput: when a file is missing, compressed, damaged or truncated.
    """

    def __init__(self, paths: Paths, parse: Callable[[bytes], Any]) -> None:
        super().__init__(paths, parse)

    def _scan(self, path: str) -> Spans:
        offsets: list[int] = []
        lengths: list[int] = []
        try:
            with open(path, "rb") as file:
                size = file.seek(0, 2)
                if size:
                    with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as view:
                        _walk(view, size, path, offsets, lengths)
        except OSError as error:
            raise cannot_read(path, error) from None
        # The data is read together with the checksum that follows it.
        return np.array(offsets, np.int64), np.array(lengths, np.int64) + _CRC.size

    def _decode(self, data: bytes, what: str) -> bytes:
        record = data[: -_CRC.size]
        if masked_crc32c(record) != _CRC.unpack_from(data, len(record))[0]:
            raise WrongInput(f"{what} is damaged: its checksum is wrong; write or copy the file again")
        return record


def _walk(view: mmap.mmap, size: int, path: str, offsets: list[int], lengths: list[int]) -> None:
    position = 0
    while position < size:
        what = f"record {len(offsets) + 1} of {path}, at byte {position},"
        if position + _HEADER.size > size:
            raise WrongInput(f"{what} is truncated: the file ends within its header; write or copy the file again")
        length, crc = _HEADER.unpack_from(view, position)
        if masked_crc32c(view[position : position + 8]) != crc:
            if not offsets and view[:2] == b"\x1f\x8b":
                raise WrongInput(f"{path} is compressed with gzip, which has no addresses; uncompress it")
            raise WrongInput(
                f"{what} is damaged or no TFRecord: the checksum of its length is wrong; give TFRecord files"
            )
        start = position + _HEADER.size
        position = start + length + _CRC.size
        if position > size:
            raise WrongInput(
                f"{what} is truncated: it needs {position - size} bytes more than the file has; "
                "write or copy the file again"
            )
        offsets.append(start)
        lengths.append(length)
