"""Finding, verifying and reading the commits in a folder, whatever the number of ps that wrote them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from tfleet.checkpoint import names
from tfleet.checkpoint.errors import CommitDamaged
from tfleet.checkpoint.manifest import File, Manifest, decode
from tfleet.checkpoint.names import Key
from tfleet.checkpoint.tensors import Target, Vector, read_into

PARAMETERS = "parameters"
"""Name of the parameters within a part's file; slots are `slot.<name>`."""


def slot(name: str) -> str:
    """Returns the name of an optimizer slot within a part's file."""
    return f"slot.{name}"


class Reader:
    """The commits in one folder, for those who only read: evaluation, export, status.

    Holds no state, so that it sees commits made meanwhile; any number of threads may use it. Every method blocks on the
    disk.

    Attributes:
        directory: where the commits are; when it does not exist there are none.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def numbers(self) -> list[int]:
        """Returns the numbers of all commits in the folder, ascending, verified or not."""
        return sorted({key.number for key in self._commits()})

    def next_number(self) -> int:
        """Returns the number after every one found in the folder, unfinished commits included; 0 in an empty one."""
        used = [key.number for name in self._listing() if (key := names.key_of(name))]
        return max(used, default=-1) + 1

    def newest(self) -> tuple[Manifest | None, list[str]]:
        """Returns the newest commit whose every byte verifies, or None, and a sentence about each newer one.

        Commits of a later generation count as newer.

        Raises:
            WrongInput: a newer tfleet wrote one that is newer than all that verify.
            CommitDamaged: the folder cannot be read.
        """
        refused: list[str] = []
        for key in sorted(self._commits(), reverse=True):
            try:
                return self._verified(key), refused
            except CommitDamaged as error:
                # Gone altogether: pruned while we looked.
                if names.manifest(key) in self._listing():
                    refused.append(str(error))
        return None, refused

    def get(self, number: int) -> Manifest:
        """Returns one commit, of its latest generation, after verifying its every byte.

        Raises:
            CommitDamaged: there is none, or it does not verify.
            WrongInput: a newer tfleet wrote it.
        """
        keys = [key for key in self._commits() if key.number == number]
        if not keys:
            have = ", ".join(map(str, self.numbers())) or "none"
            raise CommitDamaged(f"there is no commit {number} in {self.directory}; those there are: {have}")
        return self._verified(max(keys))

    def read(self, manifest: Manifest, low: int, high: int) -> tuple[Vector, dict[str, Vector]]:
        """Reads parameters [low, high) and their slots, whatever the partitions were when they were written.

        The files that hold any of it are verified again, in the same pass. Takes no memory beyond the result.

        Returns:
            Parameters, float32 [high - low], and slots by name, each of the same length.

        Raises:
            CommitDamaged: a file is gone, unreadable, or differs.
            ValueError: the range is not within the parameters.
        """
        if not 0 <= low <= high <= manifest.parameters:
            raise ValueError(f"[{low}, {high}) is not within [0, {manifest.parameters})")
        vectors = {name: np.empty(high - low, np.float32) for name in (PARAMETERS, *map(slot, manifest.slots))}
        for part in manifest.parts:
            start, end = max(low, part.low), min(high, part.high)
            if start < end:
                ranges = {name: Target(start - part.low, v[start - low : end - low]) for name, v in vectors.items()}
                self._read(manifest.number, part, ranges)
        return vectors[PARAMETERS], {name: vectors[slot(name)] for name in manifest.slots}

    def read_state(self, manifest: Manifest) -> tuple[Vector, Vector]:
        """Reads carried state and frozen values, verifying their file in the same pass.

        Raises:
            CommitDamaged: the file is gone, unreadable, or differs.
        """
        state, frozen = np.empty(manifest.state.state, np.float32), np.empty(manifest.state.frozen, np.float32)
        self._read(manifest.number, manifest.state, {"state": Target(0, state), "frozen": Target(0, frozen)})
        return state, frozen

    def generation(self) -> int:
        """Returns the newest generation that was stored or left its number on a commit; 0 before the first.

        Raises:
            CommitDamaged: the folder cannot be read.
        """
        listing = self._listing()
        stored = [number for name in listing if (number := names.generation_of(name)) is not None]
        return max([*stored, *(key.generation for name in listing if (key := names.key_of(name)))], default=0)

    def _listing(self) -> list[str]:
        try:
            return [path.name for path in self.directory.iterdir()]
        except FileNotFoundError:
            return []
        except OSError as error:
            raise CommitDamaged(
                f"the commits in {self.directory} cannot be read: {error.strerror}; repair the disk or the rights"
            ) from None

    def _commits(self) -> list[Key]:
        return [key for name in self._listing() if names.is_manifest(name) and (key := names.key_of(name))]

    def _load(self, key: Key) -> Manifest:
        path = self.directory / names.manifest(key)
        with self._reading(key.number, path.name):
            manifest = decode(path.read_bytes())
            if manifest.key != key:
                raise ValueError("belongs to another commit than its name says")
        return manifest

    def _verified(self, key: Key) -> Manifest:
        manifest = self._load(key)
        for file in manifest.files:
            self._read(manifest.number, file, {})
        return manifest

    def _read(self, number: int, file: File, targets: Mapping[str, Target]) -> None:
        with self._reading(number, file.name):
            read_into(self.directory / file.name, file.bytes, file.sha256, targets)

    @contextmanager
    def _reading(self, number: int, name: str) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            fault = f"cannot be read: {error.strerror}"
        except ValueError as error:
            fault = str(error)
        else:
            return
        raise CommitDamaged(
            f"commit {number} is damaged: {name} in {self.directory} {fault}; restore the file or use another commit"
        )
