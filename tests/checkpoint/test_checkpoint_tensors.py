from __future__ import annotations

import hashlib
import json
import struct
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import load_file, save_file

from tfleet.checkpoint.disk import BLOCK, Disk, Written, write_file
from tfleet.checkpoint.tensors import Target, pieces, read_into


def write(path: Path, vectors: dict[str, np.ndarray]) -> Written:
    content = pieces(vectors, {"number": "1"})
    return write_file(Disk(), Disk().create(path), content)


def test_the_safetensors_package_reads_what_is_written_here(tmp_path: Path) -> None:
    vectors = {"b": np.arange(5, dtype=np.float32), "a": np.ones(2, np.float32), "none": np.empty(0, np.float32)}
    written = write(tmp_path / "x", vectors)
    data = (tmp_path / "x").read_bytes()
    assert written == Written(len(data), hashlib.sha256(data).hexdigest())
    loaded = load_file(tmp_path / "x")
    assert {name: vector.tolist() for name, vector in loaded.items()} == {n: v.tolist() for n, v in vectors.items()}


def test_what_the_safetensors_package_writes_is_read_here(tmp_path: Path) -> None:
    save_file({"b": np.arange(5, dtype=np.float32), "a": np.ones(2, np.float32)}, tmp_path / "x", {"by": "them"})
    data = (tmp_path / "x").read_bytes()
    into = np.empty(3, np.float32)
    read_into(tmp_path / "x", len(data), hashlib.sha256(data).hexdigest(), {"b": Target(1, into)})
    assert into.tolist() == [1, 2, 3]


def test_vectors_longer_than_a_block_are_read_from_any_place(tmp_path: Path) -> None:
    values = np.arange(BLOCK // 2, dtype=np.float32)
    written = write(tmp_path / "x", {"a": values, "b": -values})
    a, b = np.empty(BLOCK // 4 + 3, np.float32), np.empty(1, np.float32)
    targets = {"a": Target(7, a), "b": Target(BLOCK // 2 - 1, b)}
    read_into(tmp_path / "x", written.bytes, written.sha256, targets)
    assert np.array_equal(a, values[7 : 7 + a.size])
    assert b[0] == -values[-1]


def test_the_values_lie_aligned(tmp_path: Path) -> None:
    for name in ("a", "ab", "abc"):
        header, _ = pieces({name: np.zeros(1, np.float32)}, {})
        assert len(header) % 8 == 0


@pytest.mark.parametrize(
    ("targets", "message"),
    [({"c": Target(0, np.empty(1, np.float32))}, "hold c"), ({"a": Target(4, np.empty(2, np.float32))}, "at least 6")],
)
def test_a_target_that_is_not_there_is_refused(tmp_path: Path, targets: dict[str, Target], message: str) -> None:
    written = write(tmp_path / "x", {"a": np.zeros(5, np.float32)})
    with pytest.raises(ValueError, match=message):
        read_into(tmp_path / "x", written.bytes, written.sha256, targets)


def entry(start: int, end: int, **other: object) -> dict[str, object]:
    return {"dtype": "F32", "shape": [(end - start) // 4], "data_offsets": [start, end], **other}


@pytest.mark.parametrize(
    "header",
    [
        {"a": entry(0, 4)},
        {"a": entry(0, 12)},
        {"a": entry(0, 4), "b": entry(0, 8)},
        {"a": entry(4, 8)},
        {"a": entry(0, 8, dtype="F64")},
        {"a": entry(0, 8, shape=[1, 2])},
        {"a": entry(0, 8, shape=[-2])},
        {"a": entry(0, 8, shape=["2"])},
        {"a": entry(0, 12), "b": entry(12, 8)},
        {"a": entry(0, 8, data_offsets=[0])},
        {"a": entry(0, 8, data_offsets=8)},
        {"a": {}},
        {"a": 3},
        [],
        "a",
        None,
    ],
)
def test_a_wrong_header_is_refused_even_when_its_checksum_is_right(tmp_path: Path, header: object) -> None:
    text = json.dumps(header).encode()
    check_refused(tmp_path / "x", struct.pack("<Q", len(text)) + text + bytes(8))


@given(st.binary(max_size=40))
def test_any_bytes_are_refused_or_read_never_worse(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "any"
    check_refused(path, data)
    check_refused(path, struct.pack("<Q", len(data)) + data)


def check_refused(path: Path, data: bytes) -> None:
    path.write_bytes(data)
    with pytest.raises(ValueError, match="header that was written"):
        read_into(path, len(data), hashlib.sha256(data).hexdigest(), {})
