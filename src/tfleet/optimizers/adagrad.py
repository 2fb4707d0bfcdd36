"""Adagrad."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import numpy as np

from tfleet.optimizers.base import SMALLEST, Optimizer, Vector


class Adagrad(Optimizer):
    """Keras's `Adagrad`.

    Duchi, Hazan & Singer 2011, "Adaptive subgradient methods for online learning and stochastic optimization", figure
    1 with the diagonal of G: a += g^2, p -= lr g / sqrt(a + epsilon), with a starting at `initial_accumulator_value`.
    """

    name = "adagrad"
    keras_name = "Adagrad"
    defaults: ClassVar[Mapping[str, float | bool]] = {"initial_accumulator_value": 0.1, "epsilon": 1e-7}

    @property
    def slot_names(self) -> tuple[str, ...]:
        """`accumulator`."""
        return ("accumulator",)

    def initial(self, slot: str) -> float:
        """Returns `initial_accumulator_value`."""
        return float(self.hyper["initial_accumulator_value"])

    def at_rest(self) -> Mapping[str, float] | None:
        """Nothing moves; without an epsilon 0 / 0 may."""
        return {} if self.hyper["epsilon"] >= SMALLEST else None

    def scalars(self, iteration: int, rate: np.float32) -> tuple[np.float32, ...]:
        """Returns learning rate, epsilon."""
        return rate, np.float32(self.hyper["epsilon"])

    def update(
        self, p: Vector, g: Vector, slots: list[Vector], scalars: tuple[np.float32, ...], t: Vector, u: Vector
    ) -> None:
        """Updates one chunk."""
        rate, epsilon = scalars
        (a,) = slots
        np.multiply(g, g, t)
        np.add(a, t, a)
        np.add(a, epsilon, t)
        np.sqrt(t, t)
        np.multiply(g, rate, u)
        np.divide(u, t, u)
        np.subtract(p, u, p)
