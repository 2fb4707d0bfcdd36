"""Updates of some rows of a table, with the bits that a dense update of the whole table would give.

Optimizers work element by element, so the touched rows, gathered into vectors, get the bits of the whole table's
update. What a dense update does to all other rows is what `Optimizer.at_rest` says: nothing at all (SGD, Adagrad), or
multiplying a slot by a factor (RMSprop's velocity). The latter is made up for when a row is touched next, by the same
float32 multiplications one after the other, since rounding happens at each; a velocity that nothing touches reaches
zero after ln(1.2e-38 / v) / ln(rho) of them (about 830 with Keras's rho of 0.9), which bounds the work for a row.

Where `at_rest` is None (Adam), the other rows stay as they are although a dense update would move them: that is the
lazy variant, another method than the optimizer. TensorFlow Addons had it as LazyAdam.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from tfleet.optimizers.base import CHUNK, Optimizer, Vector
from tfleet.optimizers.denormals import FlushDenormals
from tfleet.spec.arrays import Ids, Matrix

LOOK_EVERY = 64
"""Multiplications between two looks whether all that is multiplied has reached zero."""


class RowTable:
    """The rows of one table that a partition holds, with their slots.

    Not for two threads at once.

    Attributes:
        parameters: float32 [rows, width].
        slots: the optimizer's, each float32 [rows, width], as of `touched` where the optimizer lets them fade.
        touched: int64 [rows], updates after which the slots of each row are as they stand; None where nothing fades.
    """

    def __init__(self, rows: int, width: int, optimizer: Optimizer) -> None:
        self.parameters: Matrix = np.zeros((rows, width), np.float32)
        self.slots: dict[str, Matrix] = {
            name: np.full((rows, width), optimizer.initial(name), np.float32) for name in optimizer.slot_names
        }
        self._optimizer = optimizer
        rest = optimizer.at_rest()
        self._fading = {name: np.float32(factor) for name, factor in (rest or {}).items()}
        self._flushed = rest is None
        self._flush = FlushDenormals()
        self.touched: Ids | None = np.zeros(rows, np.int64) if self._fading else None

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and width."""
        rows, width = self.parameters.shape
        return rows, width

    def load(self, parameters: Vector, slots: Mapping[str, Vector], iteration: int) -> None:
        """Takes over flat vectors that are as a dense update leaves them after `iteration` updates."""
        self.parameters.reshape(-1)[:] = parameters
        for name, values in slots.items():
            self.slots[name].reshape(-1)[:] = values
        if self.touched is not None:
            self.touched[:] = iteration

    def apply(self, ids: Ids, gradient: Matrix, iteration: int, learning_rate: float) -> None:
        """Applies one update to some rows, in place.

        Args:
            ids: rows, int64 [n], ascending, each once.
            gradient: float32 [n, width], only read.
            iteration: updates of the whole table before this one.
            learning_rate: of this update.
        """
        if not self._flushed:
            self._flush_all()
        if not len(ids):
            return
        slots = {name: slot[ids] for name, slot in self.slots.items()}
        if self.touched is not None:
            missed = iteration - self.touched[ids]
            self.touched[ids] = iteration + 1
            for name, factor in self._fading.items():
                fade(slots[name], missed, factor, self._flush)
        rows = self.parameters[ids]
        flat = {name: slot.reshape(-1) for name, slot in slots.items()}
        self._optimizer.apply(rows.reshape(-1), gradient.reshape(-1), flat, iteration, learning_rate, [])
        self.parameters[ids] = rows
        for name, slot in slots.items():
            self.slots[name][ids] = slot

    def catch_up(self, iteration: int) -> Callable[[str, Vector], None]:
        """Returns a function that makes a flat copy of a slot, taken now, what a dense update would have made of it.

        It takes the name of the slot and the copy. It may run in another thread while this table changes; it takes as
        long as the multiplications that are missing.

        Args:
            iteration: updates of the whole table until now.
        """
        missed = None if self.touched is None else iteration - self.touched
        fading, shape = self._fading, self.shape

        def up_to_date(name: str, copy: Vector) -> None:
            if missed is not None and name in fading:
                fade(copy.reshape(shape), missed, fading[name], FlushDenormals())

        return up_to_date

    def _flush_all(self) -> None:
        """Does once what the first dense update does to rows that it does not touch: denormals become zero."""
        self._flushed = True
        zero = np.float32(0)
        with self._flush:
            np.subtract(self.parameters, zero, self.parameters)
            for slot in self.slots.values():
                np.add(slot, zero, slot)


def fade(slot: Matrix, missed: Ids, factor: np.float32, flush: FlushDenormals) -> None:
    """Multiplies each row of `slot` by `factor`, once for each update that it missed, in place.

    Args:
        slot: float32 [n, width].
        missed: int64 [n], how often for each row.
        factor: float32.
        flush: entered for the multiplications, which in TensorFlow give zero for denormals.
    """
    late = np.flatnonzero((missed > 0) & slot.any(axis=1))
    late = late[np.argsort(-missed[late], kind="stable")]
    most = max(1, CHUNK // max(1, slot.shape[1]))
    with flush, np.errstate(all="ignore"):
        for low in range(0, len(late), most):
            part = late[low : low + most]
            rows = slot[part]
            _fade_sorted(rows, missed[part], factor)
            slot[part] = rows


def _fade_sorted(rows: Matrix, missed: Ids, factor: np.float32) -> None:
    """Does it for rows that fit the cache, those with the most to do first."""
    done = 0
    while done < missed[0]:
        rounds = np.arange(done + 1, min(done + LOOK_EVERY, int(missed[0])) + 1)
        # The rows that need so many rounds are the first ones.
        counts = np.searchsorted(-missed, -rounds, side="right").tolist()
        for count in counts:
            np.multiply(rows[:count], factor, rows[:count])
        done += len(rounds)
        if not rows[: counts[-1]].any():
            return
