"""CSV files (RFC 4180): an item is a row, which may hold quoted line breaks."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tfleet.data.record_files import Paths, RecordFiles, Spans, cannot_read
from tfleet.spec.errors import WrongInput

_CHUNK = 1 << 22
_QUOTE, _NEWLINE, _RETURN = ord('"'), ord("\n"), ord("\r")
_BOM = b"\xef\xbb\xbf"


class CsvRecords(RecordFiles):
    """CSV files in UTF-8 with a parse function; empty lines are no rows.

    Args:
        paths: a path, a glob pattern, or several of both; with a header all files have the same.
        parse: makes (x,), (x, y) or (x, y, sample_weight) of one row: of a dict of column name to text with a
            header, else of a list of texts.
        header: whether the first row of each file names the columns.
        delimiter: what stands between fields, one ASCII character.

    Raises:
        WrongInput: when a file is missing, not UTF-8, ends within quotes, or has another header than the first.
    """

    def __init__(self, paths: Paths, parse: Callable[[Any], Any], header: bool = True, delimiter: str = ",") -> None:
        if len(delimiter) != 1 or not delimiter.isascii() or delimiter in '"\r\n':
            raise WrongInput(f"the CSV delimiter is {delimiter!r}, but one character such as ',' or ';' is needed")
        self._header = header
        self._delimiter = delimiter
        self._columns: list[str] = []
        super().__init__(paths, parse)

    def _scan(self, path: str) -> Spans:
        try:
            data = np.memmap(path, np.uint8, "r").view(np.ndarray)
        except ValueError:  # NumPy's word for an empty file
            data = np.empty(0, np.uint8)
        except OSError as error:
            raise cannot_read(path, error) from None
        starts, ends = _row_bounds(data, path)
        if self._header:
            if not len(starts):
                raise WrongInput(f"{path} is empty, but a header is expected; give one or use header=False")
            self._read_header(data[starts[0] : ends[0]].tobytes(), path)
            starts, ends = starts[1:], ends[1:]
        return starts, ends - starts

    def _read_header(self, data: bytes, path: str) -> None:
        columns = _fields(data, self._delimiter, f"the header of {path}")
        if len(set(columns)) != len(columns):
            twice = next(c for c in columns if columns.count(c) > 1)
            raise WrongInput(f"the header of {path} names the column {twice!r} twice; give each column its own name")
        if self._columns and columns != self._columns:
            raise WrongInput(
                f"the header of {path} is {columns}, but that of the first file is {self._columns}; make them equal"
            )
        self._columns = columns

    def _decode(self, data: bytes, what: str) -> dict[str, str] | list[str]:
        fields = _fields(data, self._delimiter, what)
        if not self._header:
            return fields
        if len(fields) != len(self._columns):
            raise WrongInput(
                f"{what} has {len(fields)} fields, but the header has {len(self._columns)}; correct the row"
            )
        return dict(zip(self._columns, fields, strict=True))


def _fields(data: bytes, delimiter: str, what: str) -> list[str]:
    try:
        text = data.decode("utf-8")
        rows = list(csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True))
    except UnicodeDecodeError:
        raise WrongInput(f"{what} is not UTF-8 text; convert the file to UTF-8") from None
    except csv.Error as error:
        raise WrongInput(f"{what} is not CSV: {error}; correct the row") from None
    if len(rows) != 1:
        raise WrongInput(
            f"{what} is {len(rows)} rows: a quote stands within an unquoted field, or lines end with \\r alone; "
            "quote fields as RFC 4180 says and end lines with \\n"
        )
    return rows[0]


def _row_bounds(data: NDArray[np.uint8], path: str) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Finds where rows start and end (without line break): a line break ends a row where quotes are balanced."""
    found: list[NDArray[np.int64]] = []
    within = False
    for start in range(0, len(data), _CHUNK):
        part = data[start : start + _CHUNK]
        quoted = np.logical_xor.accumulate(part == _QUOTE) ^ within
        found.append(np.flatnonzero((part == _NEWLINE) & ~quoted) + start)
        within = bool(quoted[-1])
    if within:
        raise WrongInput(f"{path} ends within a quoted field; close the quote or copy the file again")
    breaks = np.concatenate([*found, [len(data)]]).astype(np.int64)
    first = len(_BOM) if data[: len(_BOM)].tobytes() == _BOM else 0
    starts = np.concatenate([[first], breaks[:-1] + 1]).astype(np.int64)
    ends = breaks.copy()
    last = np.maximum(ends - 1, 0)
    if len(data):
        ends -= (ends > starts) & (data[last] == _RETURN)
    kept = ends > starts
    return starts[kept], ends[kept]
