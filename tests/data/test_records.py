from __future__ import annotations

import gzip
import os
import struct
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tfleet.data import Records
from tfleet.data.crc32c import masked_crc32c
from tfleet.spec.errors import JobFailed, WrongInput


def framed(data: bytes) -> bytes:
    length = struct.pack("<Q", len(data))
    return length + struct.pack("<I", masked_crc32c(length)) + data + struct.pack("<I", masked_crc32c(data))


def write(path, records):
    path.write_bytes(b"".join(map(framed, records)))
    return path


def number(data: bytes):
    return np.frombuffer(data, np.int32), len(data)


def values(*numbers):
    return [np.int32(n).tobytes() for n in numbers]


def at(*indices):
    return np.array(indices, np.int64)


@given(files=st.lists(st.lists(st.binary(max_size=300), max_size=5), min_size=1, max_size=4), data=st.data())
def test_every_record_is_found_at_its_address(tmp_path_factory, files, data):
    folder = tmp_path_factory.mktemp("records")
    for i, records in enumerate(files):
        write(folder / f"{i}.tfrecord", records)
    expected = [record for records in files for record in records]
    seen = []

    def parse(record):
        seen.append(record)
        return (len(record),)

    if not expected:
        with pytest.raises(WrongInput, match="there is no record in"):
            Records(f"{folder}/*.tfrecord", parse)
        return
    source = Records(f"{folder}/*.tfrecord", parse)
    order = data.draw(st.permutations(range(len(expected))))
    batch = source.batch(at(*order))
    assert len(source) == len(expected)
    assert seen == [expected[i] for i in order]
    np.testing.assert_array_equal(batch.x, [len(expected[i]) for i in order])


def test_samples_are_stacked(tmp_path):
    source = Records(write(tmp_path / "a", values(3, 4, 5)), number)
    batch = source.batch(at(2, 0))
    assert not source.items_are_batches
    assert batch.size == 2
    np.testing.assert_array_equal(batch.x, [[5], [3]])
    np.testing.assert_array_equal(batch.y, [4, 4])
    assert batch.sample_weight is None


def test_plain_numbers_are_one_array_and_arrays_a_structure(tmp_path):
    path = write(tmp_path / "a", values(1, 2))
    listed = Records(path, lambda r: ([1.0, 2.0], (1, 0))).batch(at(0, 1))
    assert listed.x.shape == (2, 2)
    assert listed.x.dtype == np.float32
    assert listed.y.shape == (2, 2)
    nested = Records(path, lambda r: ((np.ones(3), np.zeros((2, 2))), {"a": 1}, 0.5)).batch(at(0, 1))
    assert [a.shape for a in nested.x] == [(2, 3), (2, 2, 2)]
    assert nested.y["a"].shape == (2,)
    np.testing.assert_array_equal(nested.sample_weight, np.float32([0.5, 0.5]))


def test_paths_are_taken_as_given_and_patterns_sorted(tmp_path):
    for name in "cab":
        write(tmp_path / name, values(ord(name)))
    by_pattern = Records(tmp_path / "[abc]", number).batch(at(0, 1, 2)).x.ravel()
    by_list = Records([tmp_path / "c", f"{tmp_path}/[ab]"], number).batch(at(0, 1, 2)).x.ravel()
    assert bytes(by_pattern.tolist()) == b"abc"
    assert bytes(by_list.tolist()) == b"cab"


def test_several_threads_read_at_once_with_few_files_open(tmp_path, monkeypatch):
    monkeypatch.setattr("tfleet.data.record_files._OPEN_FILES", 2)
    for i in range(6):
        write(tmp_path / f"{i}", values(*range(10 * i, 10 * i + 10)))
    source = Records(f"{tmp_path}/*", number)
    with ThreadPoolExecutor(4) as pool:
        read = list(pool.map(lambda i: int(source.batch(at(i)).x[0, 0]), [7 * i % 60 for i in range(600)]))
    assert read == [7 * i % 60 for i in range(600)]


def test_a_file_stays_open_for_its_reader_when_another_thread_drops_it(tmp_path, monkeypatch):
    source = Records(write(tmp_path / "a", values(1, 2)), number)
    pread = os.pread

    def late(*arguments):
        source._open.cache_clear()
        return pread(*arguments)

    monkeypatch.setattr("os.pread", late)
    assert source.batch(at(1)).x == 2


