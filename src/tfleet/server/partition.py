"""A partition: the slice of the flat parameter vector that one ps holds, and how pushes change it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np

from tfleet.optimizers import Optimizer
from tfleet.optimizers.rows import RowTable
from tfleet.server.row_pushes import TouchedRows
from tfleet.spec.layout import Table
from tfleet.strategies.rule import Vector


class Partition:
    """Parameters [low, high), optimizer slots, and (in ps 0) the state that the training call assigns.

    Rows of sparse tables are held apart from what travels as a vector; on disk they are in their places.

    Not thread-safe: one thread owns it.

    Attributes:
        low: first parameter.
        high: the one after the last.
        start: which element of the vector that travels is the first of `parameters`.
        parameters: float32 [size]: what travels as a vector, which is all but the tables.
        slots: the optimizer's of these, each float32 [size].
        tables: the part of each sparse table that is here, perhaps without rows.
        state: float32; empty except in ps 0.
        iteration: updates applied; under average by the workers.
    """

    def __init__(
        self,
        low: int,
        high: int,
        optimizer: Optimizer,
        decay: list[tuple[int, int]],
        state_size: int = 0,
        tables: Sequence[Table] = (),
        start: int | None = None,
    ) -> None:
        """Makes it with all parameters zero.

        Args:
            low: first parameter.
            high: the one after the last.
            optimizer: that updates it.
            decay: ranges of `parameters` to which weight decay applies.
            state_size: length of the state.
            tables: where the part of each sparse table that is here lies, ascending.
            start: see the attribute; None: `low`, as where there are no tables.
        """
        self.low = low
        self.high = high
        self.start = low if start is None else start
        self.iteration = 0
        size = high - low - sum(table.rows * table.width for table in tables)
        self.parameters: Vector = np.zeros(size, np.float32)
        self.slots = {name: np.full(size, optimizer.initial(name), np.float32) for name in optimizer.slot_names}
        self.tables = [RowTable(table.rows, table.width, optimizer) for table in tables]
        self.state: Vector = np.zeros(state_size, np.float32)
        self._places = [slice(table.low - low, table.high - low) for table in tables]
        self._optimizer = optimizer
        self._decay = decay
        self._staged: TouchedRows | None = None

    @property
    def size(self) -> int:
        """Number of parameters that travel as a vector."""
        return len(self.parameters)

    @property
    def extent(self) -> int:
        """Number of all parameters here."""
        return self.high - self.low

    def load(self, parameters: Vector, slots: Mapping[str, Vector], iteration: int) -> None:
        """Takes over what a commit held for this range, or a start without slots."""
        for whole, own in self._pieces():
            self.parameters[own] = parameters[whole]
            for name, values in slots.items():
                self.slots[name][own] = values[whole]
        for table, place in zip(self.tables, self._places, strict=True):
            table.load(parameters[place], {name: values[place] for name, values in slots.items()}, iteration)
        self.iteration = iteration

    def copy(self) -> tuple[Vector, dict[str, Vector], int]:
        """Returns copies of parameters and slots [low, high), and the iteration, for a commit.

        Slots of tables are as of when a row was last touched: see `catch_up`.
        """
        parameters = self._whole(self.parameters, [table.parameters for table in self.tables])
        slots = {name: self._whole(v, [table.slots[name] for table in self.tables]) for name, v in self.slots.items()}
        return parameters, slots, self.iteration

    def catch_up(self) -> Callable[[Mapping[str, Vector]], None]:
        """Returns a function that brings the slots of a `copy` made now up to date; it may run in another thread."""
        tables = [
            (place, table.catch_up(self.iteration)) for place, table in zip(self._places, self.tables, strict=True)
        ]

        def up_to_date(slots: Mapping[str, Vector]) -> None:
            for place, catch_up in tables:
                for name, values in slots.items():
                    catch_up(name, values[place])

        return up_to_date

    def stage(self, touched: TouchedRows | None) -> None:
        """Takes the row gradients that belong to the next `apply`; valid until then."""
        self._staged = touched

    def apply(self, gradient: Vector, learning_rate: float) -> None:
        """Applies one update, with the rows that are staged.

        Args:
            gradient: float32 [size], left as it is.
            learning_rate: for this update.
        """
        if self.size:
            self._optimizer.apply(self.parameters, gradient, self.slots, self.iteration, learning_rate, self._decay)
        if self._staged is not None:
            for table, ids, rows in zip(self.tables, *self._staged, strict=True):
                table.apply(ids, rows, self.iteration, learning_rate)
            self._staged = None
        self.iteration += 1

    def _pieces(self) -> Iterator[tuple[slice, slice]]:
        """Yields what lies between the tables: where in [low, high), and where in `parameters`."""
        start = own = 0
        for place in [*self._places, slice(self.extent, self.extent)]:
            length = place.start - start
            yield slice(start, place.start), slice(own, own + length)
            start, own = place.stop, own + length

    def _whole(self, vector: Vector, tables: Sequence[Vector]) -> Vector:
        if not tables:
            return vector.copy()
        result: Vector = np.empty(self.extent, np.float32)
        for whole, own in self._pieces():
            result[whole] = vector[own]
        for table, place in zip(tables, self._places, strict=True):
            result[place] = table.reshape(-1)
        return result
