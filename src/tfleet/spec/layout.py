"""The flat layout of a model: which slice of the parameter vector is which variable, and which ps holds what."""

from __future__ import annotations

import hashlib
import itertools
import json
import math
from dataclasses import asdict, dataclass
from typing import Any

CHUNK = 1024
"""Partition bounds are multiples of this many parameters, so that chunks stay aligned."""


@dataclass(frozen=True)
class Variable:
    """One variable of the model, in the order of `model.trainable_variables` or of the carried state.

    Attributes:
        name: path of the variable, for messages only: variables are matched by order and shape.
        shape: its shape.
        decay: whether weight decay applies to it.
    """

    name: str
    shape: tuple[int, ...]
    decay: bool = True

    @property
    def size(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)


@dataclass(frozen=True)
class Layout:
    """What the flat float32 vectors of a job hold.

    Attributes:
        trainable: the variables that make up the parameter vector, in order.
        state: non-trainable float32 variables that the training call assigns (BatchNormalization), in order.
        frozen: non-trainable float variables that it does not assign; the first worker's values go to all once.
        metrics: names of the values that a step reports as (total, count) pairs; the first is the loss.
    """

    trainable: tuple[Variable, ...]
    state: tuple[Variable, ...] = ()
    frozen: tuple[Variable, ...] = ()
    metrics: tuple[str, ...] = ("loss",)

    @property
    def parameters(self) -> int:
        """Length of the parameter vector."""
        return sum(v.size for v in self.trainable)

    @property
    def state_size(self) -> int:
        """Length of the carried state vector."""
        return sum(v.size for v in self.state)

    @property
    def frozen_size(self) -> int:
        """Length of the vector of frozen values."""
        return sum(v.size for v in self.frozen)

    @property
    def fingerprint(self) -> str:
        """Hash over order, shapes and decay: equal for models that can share one parameter vector."""
        text = json.dumps([[(v.shape, v.decay) for v in group] for group in (self.trainable, self.state, self.frozen)])
        return hashlib.sha256(text.encode()).hexdigest()

    def decay_ranges(self, low: int, high: int) -> list[tuple[int, int]]:
        """Returns the ranges, relative to `low`, of parameters in [low, high) to which weight decay applies."""
        ranges: list[tuple[int, int]] = []
        offset = 0
        for variable in self.trainable:
            start, end = max(offset, low), min(offset + variable.size, high)
            offset += variable.size
            if not variable.decay or start >= end:
                continue
            if ranges and ranges[-1][1] == start - low:
                ranges[-1] = (ranges[-1][0], end - low)
            else:
                ranges.append((start - low, end - low))
        return ranges

    def difference(self, other: Layout) -> str:
        """Says in a few words what differs from `other`, or returns the empty string."""
        for what in ("trainable", "state", "frozen"):
            mine, theirs = getattr(self, what), getattr(other, what)
            if len(mine) != len(theirs):
                return f"{len(mine)} {what} variables instead of {len(theirs)}"
            for a, b in zip(mine, theirs, strict=True):
                if a.shape != b.shape:
                    return f"{what} variable {a.name} has shape {list(a.shape)} instead of {list(b.shape)}"
                if a.decay != b.decay:
                    return f"weight decay of {a.name} is {'on' if a.decay else 'off'} instead of the other way round"
        return ""

    def to_json(self) -> dict[str, Any]:
        """Returns plain values for a frame or a manifest."""
        return asdict(self)

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> Layout:
        """Builds a layout from what `to_json` returned."""

        def group(name: str) -> tuple[Variable, ...]:
            return tuple(Variable(v["name"], tuple(v["shape"]), v["decay"]) for v in values[name])

        return cls(group("trainable"), group("state"), group("frozen"), tuple(values["metrics"]))


def partition_bounds(parameters: int, ps: int) -> list[tuple[int, int]]:
    """Splits a vector into one [low, high) per ps, equal to within one chunk; a small vector leaves some empty."""
    chunks = math.ceil(parameters / CHUNK)
    cuts = [min(parameters, (chunks * i // ps) * CHUNK) for i in range(ps)] + [parameters]
    return list(itertools.pairwise(cuts))