def test_a_dropped_file_is_closed(tmp_path):
    source = Records(write(tmp_path / "a", values(1)), number)
    handle = source._open(str(tmp_path / "a")).handle
    os.fstat(handle)
    source._open.cache_clear()
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(handle)


@pytest.mark.parametrize("cut", [1, 4, 5, 8, 9, 15, 19])
def test_a_truncated_file_is_refused_at_the_start(tmp_path, cut):
    path = write(tmp_path / "a", values(1, 2))
    path.write_bytes(path.read_bytes()[:-cut])
    with pytest.raises(WrongInput, match=r"record 2 of .*a, at byte 20, is truncated.*write or copy the file again"):
        Records(path, number)


@pytest.mark.parametrize("place", [20, 27, 28, 31])
def test_a_damaged_length_is_refused_at_the_start(tmp_path, place):
    path = write(tmp_path / "a", values(1, 2))
    data = bytearray(path.read_bytes())
    data[place] ^= 0x10
    path.write_bytes(data)
    with pytest.raises(WrongInput, match=r"record 2 of .*the checksum of its length is wrong; give TFRecord files"):
        Records(path, number)


@pytest.mark.parametrize("place", [32, 36])
def test_damaged_data_is_refused_when_read(tmp_path, place):
    path = write(tmp_path / "a", values(1, 2))
    data = bytearray(path.read_bytes())
    data[place] ^= 0x01
    path.write_bytes(data)
    source = Records(path, number)
    assert source.batch(at(0)).x == 1
    with pytest.raises(WrongInput, match=r"record 2 of .* is damaged: its checksum is wrong"):
        source.batch(at(1))


def test_a_compressed_file_is_refused_by_name(tmp_path):
    path = tmp_path / "a.gz"
    path.write_bytes(gzip.compress(b"".join(map(framed, values(1, 2)))))
    with pytest.raises(WrongInput, match="compressed with gzip, which has no addresses; uncompress it"):
        Records(path, number)


def test_a_file_that_shrinks_during_the_job_is_told(tmp_path):
    path = write(tmp_path / "a", values(1, 2))
    source = Records(path, number)
    path.write_bytes(path.read_bytes()[:30])
    with pytest.raises(WrongInput, match=r"record 2 of .* is cut short: the file changed during the job"):
        source.batch(at(1))


def test_a_file_that_is_gone_during_the_job_may_come_back(tmp_path):
    path = write(tmp_path / "a", values(1))
    source = Records(path, number)
    path.rename(tmp_path / "b")
    with pytest.raises(JobFailed, match=r"record 1 of .* cannot be read: No such file"):
        source.batch(at(0))
    (tmp_path / "b").rename(path)
    assert source.batch(at(0)).x == 1


@pytest.mark.parametrize("paths", ["/nowhere/a", "/nowhere/*", ["/nowhere/a"], []])
def test_missing_files_are_refused(paths):
    with pytest.raises(WrongInput, match=r"there is no file /nowhere|no data file is given"):
        Records(paths, number)


@pytest.mark.parametrize(
    ("parse", "sentence"),
    [
        (lambda r: 1 / 0, "parse failed on record 1 of {path} with ZeroDivisionError: division by zero; correct parse"),
        (lambda r: 3, "what parse returned for record 1 of {path} is a int, but (x,), (x, y)"),
        (lambda r: (None, 1), "what parse returned for record 1 of {path} has no inputs"),
        (lambda r: ("text",), "x of record 1 of {path} has dtype <U4, but only bool, integers and floats"),
        (lambda r: (1, [[1], [2, 3]]), "y of record 1 of {path} is ragged"),
        (lambda r: (np.zeros(r[0]),), "gives x of different shapes: [1], [2]; give every sample one shape"),
        (lambda r: ({"a": 1} if r[0] == 1 else {"b": 1},), "gives different structures: [\"x['a']\"] and [\"x['b']\"]"),
        (lambda r: (1, 2) if r[0] == 1 else (1,), "gives different structures: ['y'] and None"),
    ],
)
def test_a_parse_function_that_does_not_fit_is_told(tmp_path, parse, sentence):
    path = write(tmp_path / "a", values(1, 2))
    source = Records(path, parse)
    with pytest.raises(WrongInput) as caught:
        source.batch(at(0, 1))
    assert sentence.format(path=path) in str(caught.value)


def test_parse_must_be_a_function(tmp_path):
    with pytest.raises(WrongInput, match="parse is a str, but a function"):
        Records(write(tmp_path / "a", values(1)), "parse")
