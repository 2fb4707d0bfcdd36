"""Commits: all partitions, the state and the ledger at one cut, without stopping the workers.

Under async a cut is found in two phases (after Chandy & Lamport, "Distributed Snapshots", 1985, for the star that ps
and workers form): every partition holds back new sequences and tells its (worker, sequence) table; the largest
sequence of each worker is the cut; each partition lets pushes up to the cut in, copies its slice, and goes on. Under
sync all partitions stand at the same step between steps, so they just copy. The files are written while training goes
on; the manifest comes last.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tfleet.checkpoint.manifest import Manifest, Part
from tfleet.checkpoint.store import Store
from tfleet.server import background
from tfleet.server.links import Links, Values
from tfleet.strategies.rule import Vector
from tfleet.wire.loop import Loop

LATER = 100
"""So many commits may be made while old ones are removed: what is protected of them is not known yet."""


@dataclass(frozen=True)
class Facts:
    """What ps 0 adds to the partitions' parts, taken at the moment of the cut."""

    step: int
    ledger: Values
    settings: Values
    layout: Values
    optimizer: Values
    metrics: Values
    parameters: int
    state: Vector
    frozen: Vector


class Commits:
    """Makes commits one after the other.

    Attributes:
        busy: number of the commit under way, or -1.
        last: {"number", "step", "time", "seconds"} of the newest complete commit, or None; seconds that it took are
            None for one of an earlier generation.
        made: how many were made in this generation.
        failed: how many could not be.
    """

    def __init__(self, loop: Loop, store: Store, links: Links, generation: int, keep: int) -> None:
        self.busy = -1
        self.last: dict[str, Any] | None = None
        self.made = self.failed = 0
        self._loop = loop
        self._store = store
        self._links = links
        self._generation = generation
        self._keep = keep
        self._next = store.next_number()

    def start(
        self,
        facts: Callable[[], Facts],
        *,
        step: int,
        hold: bool,
        protect: Callable[[], set[int]],
        copied: Callable[[], None],
        done: Callable[[int], None],
        failed: Callable[[str], None],
    ) -> None:
        """Begins a commit; does not block.

        Args:
            facts: called at the cut, in the moment in which partition 0 is copied.
            step: that is reached, where no pushes are under way.
            hold: whether pushes may be under way, so that a cut has to be found.
            protect: numbers of older commits not to remove.
            copied: called when every partition has its copy.
            done: called with the number when the manifest is on disk.
            failed: called with a sentence when it could not be written; earlier commits are unharmed.
        """
        assert self.busy < 0
        self.busy, self._next = self._next, self._next + 1
        number, began = self.busy, self._loop.now()

        def stop(why: str) -> None:
            if self.busy == number:
                self.busy = -1
                self.failed += 1
                failed(why)

        def cut(tables: list[Values]) -> None:
            table: dict[int, int] = {}
            for entry in tables:
                for member, sequence in entry["table"]:
                    table[member] = max(sequence, table.get(member, 0))
            self._cut(number, step, list(table.items()), facts, written, copied, stop)

        def written(parts: list[Values], at_cut: Facts) -> None:
            def ended(manifest: Manifest) -> None:
                self.busy = -1
                self.made += 1
                took = round(self._loop.now() - began, 3)
                self.last = row(manifest, took)
                done(number)
                keep, later = protect(), frozenset(range(number + 1, number + LATER))
                background.run(self._loop, lambda: self._store.prune(self._keep, keep, later), _nothing, _nothing)

            background.run(self._loop, lambda: self._write(number, parts, at_cut), ended, stop)

        if hold and self._links.count > 1:
            self._links.ask_all("hold", lambda index: {}, cut, stop)
        else:
            self._cut(number, step, [], facts, written, copied, stop)

    def _cut(
        self,
        number: int,
        step: int,
        table: list[tuple[int, int]],
        facts: Callable[[], Facts],
        written: Callable[[list[Values], Facts], None],
        copied: Callable[[], None],
        stop: Callable[[str], None],
    ) -> None:
        taken: list[Facts] = []
        missing = self._links.count

        def one(index: int, result: Values) -> None:
            nonlocal missing
            if "error" in result:
                stop(f"ps {index}: {result['error']}")
                return
            if index == 0:
                taken.append(facts())
            missing -= 1
            if not missing:
                copied()
                self._links.ask_all("written", lambda _: {"number": number}, lambda r: written(r, taken[0]), stop)

        for index in range(self._links.count):
            values = {"number": number, "step": step, "table": table}
            self._links.ask(index, "cut", values, lambda result, index=index: one(index, result))  # type: ignore[misc]

    def _write(self, number: int, parts: list[Values], facts: Facts) -> Manifest:
        state = self._store.write_state(number, self._generation, facts.state, facts.frozen)
        manifest = Manifest(
            number=number,
            generation=self._generation,
            step=facts.step,
            time=time.time(),
            parameters=facts.parameters,
            parts=tuple(Part.model_validate(result["part"]) for result in parts),
            state=state,
            layout=facts.layout,
            optimizer=facts.optimizer,
            ledger=facts.ledger,
            settings=facts.settings,
            metrics=facts.metrics,
        )
        self._store.write_manifest(manifest)
        return manifest


def row(manifest: Manifest, seconds: float | None = None) -> dict[str, Any]:
    """Returns a commit as the status tells it; see `Commits.last`."""
    return {"number": manifest.number, "step": manifest.step, "time": manifest.time, "seconds": seconds}


def _nothing(_: Any) -> None:
    """What a removal of old commits leads to: nothing; the next commit tries again."""
