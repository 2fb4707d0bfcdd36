"""What the events of all ps say about a job that is over: which acknowledgements survive, and what came too late."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

Event = list[Any]


class Tail:
    """Reads a growing file of events, as far as there are whole lines."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._offset = 0
        self._rest = b""

    def read(self) -> list[Event]:
        """Returns the events since the last call."""
        try:
            with self._path.open("rb") as file:
                file.seek(self._offset)
                new = file.read()
        except FileNotFoundError:
            return []
        self._offset += len(new)
        *lines, self._rest = (self._rest + new).split(b"\n")
        return [json.loads(line) for line in lines if line]


def read_events(folder: Path, index: int) -> list[Event]:
    """Returns the events of one ps, oldest first."""
    return Tail(folder / f"ps-{index}.jsonl").read()


@dataclass
class Told:
    """What one ps has told.

    Attributes:
        survived: what counts at the end, after all rollbacks: of `key` events, in order.
        total: of all of them, also those that were rolled back.
        late: pushes that were taken after their member was fenced.
        lost: how many members left as lost.
        generations: that this ps began.
        undone: how many of `key` were rolled back.
    """

    survived: list[Event] = field(default_factory=list)
    total: int = 0
    late: list[Event] = field(default_factory=list)
    lost: int = 0
    generations: int = 0
    undone: int = 0


def replay(events: Iterable[Event], key: str) -> Told:
    """Follows commits and rollbacks.

    Args:
        events: of one ps.
        key: the kind that is counted: `take`, or in ps 0 `ack`.

    Raises:
        ValueError: when a generation goes on from a commit that has no cut.
    """
    told, cuts, fenced = Told(), {-1: 0}, set()
    generation = 0
    for kind, _, *values in events:
        if kind == "begin":
            generation, commit = values
            if commit not in cuts:
                raise ValueError(f"generation {generation} goes on from commit {commit}, of which there is no cut")
            told.undone += len(told.survived) - cuts[commit]
            del told.survived[cuts[commit] :]
            told.generations += 1
            fenced = set()
        elif kind == "cut":
            cuts[values[0]] = len(told.survived)
        elif kind == "fence":
            fenced.add(values[0])
        elif kind == "out":
            told.lost += values[3] == "lost"
        if kind == "take" and values[0] in fenced:
            told.late.append([generation, *values])
        if kind == key:
            told.total += 1
            told.survived.append([generation, *values])
    return told


def ledger_faults(acks: list[Event], epochs: int, batches: int, given_back: int = 0) -> list[str]:
    """Returns what is wrong with the surviving acknowledgements of ps 0; empty: each batch counts once an epoch.

    Args:
        acks: surviving ones.
        epochs: of the job; 0: it was ended in the middle of one.
        batches: in an epoch.
        given_back: batches that nobody had done when it was ended.
    """
    counts = Counter((epoch, batch) for _, _, _, epoch, batch, counted, _ in acks if counted)
    twice = [key for key, number in counts.items() if number > 1]
    whole = epochs or max((epoch for epoch, _ in counts), default=0)
    wanted = {(epoch, batch) for epoch in range(whole) for batch in range(batches)}
    foreign = {key for key in counts if not (key[0] < whole + (not epochs) and 0 <= key[1] < batches)}
    faults = []
    if twice:
        faults.append(f"{len(twice)} batches were acknowledged more than once, such as {twice[0]}")
    for name, keys, allowed in (("missing", wanted - set(counts), given_back), ("not of this job", foreign, 0)):
        if len(keys) > allowed:
            faults.append(f"{len(keys)} acknowledged batches are {name}, such as {min(keys)}")
    return faults


def partial_updates(acks: list[Event], takes: list[list[Event]]) -> set[tuple[int, int, int]]:
    """Returns (generation, member, sequence) of the surviving pushes that some partitions have and others have not.

    Args:
        acks: surviving ones of ps 0; they are pushes that all partitions should have.
        takes: surviving ones of each partition.
    """
    everywhere = [{(g, member, sequence) for g, member, sequence, *_ in taken} for taken in takes]
    acknowledged = {(g, member, sequence) for g, member, sequence, *_ in acks}
    return set.union(acknowledged, *everywhere) - set.intersection(acknowledged, *everywhere)
