"""The ledger: which batches of which epoch are leased, acknowledged, or still to do.

A ledger is plain data: no clock, no sockets. It promises that in an epoch every batch is acknowledged exactly once,
whoever joins, leaves or dies. The order of samples is not stored: it follows from (seed, epoch), see `permutation`.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import Any

import numpy as np

from tfleet.wire.frames import Lease

Key = tuple[int, int]
"""(epoch, number of the batch within the epoch)"""


def permutation(seed: int, epoch: int, items: int) -> np.ndarray[Any, np.dtype[np.int64]]:
    """Returns the order of the items in one epoch: int64 [items], the same in every process."""
    return np.random.Generator(np.random.Philox(key=[seed, epoch])).permutation(items)


def batches_in_epoch(items: int, batch: int) -> int:
    """Returns the number of batches of one pass; the last may be smaller."""
    return math.ceil(items / batch)


class Ledger(ABC):
    """What a strategy's order of work has in common.

    Attributes:
        batches: in one epoch.
        total: global steps after which training is over; 0: never.
        step: global steps done.
        duplicates: acknowledgements that were refused because the batch was done or was not the member's.
    """

    def __init__(self, batches: int, total: int) -> None:
        self.batches = batches
        self.total = total
        self.step = 0
        self.duplicates = 0

    @property
    def finished(self) -> bool:
        """Whether every step has been acknowledged."""
        return bool(self.total) and self.step >= self.total

    @property
    def at_boundary(self) -> bool:
        """Whether no step is half done, so that a commit may be made."""
        return True

    @property
    @abstractmethod
    def epoch(self) -> int:
        """The epoch that is being worked on, from 0."""

    @abstractmethod
    def lease(self, member: int, want: int, now: float) -> list[Lease]:
        """Gives up to `want` batches to a member; an empty list when there is none for it now."""

    @abstractmethod
    def acknowledge(self, member: int, key: Key, now: float) -> int:
        """Counts a batch, or the run that begins with it, as done.

        Returns:
            The number of batches; 0 (and nothing changes) when it is not this member's to do.
        """

    @abstractmethod
    def give_back(self, member: int) -> int:
        """Takes a member's unacknowledged batches back for others; returns how many."""

    def rest(self, member: int) -> None:  # noqa: B027 (few ledgers need to know)
        """Is told that a member does something else, such as an evaluation, until it asks for batches again."""

    @abstractmethod
    def cap(self) -> None:
        """Lets what is leased be finished, and nothing more: sets `total` accordingly."""

    @abstractmethod
    def to_json(self) -> dict[str, Any]:
        """Returns what a commit stores; leased and returned batches are to do again after a restore."""

    @abstractmethod
    def restore(self, values: dict[str, Any]) -> None:
        """Goes back to what `to_json` returned."""

    @abstractmethod
    def counts(self) -> dict[str, int]:
        """Returns epoch, and batches acknowledged in all, leased, returned."""
