"""CRC-32C (Castagnoli, RFC 3720 appendix B.4), table-driven, fast enough in NumPy to check every record read.

A CRC is linear over GF(2): the checksum of a block is the exclusive or of what each of its bytes contributes from its
place. One table per place gives all blocks' contributions in one NumPy operation; only the joining of blocks is a loop.
"""

from __future__ import annotations

import functools

import numpy as np
from numpy.typing import NDArray

_POLYNOMIAL = 0x82F63B78
_BLOCK = 256
_SHORT = 64


def crc32c(data: bytes) -> int:
    """Returns the CRC-32C of `data` as an unsigned 32-bit number."""
    if len(data) < _SHORT:
        table, crc = _byte_table(), 0xFFFFFFFF
        for byte in data:
            crc = table[(crc ^ byte) & 0xFF] ^ (crc >> 8)
        return crc ^ 0xFFFFFFFF
    return _by_blocks(data)


def masked_crc32c(data: bytes) -> int:
    """Returns the CRC-32C as TFRecord stores it: rotated right by 15 bits, plus 0xa282ead8, modulo 2**32."""
    crc = crc32c(data)
    return (((crc >> 15) | (crc << 17)) + 0xA282EAD8) & 0xFFFFFFFF


def _by_blocks(data: bytes) -> int:
    places, first = _place_tables()
    # Zeros in front change nothing while the running value is 0; the initial value 0xFFFFFFFF is the same as
    # inverting the first four bytes.
    padded = np.zeros(-(-len(data) // _BLOCK) * _BLOCK, np.uint8)
    start = len(padded) - len(data)
    padded[start:] = np.frombuffer(data, np.uint8)
    padded[start : start + 4] ^= 0xFF
    blocks = padded.reshape(-1, _BLOCK).astype(np.intp)
    blocks += np.arange(_BLOCK, dtype=np.intp) * 256
    crc = 0
    for block in np.bitwise_xor.reduce(places.take(blocks), axis=1).tolist():
        crc = (
            first[0][crc & 0xFF] ^ first[1][crc >> 8 & 0xFF] ^ first[2][crc >> 16 & 0xFF] ^ first[3][crc >> 24] ^ block
        )
    return crc ^ 0xFFFFFFFF


@functools.cache
def _byte_table() -> list[int]:
    values = np.arange(256, dtype=np.uint32)
    for _ in range(8):
        values = np.where(values & 1, (values >> 1) ^ np.uint32(_POLYNOMIAL), values >> 1)
    table: list[int] = values.tolist()
    return table


@functools.cache
def _place_tables() -> tuple[NDArray[np.uint32], list[list[int]]]:
    """Contributions of each byte value at each place of a block, flat [place * 256 + byte]; the first four as lists."""
    byte_table = np.array(_byte_table(), np.uint32)
    places = np.empty((_BLOCK, 256), np.uint32)
    places[-1] = byte_table
    for place in range(_BLOCK - 2, -1, -1):
        later = places[place + 1]
        places[place] = byte_table[later & 0xFF] ^ (later >> 8)
    return places.reshape(-1), [places[i].tolist() for i in range(4)]
