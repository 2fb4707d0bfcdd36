"""The partition's side of a strategy: how pushes meet there."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, Protocol

import numpy as np

from tfleet.wire.frames import Push

Vector = np.ndarray[Any, np.dtype[np.float32]]


class Updatable(Protocol):
    """A partition, as far as a rule needs it.

    Attributes:
        parameters: float32 [size].
        slots: the optimizer's, each float32 [size].
        state: float32; empty except in ps 0.
        iteration: updates applied; under average by the workers.
        size: number of parameters.
    """

    parameters: Vector
    slots: dict[str, Vector]
    state: Vector
    iteration: int

    @property
    def size(self) -> int:
        """Number of parameters."""

    def apply(self, gradient: Vector, learning_rate: float) -> None:
        """Applies one update of the optimizer."""


class Rule(ABC):
    """What a partition does with a push."""

    @abstractmethod
    def take(self, push: Push, gradient: Vector, state: Vector) -> None:
        """Takes a push that was not seen before.

        Args:
            push: its meta.
            gradient: float32 [size], only valid during the call; where workers update by themselves, parameters and
                slots instead, one after the other.
            state: float32, what the worker tells of the state; empty except in ps 0.
        """

    @abstractmethod
    def reach(self, step: int) -> None:
        """Applies what waits of the steps before this one, all of which ps 0 has completed.

        Raises:
            ProtocolError: when this partition lacks a part of them, so that it cannot be true.
        """
