"""RMSprop, with momentum, and centered."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import numpy as np

from tfleet.optimizers.base import SMALLEST, Optimizer, Vector


class RMSprop(Optimizer):
    """Keras's `RMSprop`.

    Tieleman & Hinton 2012, "Lecture 6.5: rmsprop": v = rho v + (1 - rho) g^2, p -= lr g / sqrt(v + epsilon); centered
    and with momentum as in Graves 2013, arXiv:1308.0850, equations 38 to 41: the variance v - a^2 instead of v, with
    a = rho a + (1 - rho) g, and m = momentum m + increment, p -= m.
    """

    name = "rmsprop"
    keras_name = "RMSprop"
    defaults: ClassVar[Mapping[str, float | bool]] = {"rho": 0.9, "momentum": 0.0, "epsilon": 1e-7, "centered": False}

    @property
    def slot_names(self) -> tuple[str, ...]:
        """`velocity`; `average_gradient` when centered; `momentum` when that is greater than 0."""
        centered = ("average_gradient",) if self.hyper["centered"] else ()
        momentum = ("momentum",) if self.hyper["momentum"] > 0 else ()
        return ("velocity", *centered, *momentum)

    def at_rest(self) -> Mapping[str, float] | None:
        """The velocity decays; centered or with momentum there is more, and without an epsilon 0 / 0."""
        plain = not self.hyper["centered"] and self.hyper["momentum"] <= 0 and self.hyper["epsilon"] >= SMALLEST
        return {"velocity": self.hyper["rho"]} if plain else None

    def scalars(self, iteration: int, rate: np.float32) -> tuple[np.float32, ...]:
        """Returns learning rate, rho, 1 - rho, epsilon, momentum; 1 - rho is taken in double precision, as in Keras."""
        rho = self.hyper["rho"]
        numbers = (rho, 1 - rho, self.hyper["epsilon"], self.hyper["momentum"])
        return rate, *(np.float32(number) for number in numbers)

    def update(
        self, p: Vector, g: Vector, slots: list[Vector], scalars: tuple[np.float32, ...], t: Vector, u: Vector
    ) -> None:
        """Updates one chunk."""
        rate, rho, rest, epsilon, momentum = scalars
        v = slots[0]
        np.multiply(g, g, t)
        _average(v, rho, t, rest)
        if self.hyper["centered"]:
            a = slots[1]
            np.copyto(t, g)
            _average(a, rho, t, rest)
            np.multiply(a, a, t)
            np.subtract(v, t, t)
            np.add(t, epsilon, t)
        else:
            np.add(v, epsilon, t)
        np.sqrt(t, t)
        np.multiply(g, rate, u)
        np.divide(u, t, u)
        if self.hyper["momentum"] > 0:
            m = slots[-1]
            np.multiply(m, momentum, m)
            np.add(m, u, m)
            u = m
        np.subtract(p, u, p)


def _average(slot: Vector, rho: np.float32, value: Vector, rest: np.float32) -> None:
    """Moves `slot` to rho slot + rest value; `value` is overwritten."""
    np.multiply(slot, rho, slot)
    np.multiply(value, rest, value)
    np.add(slot, value, slot)
