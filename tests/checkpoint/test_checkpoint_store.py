from __future__ import annotations

import errno
import os
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from tfleet.checkpoint.disk import BLOCK, Disk
from tfleet.checkpoint.errors import CommitDamaged, CommitFailed
from tfleet.checkpoint.names import Key
from tfleet.checkpoint.store import Store
from tfleet.spec.errors import TfleetError
from tfleet.testing.checkpoints import CheckpointStoreConformance, make_commit, vectors


class TestStore(CheckpointStoreConformance):
    def open(self, directory: Path) -> Store:
        return Store(directory)


class FailingDisk(Disk):
    """Works for `good` calls; each later one but a removal fails; a failing write writes half of its bytes first."""

    def __init__(self, good: int, number: int) -> None:
        self.left = good
        self.number = number

    def _count(self) -> None:
        self.left -= 1
        if self.left < 0:
            raise OSError(self.number, os.strerror(self.number))

    def create(self, path: Path) -> int:
        self._count()
        return super().create(path)

    def write(self, handle: int, data: memoryview) -> int:
        try:
            self._count()
        except OSError:
            super().write(handle, data[: len(data) // 2])
            raise
        return super().write(handle, data)

    def sync(self, handle: int) -> None:
        self._count()
        super().sync(handle)

    def close(self, handle: int) -> None:
        super().close(handle)
        self._count()

    def rename(self, old: Path, new: Path) -> None:
        self._count()
        super().rename(old, new)

    def sync_directory(self, path: Path) -> None:
        self._count()
        super().sync_directory(path)


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO])
def test_a_full_or_broken_disk_is_one_sentence_and_harms_nothing(tmp_path: Path, number: int) -> None:
    made = make_commit(Store(tmp_path), 1)
    before = set(tmp_path.iterdir())
    counting = FailingDisk(10**6, number)
    good_dir = tmp_path / "good"
    good_dir.mkdir()
    make_commit(Store(good_dir, counting), 2)
    for good in range(10**6 - counting.left):
        # Another number each time, since what earlier tries left would cost calls.
        with pytest.raises(CommitFailed) as failed:
            make_commit(Store(tmp_path, FailingDisk(good, number)), 2 + good)
        told = f"commit {2 + good} could not be written to {tmp_path}: {os.strerror(number)};"
        assert str(failed.value).startswith(told)
        assert Store(tmp_path).newest() == (made, [])
        assert before <= set(tmp_path.iterdir())


def test_what_a_failed_write_left_is_removed(tmp_path: Path) -> None:
    store = Store(tmp_path, FailingDisk(2, errno.ENOSPC))
    with pytest.raises(CommitFailed):
        store.write_part(1, 1, 0, 0, 3, np.zeros(3, np.float32), {}, iterations=0)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_gone_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(CommitFailed, match="No such file or directory"):
        make_commit(Store(tmp_path / "gone"), 1)
    assert Store(tmp_path / "gone").newest() == (None, [])


def test_a_folder_that_is_a_file_is_one_sentence(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("")
    for call in (Store(path).newest, Store(path).generation, lambda: Store(path).prune(1)):
        with pytest.raises(TfleetError, match="cannot be read"):
            call()


def test_a_commit_pruned_while_we_look_is_not_complained_about(tmp_path: Path) -> None:
    class Racing(Store):
        def _commits(self) -> list[Key]:
            return [*super()._commits(), Key(1, 9)]

    made = make_commit(Store(tmp_path), 1)
    assert Racing(tmp_path).newest() == (made, [])


def test_of_two_that_race_for_generations_the_later_wins(tmp_path: Path) -> None:
    class Racing(Disk):
        def create(self, path: Path) -> int:
            Store(tmp_path).store_generation(6)
            return super().create(path)

    with pytest.raises(CommitFailed, match=r"generation 5 .* taken"):
        Store(tmp_path, Racing()).store_generation(5)
    assert Store(tmp_path).generation() == 6


def test_files_of_others_are_left_alone(tmp_path: Path) -> None:
    others = {"notes.txt", "commit-1", "commit-0000000001.g00001.part-000.safetensors.bak", "generation-x"}
    for name in others:
        (tmp_path / name).touch()
    store = Store(tmp_path)
    store.store_generation(1)
    make_commit(store, 2)
    make_commit(store, 3)
    store.prune(1)
    assert (store.generation(), store.numbers()) == (1, [3])
    assert others <= {path.name for path in tmp_path.iterdir()}


def test_an_unknown_number_is_answered_with_those_there_are(tmp_path: Path) -> None:
    store = Store(tmp_path)
    make_commit(store, 1)
    make_commit(store, 2)
    with pytest.raises(CommitDamaged, match=r"no commit 7 .* 1, 2"):
        store.get(7)


def test_a_manifest_under_the_name_of_another_commit_is_refused(tmp_path: Path) -> None:
    store = Store(tmp_path)
    made = make_commit(store, 1)
    manifest = next(tmp_path.glob("*.json"))
    manifest.with_name(manifest.name.replace("01.g", "02.g")).write_bytes(manifest.read_bytes())
    newest, refused = store.newest()
    assert newest == made
    assert "another commit" in refused[0]


def test_a_range_outside_is_a_defect_of_the_caller(tmp_path: Path) -> None:
    store = Store(tmp_path)
    made = make_commit(store, 1, size=23)
    for low, high in ((-1, 2), (3, 2), (0, 24)):
        with pytest.raises(ValueError, match="not within"):
            store.read(made, low, high)


@pytest.mark.parametrize(
    "vector", [np.zeros(4, np.float32), np.zeros(3), np.zeros((3, 1), np.float32), np.zeros(6, np.float32)[::2]]
)
def test_a_vector_of_another_kind_is_refused_before_a_file_is_made(tmp_path: Path, vector: np.ndarray) -> None:
    store = Store(tmp_path)
    good = np.zeros(3, np.float32)
    with pytest.raises(ValueError, match=r"shape|float32"):
        store.write_part(1, 1, 0, 0, 3, vector, {}, iterations=0)
    with pytest.raises(ValueError, match=r"shape|float32"):
        store.write_part(1, 1, 0, 0, 3, good, {"m": vector}, iterations=0)
    assert list(tmp_path.iterdir()) == []


def test_iterations_of_a_range_are_the_most_of_its_parts(tmp_path: Path) -> None:
    made = make_commit(Store(tmp_path), 4, size=20, ps=2)
    assert [made.iterations(*bounds) for bounds in ((0, 10), (10, 20), (9, 11), (5, 5))] == [40, 41, 41, 41]


def test_writing_and_reading_copy_nothing(tmp_path: Path) -> None:
    store, size = Store(tmp_path), 4 * BLOCK // 4
    values = vectors(0, size)
    tracemalloc.start()
    try:
        make_commit_peak = _peak(
            lambda: store.write_part(0, 1, 0, 0, size, values["parameters"], {"m": values["momentum"]}, iterations=0)
        )
        made = make_commit(store, 1, size=size, ps=1)
        read_peak = _peak(lambda: store.read(made, 10, size - 10))
    finally:
        tracemalloc.stop()
    assert make_commit_peak < BLOCK // 4
    assert read_peak < 3 * 4 * size + 2 * BLOCK


def _peak(call) -> int:
    tracemalloc.reset_peak()
    start = tracemalloc.get_traced_memory()[0]
    call()
    return tracemalloc.get_traced_memory()[1] - start
