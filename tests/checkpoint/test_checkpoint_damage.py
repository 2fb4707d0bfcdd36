"""Whatever happens to any byte of any file of a commit is noticed, and the commit before it is used."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tfleet.checkpoint.errors import CommitDamaged
from tfleet.checkpoint.manifest import Manifest
from tfleet.checkpoint.store import Store
from tfleet.testing.checkpoints import SLOTS, make_commit, vectors, write_parts


@pytest.fixture
def commits(tmp_path: Path) -> tuple[Store, Manifest, list[Path]]:
    """Returns a store with two commits, the older one, and the files of the newer one."""
    store = Store(tmp_path)
    good = make_commit(store, 1, size=3, ps=1)
    before = set(tmp_path.iterdir())
    make_commit(store, 2, size=3)
    return store, good, sorted(set(tmp_path.iterdir()) - before)


def check(store: Store, good: Manifest, path: Path) -> None:
    newest, refused = store.newest()
    assert newest == good
    assert len(refused) == 1
    assert refused[0].startswith(f"commit 2 is damaged: {path.name} in {path.parent} ")


def test_every_flipped_byte_is_noticed(commits: tuple[Store, Manifest, list[Path]]) -> None:
    store, good, files = commits
    assert len(files) == 4
    for path in files:
        data = bytearray(path.read_bytes())
        for place in range(len(data)):
            flip = 1 << place % 8
            data[place] ^= flip
            path.write_bytes(data)
            check(store, good, path)
            data[place] ^= flip
        path.write_bytes(data)
    newest, refused = store.newest()
    assert (newest is not None and newest.number, refused) == (2, [])


def test_every_truncation_and_a_byte_more_is_noticed(commits: tuple[Store, Manifest, list[Path]]) -> None:
    store, good, files = commits
    for path in files:
        data = path.read_bytes()
        for changed in (*(data[:length] for length in range(len(data))), data + b"\n", data + b"\0", data + data):
            path.write_bytes(changed)
            check(store, good, path)
        path.write_bytes(data)


def test_missing_and_unreadable_files_are_noticed(commits: tuple[Store, Manifest, list[Path]]) -> None:
    store, good, files = commits
    for path in files:
        aside = path.rename(path.with_suffix(".aside"))
        if not path.name.endswith(".json"):
            check(store, good, path)
        path.mkdir()
        check(store, good, path)
        path.rmdir()
        aside.rename(path)


def test_files_of_two_commits_swapped_are_noticed(commits: tuple[Store, Manifest, list[Path]]) -> None:
    store, good, files = commits
    parts = [path for path in files if "part" in path.name]
    first, second = parts[0].read_bytes(), parts[1].read_bytes()
    parts[0].write_bytes(second)
    parts[1].write_bytes(first)
    check(store, good, parts[0])


def test_reading_notices_what_happened_since(commits: tuple[Store, Manifest, list[Path]]) -> None:
    store, _, _ = commits
    made = store.get(2)
    path = store.directory / made.parts[1].name
    data = path.read_bytes()
    path.write_bytes(data[:-1])
    with pytest.raises(CommitDamaged, match="bytes instead of"):
        store.read(made, 2, 3)
    first = made.parts[0]
    assert store.read(made, first.low, first.high)[0].size == first.high - first.low
    path.unlink()
    with pytest.raises(CommitDamaged, match="No such file"):
        store.read(made, 2, 3)


bounds = st.lists(st.integers(0, 40), max_size=6)


@settings(max_examples=60)
@given(size=st.integers(0, 40), written=bounds, read=bounds)
def test_any_split_restores_into_any_other(
    tmp_path_factory: pytest.TempPathFactory, size: int, written: list[int], read: list[int]
) -> None:
    store = Store(tmp_path_factory.mktemp("split"))
    parts = write_parts(store, 1, 1, size, split(size, written))
    made = make_commit(store, 1, size=size, ps=1, parts=parts)
    whole = vectors(1, size)
    for low, high in split(size, read):
        parameters, slots = store.read(made, low, high)
        assert parameters.tobytes() == whole["parameters"][low:high].tobytes()
        assert all(slots[name].tobytes() == whole[name][low:high].tobytes() for name in SLOTS)


def split(size: int, places: list[int]) -> list[tuple[int, int]]:
    cuts = [0, *sorted(min(place, size) for place in places), size]
    return list(pairwise(cuts))
