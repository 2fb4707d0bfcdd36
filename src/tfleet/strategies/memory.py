"""Where a worker's vectors lie in one block of memory, which it may share with the partitions of its machine.

```
slot 0: state | parameters      slot 1: state | parameters      push: gradient | state | metrics
```
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from tfleet.spec.arrays import ALIGNMENT, Float32s, aligned

ELEMENTS = ALIGNMENT // 4
"""What the parameters are aligned to, in float32 elements."""


class Slot(NamedTuple):
    """Parameters and state of one moment."""

    state: Float32s
    parameters: Float32s


@dataclass(frozen=True)
class MemoryPlan:
    """Sizes in float32 elements.

    Attributes:
        state: that the training call assigns.
        parameters: of the model.
        metrics: that a push reports.
        slots: parameters of so many moments are kept: one to compute with, and one that is written meanwhile.
    """

    state: int
    parameters: int
    metrics: int
    slots: int

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> MemoryPlan:
        """Builds a plan from a worker's `share` call.

        Raises:
            ValueError: when it cannot be one.
        """
        plan = cls(*(int(values[key]) for key in ("state", "parameters", "metrics", "slots")))
        if min(plan.state, plan.parameters, plan.metrics) < 0 or not 1 <= plan.slots <= 2:
            raise ValueError(f"{plan} is no plan of a memory")
        return plan

    @property
    def size(self) -> int:
        """Elements of the whole."""
        return self._push + self.parameters + self.state + self.metrics

    def whole(self, memory: Float32s, number: int) -> Float32s:
        """Returns state and parameters of one slot as one vector."""
        low = number * self._stride + -self.state % ELEMENTS
        return memory[low : low + self.state + self.parameters]

    def slot(self, memory: Float32s, number: int) -> Slot:
        """Returns the views of one slot."""
        whole = self.whole(memory, number)
        return Slot(whole[: self.state], whole[self.state :])

    def to_json(self) -> dict[str, int]:
        """Returns plain values for a `share` call."""
        return dict(self.__dict__)

    def push(self, memory: Float32s) -> tuple[Float32s, Float32s, Float32s]:
        """Returns gradient, state and metrics of the push that is under way."""
        first = self._push + self.parameters
        second = first + self.state
        return memory[self._push : first], memory[first:second], memory[second : second + self.metrics]

    @property
    def _stride(self) -> int:
        used = -self.state % ELEMENTS + self.state + self.parameters
        return used + -used % ELEMENTS

    @property
    def _push(self) -> int:
        return self.slots * self._stride


def private(elements: int) -> Float32s:
    """Returns zeros of this process only, aligned like shared memory."""
    return aligned((elements,), np.float32, np.zeros)


class Shared(NamedTuple):
    """A partition's views of a worker's memory.

    Attributes:
        gradient: float32 [partition].
        state: of the push; empty except in ps 0.
        metrics: likewise.
        slots: where answers go, by number; the state is empty except in ps 0.
    """

    gradient: Float32s
    state: Float32s
    metrics: Float32s
    slots: tuple[Slot, ...]

    @classmethod
    def of(cls, plan: MemoryPlan, memory: Float32s, low: int, high: int, first: bool) -> Shared:
        """Returns the views of parameters [low, high); `first` is for ps 0."""
        gradient, state, metrics = plan.push(memory)
        slots = [plan.slot(memory, number) for number in range(plan.slots)]
        mine = tuple(Slot(s.state if first else s.state[:0], s.parameters[low:high]) for s in slots)
        return cls(gradient[low:high], state if first else state[:0], metrics if first else metrics[:0], mine)
