from __future__ import annotations

import csv
import io

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tfleet.data import CsvRecords
from tfleet.spec.errors import WrongInput

FIELD = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=8) | st.sampled_from(
    ['a\n"b"', "\r\n", '""', "x,y", "ü"]
)


def at(*indices):
    return np.array(indices, np.int64)


def collect(into):
    def parse(row):
        into.append(row)
        return (0,)

    return parse


def read(path, **options):
    rows = []
    source = CsvRecords(path, collect(rows), **options)
    source.batch(np.arange(len(source)))
    return rows


@given(
    rows=st.integers(1, 4).flatmap(lambda n: st.lists(st.lists(FIELD, min_size=n, max_size=n), min_size=1, max_size=8)),
    end=st.sampled_from(["\n", "\r\n"]),
    bom=st.booleans(),
    last_end=st.booleans(),
    chunk=st.integers(1, 40),
)
def test_rows_are_those_of_the_csv_module(tmp_path_factory, rows, end, bom, last_end, chunk):
    text = io.StringIO()
    csv.writer(text, lineterminator=end, quoting=csv.QUOTE_ALL).writerows(rows)
    data = text.getvalue()
    path = tmp_path_factory.mktemp("csv") / "a.csv"
    path.write_bytes((b"\xef\xbb\xbf" if bom else b"") + (data if last_end else data[: -len(end)]).encode())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tfleet.data.csv_records._CHUNK", chunk)
        assert read(path, header=False) == rows


@given(
    st.lists(st.lists(st.sampled_from(["a", "", "1.5", 'say "hi"', "two\nlines"]), min_size=2, max_size=2), min_size=1)
)
def test_minimal_quoting_reads_the_same(tmp_path_factory, rows):
    path = tmp_path_factory.mktemp("csv") / "a.csv"
    with open(path, "w", newline="") as file:
        csv.writer(file, delimiter=";").writerows(rows)
    assert read(path, header=False, delimiter=";") == rows


def test_a_header_names_the_fields_of_all_files(tmp_path):
    (tmp_path / "a.csv").write_text("x,y\n1,2\n\n3,4\n")
    (tmp_path / "b.csv").write_text("x,y\r\n5,6\r\n\r\n")
    source = CsvRecords(f"{tmp_path}/*.csv", lambda row: (float(row["x"]), int(row["y"])))
    assert len(source) == 3
    batch = source.batch(at(2, 0))
    np.testing.assert_array_equal(batch.x, np.float32([5, 1]))
    np.testing.assert_array_equal(batch.y, [6, 2])


@pytest.mark.parametrize(
    ("content", "options", "sentence"),
    [
        (b"", {}, "{path} is empty, but a header is expected; give one or use header=False"),
        (b"", {"header": False}, "there is no record in {path}"),
        (b"a,b\n", {}, "there is no record in {path}"),
        (b"\n\r\n\n", {"header": False}, "there is no record in {path}"),
        (b'a\n"1\n2\n', {}, "{path} ends within a quoted field; close the quote or copy the file again"),
        (b"a,a\n1,2\n", {}, "the header of {path} names the column 'a' twice"),
        (b"\xff\xfea\n1\n", {}, "the header of {path} is not UTF-8 text; convert the file to UTF-8"),
        (b"a\n\xe9\n", {}, "record 1 of {path} is not UTF-8 text"),
        (b"a,b\n1,2\n3\n", {}, "record 2 of {path} has 1 fields, but the header has 2; correct the row"),
        (b"a\r1\r2\n", {"header": False}, "record 1 of {path} is 3 rows: "),
        (b'5" pipe\n6" pipe\n', {"header": False}, "record 1 of {path} is 2 rows: a quote stands within an unquoted"),
        (b'"a"b\n', {"header": False}, "record 1 of {path} is not CSV: "),
        (b"a\n1\n", {"delimiter": ", "}, "the CSV delimiter is ', ', but one character"),
        (b"a\n1\n", {"delimiter": '"'}, "the CSV delimiter is '\"', but one character"),
    ],
)
def test_unusable_files_are_refused_in_one_sentence(tmp_path, content, options, sentence):
    path = tmp_path / "a.csv"
    path.write_bytes(content)
    with pytest.raises(WrongInput) as caught:
        read(path, **options)
    assert sentence.format(path=path) in str(caught.value)


def test_files_with_different_headers_are_refused(tmp_path):
    (tmp_path / "a.csv").write_text("x,y\n1,2\n")
    (tmp_path / "b.csv").write_text("y,x\n1,2\n")
    with pytest.raises(WrongInput, match=r"header of .*b.csv is \['y', 'x'\], but that of the first file is"):
        CsvRecords(f"{tmp_path}/*.csv", lambda row: (0,))


def test_a_parse_function_that_fails_names_the_row(tmp_path):
    (tmp_path / "a.csv").write_text("x\n1\nnone\n")
    source = CsvRecords(tmp_path / "a.csv", lambda row: (float(row["x"]),))
    with pytest.raises(WrongInput, match=r"parse failed on record 2 of .*a.csv with ValueError: could not convert"):
        source.batch(at(1))


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(WrongInput, match=r"there is no file .*none.csv"):
        CsvRecords(tmp_path / "none.csv", lambda row: (0,))
