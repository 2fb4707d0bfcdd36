"""A partition: the slice of the flat parameter vector that one ps holds, and how pushes change it."""

from __future__ import annotations

import numpy as np

from tfleet.optimizers import Optimizer
from tfleet.strategies.rule import Vector


class Partition:
    """Parameters [low, high), optimizer slots, and (in ps 0) the state that the training call assigns.

    Not thread-safe: one thread owns it.

    Attributes:
        low: first parameter.
        high: the one after the last.
        parameters: float32 [high - low].
        slots: the optimizer's, each float32 [high - low].
        state: float32; empty except in ps 0.
        iteration: updates applied; under average by the workers.
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
