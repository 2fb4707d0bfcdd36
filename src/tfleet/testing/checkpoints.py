"""Conformance suite of a checkpoint store that keeps its commits in a folder, and a helper that makes small commits.

Derive a test class and say how your store is opened; pytest finds the tests in it:

```
class TestMyStore(CheckpointStoreConformance):
    def open(self, directory: Path) -> Store:
        return MyStore(directory)
```
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tfleet.checkpoint.errors import CommitDamaged, CommitFailed
from tfleet.checkpoint.manifest import Manifest, Part
from tfleet.checkpoint.names import is_manifest
from tfleet.checkpoint.store import Store
from tfleet.checkpoint.tensors import Vector
from tfleet.spec.layout import Layout, Variable

SLOTS = ("momentum", "velocity")


def vectors(number: int, size: int) -> dict[str, Vector]:
    """Returns `parameters` and both slots, float32 [size] each, different for each number; any bits, NaN too."""
    generator = np.random.default_rng(number)
    return {name: np.frombuffer(generator.bytes(4 * size), np.float32) for name in ("parameters", *SLOTS)}


def even_bounds(size: int, ps: int) -> list[tuple[int, int]]:
    """Splits [0, size) into `ps` ranges of about the same length, at any parameter; some may be empty."""
    cuts = [size * i // ps for i in range(ps + 1)]
    return list(pairwise(cuts))


def write_parts(
    store: Store, number: int, generation: int, size: int, bounds: Sequence[tuple[int, int]]
) -> tuple[Part, ...]:
    """Writes what each ps would write of `vectors(number, size)`; blocks.

    Raises:
        CommitFailed: as `Store.write_part`.
    """
    whole = vectors(number, size)
    return tuple(
        store.write_part(
            number,
            generation,
            index,
            low,
            high,
            whole["parameters"][low:high],
            {name: whole[name][low:high] for name in SLOTS},
            iterations=10 * number + index,
        )
        for index, (low, high) in enumerate(bounds)
    )


def make_commit(store: Store, number: int, generation: int = 1, size: int = 23, ps: int = 2, **fields: Any) -> Manifest:
    """Writes a whole small commit; `fields` replace those of its manifest. Blocks.

    Raises:
        CommitFailed: as `Store.write_manifest`.
    """
    parts = write_parts(store, number, generation, size, even_bounds(size, ps))
    state = store.write_state(number, generation, np.array([number, 0.5], np.float32), np.empty(0, np.float32))
    values: dict[str, Any] = {
        "number": number,
        "generation": generation,
        "step": 100 * number,
        "time": 1.7e9 + number,
        "parameters": size,
        "parts": parts,
        "state": state,
        "layout": Layout((Variable("dense/kernel", (size,)),), (Variable("mean", (2,)),)).to_json(),
        "optimizer": {"name": "adam", "beta_1": 0.9},
        "ledger": {"epoch": 0, "acknowledged": [[0, 20 * number]]},
        "settings": {"batch_size": 20, "seed": 0, "strategy": "async", "xla": False, "threads": 1},
        "metrics": {"loss": 0.1},
    }
    manifest = Manifest.model_validate({**values, **fields})
    store.write_manifest(manifest)
    return manifest


class CheckpointStoreConformance(ABC):
    """What every checkpoint store promises."""

    @abstractmethod
    def open(self, directory: Path) -> Store:
        """Returns a store on a folder that exists, with whatever commits are in it."""

    def test_an_empty_folder_holds_no_commit(self, tmp_path: Path) -> None:
        """Nothing is found, and nothing complained about."""
        store = self.open(tmp_path)
        assert store.newest() == (None, [])
        assert store.numbers() == []
        assert (store.generation(), store.next_number()) == (0, 0)

    @pytest.mark.parametrize("size", [0, 1, 2, 23])
    @pytest.mark.parametrize("ps", [1, 2, 5])
    def test_a_commit_comes_back_bit_equal_into_any_number_of_ps(self, tmp_path: Path, size: int, ps: int) -> None:
        """Also when a ps holds nothing."""
        made = make_commit(self.open(tmp_path), 3, size=size, ps=ps)
        store = self.open(tmp_path)
        manifest, refused = store.newest()
        assert (manifest, refused) == (made, [])
        whole = vectors(3, size)
        for restored in (1, 2, 3, 7):
            for low, high in even_bounds(size, restored):
                parameters, slots = store.read(made, low, high)
                assert parameters.tobytes() == whole["parameters"][low:high].tobytes()
                assert {n: v.tobytes() for n, v in slots.items()} == {n: whole[n][low:high].tobytes() for n in SLOTS}

    def test_state_and_frozen_values_come_back(self, tmp_path: Path) -> None:
        """Empty vectors too."""
        store = self.open(tmp_path)
        state, frozen = store.read_state(make_commit(store, 3))
        assert (state.tolist(), frozen.tolist()) == ([3, 0.5], [])

    def test_without_its_manifest_a_commit_does_not_exist(self, tmp_path: Path) -> None:
        """But its number is used up."""
        store = self.open(tmp_path)
        made = make_commit(store, 1)
        write_parts(store, 2, 1, 23, even_bounds(23, 2))
        assert store.newest() == (made, [])
        assert store.numbers() == [1]
        assert store.next_number() == 3

    def test_the_newest_number_of_the_latest_generation_is_newest(self, tmp_path: Path) -> None:
        """A commit that a replaced coordinator got out late does not win."""
        store = self.open(tmp_path)
        for number, generation in ((2, 1), (10, 1), (9, 1)):
            make_commit(store, number, generation)
        assert _newest(store).number == 10
        made = make_commit(store, 3, generation=2)
        assert store.newest() == (made, [])
        assert store.numbers() == [2, 3, 9, 10]
        again = make_commit(store, 9, generation=3)
        assert store.get(9) == again

    def test_any_damaged_file_makes_the_commit_before_count(self, tmp_path: Path) -> None:
        """The newer one is named, and refused when it is asked for."""
        store = self.open(tmp_path)
        good = make_commit(store, 1)
        before = _files(tmp_path)
        make_commit(store, 2)
        for path in sorted(_files(tmp_path) - before):
            data = path.read_bytes()
            path.write_bytes(data[:-2] + bytes([data[-2] ^ 1]) + data[-1:])
            newest, refused = store.newest()
            assert newest == good
            assert len(refused) == 1
            assert "commit 2" in refused[0]
            with pytest.raises(CommitDamaged, match="commit 2"):
                store.get(2)
            path.write_bytes(data)
        assert _newest(store).number == 2
        assert store.get(1) == good

    def test_a_manifest_read_long_ago_does_not_hide_damage(self, tmp_path: Path) -> None:
        """Reading verifies again."""
        store = self.open(tmp_path)
        made = make_commit(store, 1, ps=1)
        for path in _files(tmp_path):
            data = path.read_bytes()
            path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
        with pytest.raises(CommitDamaged):
            store.read(made, 0, 3)
        with pytest.raises(CommitDamaged):
            store.read_state(made)

    def test_nothing_is_overwritten(self, tmp_path: Path) -> None:
        """Neither by a second try of the same file nor by the same number in another generation."""
        store = self.open(tmp_path)
        first = make_commit(store, 1)
        before = {path: path.read_bytes() for path in _files(tmp_path)}
        second = write_parts(store, 1, 1, 23, even_bounds(23, 2))
        make_commit(store, 1, generation=2)
        with pytest.raises(CommitFailed, match="already"):
            store.write_manifest(first.model_copy(update={"generation": 2}))
        assert {part.name for part in second}.isdisjoint(part.name for part in first.parts)
        assert {path: path.read_bytes() for path in before} == before

    def test_a_generation_is_stored_once_and_never_goes_down(self, tmp_path: Path) -> None:
        """Of two that claim one generation, one gets it; commits count as well."""
        store, other = self.open(tmp_path), self.open(tmp_path)
        store.store_generation(1)
        with pytest.raises(CommitFailed, match="generation 1"):
            other.store_generation(1)
        other.store_generation(12)
        with pytest.raises(CommitFailed, match="generation 11"):
            store.store_generation(11)
        assert self.open(tmp_path).generation() == 12
        make_commit(store, 1, generation=13)
        assert self.open(tmp_path).generation() == 13
        with pytest.raises(CommitFailed, match="generation 13"):
            store.store_generation(13)

    def test_a_replaced_coordinator_cannot_commit(self, tmp_path: Path) -> None:
        """Once a later generation is stored."""
        store = self.open(tmp_path)
        store.store_generation(1)
        made = make_commit(store, 1, generation=1)
        self.open(tmp_path).store_generation(2)
        with pytest.raises(CommitFailed, match="generation 2"):
            make_commit(store, 2, generation=1)
        assert store.newest() == (made, [])

    def test_a_commit_that_lacks_a_part_cannot_be_made(self, tmp_path: Path) -> None:
        """As when a ps writes to a disk of its own."""
        here, there = tmp_path / "here", tmp_path / "there"
        here.mkdir()
        there.mkdir()
        parts = write_parts(self.open(there), 1, 1, 23, even_bounds(23, 2))
        with pytest.raises(CommitFailed, match="share"):
            make_commit(self.open(here), 1, parts=parts, ps=1)
        assert self.open(here).newest() == (None, [])

    def test_prune_keeps_the_newest_and_the_protected(self, tmp_path: Path) -> None:
        """And leaves no file of the others."""
        store = self.open(tmp_path)
        for number in range(6):
            make_commit(store, number)
        kept = {number: store.get(number) for number in (1, 4, 5)}
        store.prune(2, protect={1})
        assert store.numbers() == [1, 4, 5]
        assert {number: store.get(number) for number in kept} == kept
        alone = tmp_path / "alone"
        alone.mkdir()
        for number in kept:
            make_commit(self.open(alone), number)
        assert {path.name for path in tmp_path.iterdir()} - {"alone"} == {path.name for path in alone.iterdir()}

    def test_prune_leaves_what_is_being_written(self, tmp_path: Path) -> None:
        """And removes what an unfinished commit left behind."""
        store = self.open(tmp_path)
        left = write_parts(store, 1, 1, 23, even_bounds(23, 2))
        again = write_parts(store, 3, 2, 23, even_bounds(23, 2))
        writing = write_parts(store, 2, 2, 23, even_bounds(23, 2))
        made = make_commit(store, 3, generation=2)
        ahead = write_parts(store, 4, 2, 23, even_bounds(23, 2))
        store.prune(1, writing={2})
        there = {path.name for path in tmp_path.iterdir()}
        assert there.isdisjoint(part.name for part in (*left, *again))
        assert there.issuperset(part.name for part in (*writing, *ahead))
        assert store.newest() == (made, [])

    def test_prune_never_counts_a_commit_with_a_missing_file(self, tmp_path: Path) -> None:
        """So that a damaged newest one does not cost the last good one."""
        store = self.open(tmp_path)
        good = make_commit(store, 1)
        before = _files(tmp_path)
        make_commit(store, 2)
        parts = [path for path in _files(tmp_path) - before if not is_manifest(path.name)]
        parts[0].unlink()
        there = _files(tmp_path)
        store.prune(1)
        newest, refused = store.newest()
        assert newest == good
        assert len(refused) == 1
        assert _files(tmp_path) == there
        made = make_commit(store, 3)
        store.prune(1)
        assert (store.newest(), store.numbers()) == ((made, []), [3])


def _files(directory: Path) -> set[Path]:
    return {path for path in directory.rglob("*") if path.is_file()}


def _newest(store: Store) -> Manifest:
    manifest, _ = store.newest()
    assert manifest is not None
    return manifest
