"""Records of files: each has an address (file, offset, length); one is read with one `pread`."""

from __future__ import annotations

import functools
import glob
import os
from abc import abstractmethod
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tfleet.data.source import Batch, Indices, Source, Tree
from tfleet.data.tree import PARTS, join, numbers, unpack
from tfleet.spec.errors import JobFailed, TfleetError, WrongInput

Paths = str | Path | Iterable[str | Path]
Spans = tuple[NDArray[np.int64], NDArray[np.int64]]
"""Offsets and lengths in bytes of the records of one file, in order."""

_OPEN_FILES = 128


class RecordFiles(Source):
    """Records of one kind of files, parsed by the user's function.

    Args:
        paths: a path, a glob pattern (`**` goes into folders), or several of both; a pattern's files are taken in
            sorted order, so that addresses are the same in every process.
        parse: makes one sample of a record: (x,), (x, y) or (x, y, sample_weight), without the dimension of samples.
            In it arrays, numbers, and flat or nested lists and tuples of numbers are leaves; samples are stacked.

    Raises:
        WrongInput: when a file is missing or not of this kind, or there is no record in all of them.
    """

    def __init__(self, paths: Paths, parse: Callable[[Any], Any]) -> None:
        if not callable(parse):
            raise WrongInput(f"parse is a {type(parse).__name__}, but a function that makes a sample is needed")
        self._parse = parse
        self._paths = expand(paths)
        # A file closes when the cache has dropped it and the last reader has let go of it.
        self._open = functools.lru_cache(maxsize=_OPEN_FILES)(_File)
        spans = [self._scan(path) for path in self._paths]
        self._offsets = np.concatenate([offsets for offsets, _ in spans])
        self._lengths = np.concatenate([lengths for _, lengths in spans])
        self._first = np.cumsum([0] + [len(offsets) for offsets, _ in spans])
        if not len(self._offsets):
            raise WrongInput(f"there is no record in {_told(self._paths)}; give files with at least one")

    @abstractmethod
    def _scan(self, path: str) -> Spans:
        """Finds the records of a file; raises WrongInput when it is not of this kind."""

    @abstractmethod
    def _decode(self, data: bytes, what: str) -> Any:
        """Makes what `parse` takes of the bytes of a record; raises WrongInput when they are damaged."""

    def __len__(self) -> int:
        """Returns the number of records in all files."""
        return len(self._offsets)

    def batch(self, indices: Indices) -> Batch:
        """Reads, parses and stacks records; see `Source.batch`.

        Raises:
            WrongInput: when a record is damaged, or `parse` fails, or its samples do not fit together.
            JobFailed: when a file cannot be read any more, which may pass.
        """
        samples = [self._sample(int(i)) for i in indices]
        what = f"parse ({_told(self._paths)})"
        x, y, weight = (join([s[k] for s in samples], np.stack, PARTS[k], what) for k in range(3))
        return Batch(x, y, weight, len(samples))

    def _sample(self, index: int) -> tuple[Tree, Tree, Tree]:
        number = int(np.searchsorted(self._first, index, side="right")) - 1
        path = self._paths[number]
        what = f"record {index - int(self._first[number]) + 1} of {path}"
        length = int(self._lengths[index])
        try:
            file = self._open(path)  # held until it is read: another thread may drop it from the cache meanwhile
            data = os.pread(file.handle, length, int(self._offsets[index]))
        except OSError as error:
            raise JobFailed(f"{what} cannot be read: {error.strerror}; make the file readable and resume") from error
        if len(data) != length:
            raise WrongInput(f"{what} is cut short: the file changed during the job; leave data files alone")
        record = self._decode(data, what)
        try:
            sample = self._parse(record)
        except TfleetError:
            raise
        except Exception as error:
            raise WrongInput(
                f"parse failed on {what} with {type(error).__name__}: {error}; correct parse or the record"
            ) from error
        x, y, weight = unpack(sample, f"what parse returned for {what}")
        return _arrays(x, "x", what), _arrays(y, "y", what), _arrays(weight, "sample_weight", what)


def expand(paths: Paths) -> list[str]:
    """Returns the files that paths and glob patterns name, those of a pattern sorted.

    Raises:
        WrongInput: when one names no file.
    """
    given = [paths] if isinstance(paths, str | Path) else list(paths)
    found: list[str] = []
    for path in map(str, given):
        files = (
            [path] if os.path.isfile(path) else sorted(f for f in glob.glob(path, recursive=True) if os.path.isfile(f))
        )
        if not files:
            raise WrongInput(f"there is no file {path}; give an existing path or a pattern that matches files")
        found += files
    if not found:
        raise WrongInput("no data file is given; give a path, a pattern, or a list of them")
    return found


def cannot_read(path: str, error: OSError) -> WrongInput:
    """Returns the error for a data file that cannot be opened at the start."""
    return WrongInput(f"the data file {path} cannot be read: {error.strerror}; make it readable")


class _File:
    """An open file that closes with its last reference."""

    def __init__(self, path: str) -> None:
        self.handle = os.open(path, os.O_RDONLY)

    def __del__(self) -> None:
        if hasattr(self, "handle"):
            os.close(self.handle)


def _arrays(tree: Tree, name: str, what: str) -> Tree:
    """Turns leaves into arrays; a list or tuple of plain numbers is one array, not a structure."""
    if isinstance(tree, dict):
        return {key: _arrays(value, f"{name}[{key!r}]", what) for key, value in tree.items()}
    if isinstance(tree, list | tuple) and not _plain(tree):
        values = [_arrays(value, f"{name}[{i}]", what) for i, value in enumerate(tree)]
        return values if isinstance(tree, list) else tuple(values)
    return None if tree is None else numbers(f"{name} of {what}", tree)


def _plain(value: Any) -> bool:
    if isinstance(value, list | tuple):
        return bool(value) and all(_plain(v) for v in value)
    return isinstance(value, int | float | np.generic)


def _told(paths: list[str]) -> str:
    return paths[0] if len(paths) == 1 else f"{paths[0]} and {len(paths) - 1} more"
