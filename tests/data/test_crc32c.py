from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tfleet.data.crc32c import crc32c, masked_crc32c


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (bytes(32), 0x8A9136AA),
        (b"\xff" * 32, 0x62A8AB43),
        (bytes(range(32)), 0x46DD794E),
        (bytes(range(31, -1, -1)), 0x113FDB5C),
        (b"123456789", 0xE3069283),
        (b"", 0),
    ],
)
def test_values_of_rfc_3720(data, expected):
    assert crc32c(data) == expected


def bit_by_bit(data):
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = (crc >> 1) ^ (0x82F63B78 if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF


@given(st.binary(max_size=100), st.sampled_from([0, 63, 64, 255, 256, 257, 300, 512, 700]))
def test_blocks_give_what_single_bits_give(data, length):
    data = (data * (length // max(1, len(data)) + 1))[:length] if data else bytes(length)
    assert crc32c(data) == bit_by_bit(data)


def test_the_mask_of_tfrecord():
    # The checksum of the 8 length bytes of a record of 0 bytes, as TensorFlow writes it.
    assert masked_crc32c(bytes(8)).to_bytes(4, "little").hex() == "29039807"
