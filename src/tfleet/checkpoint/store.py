"""The commits of one job in one folder: written under new names, made to exist by a manifest, pruned.

A commit is a file for each partition, one for carried state, and a manifest that is written last and names them with
their checksums. Without its manifest a commit does not exist; with it, every byte is known. Nothing is ever
overwritten, so that a process killed at any moment, or a machine that loses power, leaves earlier commits as they were.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Set
from contextlib import contextmanager, suppress
from pathlib import Path

from tfleet.checkpoint import names
from tfleet.checkpoint.disk import Disk, Written, write_file
from tfleet.checkpoint.errors import CommitDamaged, CommitFailed
from tfleet.checkpoint.manifest import File, Manifest, Part, StateFile, encode
from tfleet.checkpoint.names import Key
from tfleet.checkpoint.prune import superfluous
from tfleet.checkpoint.reader import PARAMETERS, Reader, slot
from tfleet.checkpoint.tensors import Vector, pieces


class Store(Reader):
    """The commits in one folder, for the ps, which all see that folder.

    Any number of threads and processes may use one folder at once, as long as each partition has one writer and
    manifests are written by the holder of the newest generation.

    Attributes:
        directory: must exist before the first write.
    """

    def __init__(self, directory: Path, disk: Disk | None = None) -> None:
        """Touches nothing.

        Args:
            directory: of the commits.
            disk: system calls; tests give another.
        """
        super().__init__(directory)
        self._disk = disk or Disk()

    def write_part(
        self,
        number: int,
        generation: int,
        index: int,
        low: int,
        high: int,
        parameters: Vector,
        slots: Mapping[str, Vector],
        *,
        iterations: int,
    ) -> Part:
        """Writes what one ps holds; durable when it returns.

        Takes no copy: the vectors must stay as they are until it returns.

        Args:
            number: of the commit.
            generation: of the coordinator that makes it.
            index: of the ps.
            low: first parameter.
            high: one past the last parameter.
            parameters: float32 [high - low].
            slots: the optimizer's, each float32 [high - low].
            iterations: updates that the optimizer has applied to this partition.

        Returns:
            What the manifest says about the file.

        Raises:
            CommitFailed: the disk is full or broken.
            ValueError: a vector has another length or type.
        """
        vectors = {PARAMETERS: parameters, **{slot(name): slots[name] for name in sorted(slots)}}
        for name, vector in vectors.items():
            if vector.shape != (high - low,):
                raise ValueError(f"{name} has shape {vector.shape} instead of ({high - low},)")
        key = Key(generation, number)
        name, written = self._write(key, lambda attempt: names.part(key, index, attempt), vectors)
        return Part(
            name=name,
            bytes=written.bytes,
            sha256=written.sha256,
            index=index,
            low=low,
            high=high,
            iterations=iterations,
            slots=tuple(sorted(slots)),
        )

    def write_state(self, number: int, generation: int, state: Vector, frozen: Vector) -> StateFile:
        """Writes carried state and frozen values (flat float32 each, may be empty); durable when it returns.

        Raises:
            CommitFailed: the disk is full or broken.
            ValueError: a vector is not flat float32.
        """
        key = Key(generation, number)
        vectors = {"state": state, "frozen": frozen}
        name, written = self._write(key, lambda attempt: names.state(key, attempt), vectors)
        return StateFile(name=name, bytes=written.bytes, sha256=written.sha256, state=state.size, frozen=frozen.size)

    def write_manifest(self, manifest: Manifest) -> None:
        """Makes the commit exist: after this, and not before, it is found by `newest`; durable when it returns.

        Raises:
            CommitFailed: the disk is full or broken, a part is not in this folder, a later generation has begun, or
                this commit exists already.
        """
        target = self.directory / names.manifest(manifest.key)
        with self._writing(f"commit {manifest.number}"):
            if (newest := self.generation()) > manifest.generation:
                raise CommitFailed(
                    f"commit {manifest.number} of generation {manifest.generation} is refused: generation {newest} of "
                    "this job has begun; end this ps, it was replaced"
                )
            if target.exists():
                raise CommitFailed(
                    f"commit {manifest.number} of generation {manifest.generation} is in {self.directory} already; "
                    "give the next one another number"
                )
            for file in manifest.files:
                self._require(file, manifest.number)
            content = encode(manifest)
            temporary, handle = self._create(lambda attempt: names.unfinished_manifest(manifest.key, attempt))
            try:
                write_file(self._disk, handle, [content])
                self._disk.rename(temporary, target)
                self._disk.sync_directory(self.directory)
            except OSError:
                # The caller is told that it failed, so it should not be found after all.
                self._discard(temporary, target)
                raise

    def store_generation(self, generation: int) -> None:
        """Claims a generation before it is used; durable when it returns. Of several that try, one gets it.

        Raises:
            CommitFailed: it is not greater than every one before, or the disk is full or broken.
        """
        taken = CommitFailed(
            f"generation {generation} of the job in {self.directory} is taken already; end this ps, another one leads"
        )
        with self._writing(f"generation {generation}"):
            if self.generation() >= generation:
                raise taken
            try:
                self._disk.close(self._disk.create(self.directory / names.generation(generation)))
            except FileExistsError:
                raise taken from None
            self._disk.sync_directory(self.directory)
        if self.generation() > generation:
            raise taken
        # The greatest counts, so older ones are litter only.
        for name in self._listing():
            number = names.generation_of(name)
            if number is not None and number < generation:
                self._discard(self.directory / name)

    def prune(self, keep: int, protect: Set[int] = frozenset(), writing: Set[int] = frozenset()) -> None:
        """Removes all but the newest `keep` commits and the protected ones, and what unfinished commits left behind.

        Only commits that look whole are counted, so that a damaged newest one never costs the last good one: manifest
        verified, every file there in its full length (not their checksums: that would read everything each time).

        Args:
            keep: at least 1.
            protect: numbers of commits to keep whatever their age.
            writing: numbers of commits that are being written; none of their files is touched.

        Raises:
            CommitFailed: something could not be removed.
            WrongInput: a newer tfleet wrote one of the commits.
        """
        if keep < 1:
            raise ValueError(f"keep is {keep}, and must be at least 1")
        manifests, others = superfluous(self._listing(), self._sound, keep, protect, writing)
        try:
            # A manifest must be gone for good before its files, or a crash leaves one that lists missing files.
            for group in filter(None, (manifests, others)):
                for name in group:
                    with suppress(FileNotFoundError):
                        self._disk.remove(self.directory / name)
                self._disk.sync_directory(self.directory)
        except OSError as error:
            raise CommitFailed(
                f"old commits in {self.directory} could not be removed: {error.strerror}; repair the disk or the rights"
            ) from None

    def _write(self, key: Key, name: Callable[[int], str], vectors: Mapping[str, Vector]) -> tuple[str, Written]:
        content = pieces(vectors, {"number": str(key.number), "generation": str(key.generation)})
        with self._writing(f"commit {key.number}"):
            path, handle = self._create(name)
            try:
                written = write_file(self._disk, handle, content)
                self._disk.sync_directory(self.directory)
            except OSError:
                self._discard(path)
                raise
        return path.name, written

    def _create(self, name: Callable[[int], str]) -> tuple[Path, int]:
        for attempt in itertools.count():
            path = self.directory / name(attempt)
            with suppress(FileExistsError):
                return path, self._disk.create(path)
        raise AssertionError

    @contextmanager
    def _writing(self, what: str) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise CommitFailed(
                f"{what} could not be written to {self.directory}: {error.strerror}; make room or repair the disk "
                "(earlier commits are unharmed)"
            ) from None

    def _discard(self, *paths: Path) -> None:
        for path in paths:
            with suppress(OSError):
                self._disk.remove(path)

    def _require(self, file: File, number: int) -> None:
        path = self.directory / file.name
        if not path.is_file() or path.stat().st_size != file.bytes:
            raise CommitFailed(
                f"commit {number} lacks {file.name}, and every ps must see the same {self.directory}; "
                "put the run directory on storage that all replicas share"
            )

    def _sound(self, key: Key) -> Manifest | None:
        with suppress(CommitDamaged, OSError):
            manifest = self._load(key)
            if all((self.directory / file.name).stat().st_size == file.bytes for file in manifest.files):
                return manifest
        return None
