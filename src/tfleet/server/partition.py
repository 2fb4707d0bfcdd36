"""A partition: the slice of the flat parameter vector that one ps holds, and how pushes change it."""

from __future__ import annotations

from typing import Any

import numpy as np

from tfleet.server.optimizers import Optimizer
from tfleet.wire.frames import Push

Vector = np.ndarray[Any, np.dtype[np.float32]]


class Partition:
    """Parameters [low, high), optimizer slots, and (in ps 0) the state that the training call assigns.

    Not thread-safe: one thread owns it.

    Attributes:
        low: first parameter.
        high: the one after the last.
        parameters: float32 [high - low].
        slots: the optimizer's, each float32 [high - low].
        state: float32; empty except in ps 0.
        iteration: updates applied.
    """

    def __init__(
        self, low: int, high: int, optimizer: Optimizer, decay: list[tuple[int, int]], state_size: int = 0
    ) -> None:
        self.low = low
        self.high = high
        self.iteration = 0
        self.parameters: Vector = np.zeros(high - low, np.float32)
        self.slots = {name: np.full(high - low, optimizer.initial(name), np.float32) for name in optimizer.slot_names}
        self.state: Vector = np.zeros(state_size, np.float32)
        self._optimizer = optimizer
        self._decay = decay

    @property
    def size(self) -> int:
        """Number of parameters here."""
        return self.high - self.low

    def load(self, parameters: Vector, slots: dict[str, Vector], iteration: int) -> None:
        """Takes over what a commit held for this range."""
        self.parameters[:] = parameters
        for name, values in slots.items():
            self.slots[name][:] = values
        self.iteration = iteration

    def copy(self) -> tuple[Vector, dict[str, Vector], int]:
        """Returns copies of parameters and slots, and the iteration, for a commit."""
        return self.parameters.copy(), {name: values.copy() for name, values in self.slots.items()}, self.iteration

    def apply(self, gradient: Vector, learning_rate: float) -> None:
        """Applies one update.

        Args:
            gradient: float32 [high - low], left as it is.
            learning_rate: for this update.
        """
        if self.size:
            self._optimizer.apply(self.parameters, gradient, self.slots, self.iteration, learning_rate, self._decay)
        self.iteration += 1


class ApplyAtOnce:
    """The rule of async: every push is applied when it arrives; a state difference is added."""

    def __init__(self, partition: Partition) -> None:
        self._partition = partition

    def take(self, push: Push, gradient: Vector, state: Vector) -> bool:
        """Applies the push; True: the parameters changed."""
        self._partition.apply(gradient, push.learning_rate)
        if len(state):
            self._partition.state += state
        return True


class ApplyTogether:
    """The rule of sync: a step's batches are summed, weighted by samples, and applied when all have arrived.

    The first answer for each batch counts: every worker computes the same gradient for it, so partitions need not
    agree on whose they took. State is averaged over the batches, weighted alike.
    """

    def __init__(self, partition: Partition, batch_size: int) -> None:
        self._partition = partition
        self._batch_size = batch_size
        self._sum: Vector = np.zeros(partition.size, np.float32)
        self._state: Vector = np.zeros(len(partition.state), np.float32)
        self._weight = 0.0
        self._got: set[tuple[int, int]] = set()

    def take(self, push: Push, gradient: Vector, state: Vector) -> bool:
        """Adds the push to its step; True: the step is complete and was applied."""
        key = (push.epoch, push.batch)
        if push.step != self._partition.iteration or key in self._got:
            return False
        weight = push.samples / self._batch_size
        self._add(gradient, state, weight)
        self._got.add(key)
        if len(self._got) < push.batches:
            return False
        self._finish(push.learning_rate)
        return True

    def _add(self, gradient: Vector, state: Vector, weight: float) -> None:
        first = not self._got
        if weight == 1.0 and first:
            np.copyto(self._sum, gradient)
        elif weight == 1.0:
            self._sum += gradient
        else:
            np.add(0 if first else self._sum, gradient * np.float32(weight), out=self._sum)
        np.add(0 if first else self._state, state * np.float32(weight), out=self._state)
        self._weight += weight

    def _finish(self, learning_rate: float) -> None:
        if self._weight != 1.0:
            self._sum /= np.float32(self._weight)
            self._state /= np.float32(self._weight)
        self._partition.apply(self._sum, learning_rate)
        self._partition.state[:] = self._state
        self._weight = 0.0
        self._got.clear()


Rule = ApplyAtOnce | ApplyTogether


def rule_for(strategy: str, partition: Partition, batch_size: int) -> Rule:
    """Returns how pushes meet under a strategy."""
    return ApplyTogether(partition, batch_size) if strategy == "sync" else ApplyAtOnce(partition)
