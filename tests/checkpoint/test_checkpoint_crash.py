"""Killed at any moment, the last commit still loads: processes by SIGKILL, machines by loss of power (simulated)."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tfleet.checkpoint.disk import Disk
from tfleet.checkpoint.store import Store
from tfleet.testing.checkpoints import make_commit, vectors


class Died(BaseException):
    """The process ends here; nothing it would do afterwards happens."""


@dataclass
class _Content:
    now: bytes = b""
    stable: bytes = b""


@dataclass
class MortalDisk(Disk):
    """A folder in memory that ends after `calls` calls and knows what stable storage may hold then.

    What was not synced may be there or not, name by name and file by file: the worst that POSIX allows.
    """

    directory: Path
    calls: int
    names: dict[str, _Content] = field(default_factory=dict)
    stable: dict[str, _Content] = field(default_factory=dict)
    changes: list[tuple[str, str, _Content]] = field(default_factory=list)
    handles: dict[int, _Content] = field(default_factory=dict)

    def _tick(self) -> None:
        self.calls -= 1
        if self.calls < 0:
            raise Died

    def create(self, path: Path) -> int:
        self._tick()
        handle = super().create(path)
        self.handles[handle] = self.names[path.name] = _Content()
        self.changes.append(("add", path.name, self.names[path.name]))
        return handle

    def write(self, handle: int, data: memoryview) -> int:
        for piece in (data[: len(data) // 2], data[len(data) // 2 :]):
            self.handles[handle].now += piece
            super().write(handle, piece)
            self._tick()
        return len(data)

    def sync(self, handle: int) -> None:
        self._tick()
        self.handles[handle].stable = self.handles[handle].now

    def close(self, handle: int) -> None:
        super().close(handle)
        self._tick()

    def rename(self, old: Path, new: Path) -> None:
        self._tick()
        super().rename(old, new)
        content = self.names.pop(old.name)
        self.names[new.name] = content
        self.changes += [("remove", old.name, content), ("add", new.name, content)]

    def remove(self, path: Path) -> None:
        self._tick()
        super().remove(path)
        self.changes.append(("remove", path.name, self.names.pop(path.name)))

    def sync_directory(self, path: Path) -> None:
        self._tick()
        self.stable = dict(self.names)
        self.changes.clear()

    def lose_power(self, happened: Callable[[int, int], bool]) -> None:
        """Leaves in the folder what stable storage holds: `happened(i, n)` decides on the i-th of n changes."""
        for i, (what, name, content) in enumerate(self.changes):
            if happened(i, len(self.changes)):
                if what == "add":
                    self.stable[name] = content
                else:
                    self.stable.pop(name, None)
        for path in self.directory.iterdir():
            path.unlink()
        for name, content in self.stable.items():
            whole = content.stable == content.now or happened(0, 1)
            (self.directory / name).write_bytes(content.now if whole else content.stable)


def lead(store: Store, committed: Callable[[int], None]) -> None:
    """What a coordinator does: a generation, some commits, old ones pruned."""
    generation = store.generation() + 1
    store.store_generation(generation)
    committed(-generation)
    for _ in range(2):
        number = store.next_number()
        make_commit(store, number, generation, size=5, ps=1)
        committed(number)
        store.prune(1)


def calls_of_lead(directory: Path) -> int:
    disk = MortalDisk(directory, 10**6)
    lead(Store(directory, disk), lambda _: None)
    return 10**6 - disk.calls


def check_goes_on(directory: Path, done: list[int]) -> None:
    """All that was reported done is there, and another coordinator goes on from it."""
    store, endless = Store(directory), MortalDisk(directory, 10**6)
    numbers = [number for number in done if number >= 0]
    newest, refused = store.newest()
    assert store.generation() >= max((-number for number in done if number < 0), default=0)
    assert refused == []
    assert [store.get(number).number for number in store.numbers()] == store.numbers()
    if numbers:
        assert newest is not None
        assert newest.number >= numbers[-1]
        assert store.read(newest, 0, 5)[0].tobytes() == vectors(newest.number, 5)["parameters"].tobytes()
    for name in (path.name for path in directory.iterdir()):
        endless.names[name] = _Content()
    lead(Store(directory, endless), lambda _: None)
    after, refused = store.newest()
    assert refused == []
    assert after is not None
    assert after.number >= 1
    assert len([path for path in directory.iterdir() if path.name.startswith("commit")]) == 3


PATTERNS: dict[str, Callable[[int, int], bool]] = {
    "none": lambda i, n: False,
    "all": lambda i, n: True,
    "last": lambda i, n: i == n - 1,
    "first": lambda i, n: i == 0,
}


def test_every_call_may_be_the_last_of_the_machine(tmp_path: Path) -> None:
    (tmp_path / "count").mkdir()
    for calls in range(calls_of_lead(tmp_path / "count")):
        for name, happened in PATTERNS.items():
            directory = tmp_path / f"{calls}-{name}"
            directory.mkdir()
            lose_power_after(directory, calls, happened)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 72), st.data())
def test_whatever_was_not_synced_may_be_lost(
    tmp_path_factory: pytest.TempPathFactory, calls: int, data: st.DataObject
) -> None:
    lose_power_after(tmp_path_factory.mktemp("power"), calls, lambda i, n: data.draw(st.booleans()))


def lose_power_after(directory: Path, calls: int, happened: Callable[[int, int], bool]) -> None:
    disk = MortalDisk(directory, calls)
    done: list[int] = []
    with contextlib.suppress(Died):
        lead(Store(directory, disk), done.append)
    disk.lose_power(happened)
    check_goes_on(directory, done)


KILLED = """
import os, signal, sys
from pathlib import Path
from tfleet.checkpoint.disk import Disk
from tfleet.checkpoint.store import Store
from tfleet.testing.checkpoints import make_commit

class Killed(Disk):
    def __getattribute__(self, name):
        if name == sys.argv[2]:
            left[0] -= 1
            if left[0] < 0:
                os.kill(os.getpid(), signal.SIGKILL)
        return super().__getattribute__(name)

left = [int(sys.argv[3])]
store = Store(Path(sys.argv[1]), Killed())
make_commit(store, 1, 1, size=5)
store.prune(1)
"""


@pytest.mark.processes
@pytest.mark.parametrize(
    ("call", "times"), [("create", 3), ("write", 1), ("sync", 3), ("rename", 0), ("sync_directory", 3), ("remove", 1)]
)
def test_a_killed_process_leaves_a_commit(tmp_path: Path, call: str, times: int) -> None:
    make_commit(Store(tmp_path), 0, 1, size=5)
    result = subprocess.run([sys.executable, "-c", KILLED, str(tmp_path), call, str(times)], env=dict(os.environ))
    assert result.returncode == -signal.SIGKILL
    made = call in ("sync_directory", "remove")
    newest, refused = Store(tmp_path).newest()
    assert (newest is not None and newest.number, refused) == (int(made), [])
    check_goes_on(tmp_path, [int(made)])
