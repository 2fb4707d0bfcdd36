"""The flat layout of a model: which slice of the parameter vector is which variable, and which ps holds what."""

from __future__ import annotations

import hashlib
import itertools
import json
import math
from dataclasses import asdict, dataclass, replace
from functools import cached_property
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
class Table:
    """Where a table, or a part of it, lies in the parameter vector: whole rows, one after the other.

    Attributes:
        low: its first parameter.
        rows: how many.
        width: parameters of one row.
    """

    low: int
    rows: int
    width: int

    @property
    def high(self) -> int:
        """The parameter after the last."""
        return self.low + self.rows * self.width

    def within(self, low: int, high: int) -> Table:
        """Returns the rows in [low, high), which cuts no row; where there are none, they lie at its nearer end."""
        first, last = (min(max(bound, low), high) for bound in (self.low, self.high))
        return Table(first, (last - first) // self.width, self.width)


@dataclass(frozen=True)
class Layout:
    """What the flat float32 vectors of a job hold.

    Attributes:
        trainable: the variables that make up the parameter vector, in order.
        state: non-trainable float32 variables that the training call assigns (BatchNormalization), in order.
        frozen: non-trainable float variables that it does not assign; the first worker's values go to all once.
        metrics: names of the values that a step reports as (total, count) pairs; the first is the loss.
        sparse: positions of the trainable variables of which a step moves the touched rows only, ascending. Vectors on
            disk hold them like all others; see `dense` for what travels as a vector.
    """

    trainable: tuple[Variable, ...]
    state: tuple[Variable, ...] = ()
    frozen: tuple[Variable, ...] = ()
    metrics: tuple[str, ...] = ("loss",)
    sparse: tuple[int, ...] = ()

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

    @cached_property
    def tables(self) -> tuple[Table, ...]:
        """Places of the sparse variables."""
        starts = [0, *itertools.accumulate(v.size for v in self.trainable)]
        return tuple(Table(starts[i], *self.trainable[i].shape) for i in self.sparse)

    @cached_property
    def dense(self) -> Layout:
        """The layout without its tables: of the vector that travels as a whole."""
        if not self.sparse:
            return self
        rest = tuple(v for i, v in enumerate(self.trainable) if i not in self.sparse)
        return replace(self, trainable=rest, sparse=())

    def bounds(self, ps: int) -> list[tuple[int, int]]:
        """Returns [low, high) of each ps: `partition_bounds`, but no row of a table is cut."""
        cuts = [low for low, _ in partition_bounds(self.parameters, ps)]
        for table in self.tables:
            cuts = [c - (c - table.low) % table.width if table.low < c < table.high else c for c in cuts]
        return list(itertools.pairwise([*cuts, self.parameters]))

    def dense_bounds(self, ps: int) -> list[tuple[int, int]]:
        """Returns [low, high) of what each ps holds of the vector of `dense`."""

        def position(parameter: int) -> int:
            return parameter - sum(t.within(0, parameter).rows * t.width for t in self.tables)

        return [(position(low), position(high)) for low, high in self.bounds(ps)]

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
        values = asdict(self)
        if not self.sparse:
            del values["sparse"]
        return values

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> Layout:
        """Builds a layout from what `to_json` returned.

        Raises:
            ValueError: when what is said to be sparse are no tables.
        """

        def group(name: str) -> tuple[Variable, ...]:
            return tuple(Variable(v["name"], tuple(v["shape"]), v["decay"]) for v in values[name])

        trainable, sparse = group("trainable"), tuple(int(i) for i in values.get("sparse", ()))
        tables = [i for i, variable in enumerate(trainable) if i in sparse and len(variable.shape) == 2]
        if list(sparse) != tables:
            raise ValueError(f"the sparse variables {list(sparse)} are no tables in ascending order")
        return cls(trainable, group("state"), group("frozen"), tuple(values["metrics"]), sparse)


def partition_bounds(parameters: int, ps: int) -> list[tuple[int, int]]:
    """Splits a vector into one [low, high) per ps, equal to within one chunk; a small vector leaves some empty."""
    chunks = math.ceil(parameters / CHUNK)
    cuts = [min(parameters, (chunks * i // ps) * CHUNK) for i in range(ps)] + [parameters]
    return list(itertools.pairwise(cuts))
