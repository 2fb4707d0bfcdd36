"""Stochastic gradient descent, with momentum and Nesterov momentum."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import numpy as np

from tfleet.optimizers.base import Optimizer, Vector


class SGD(Optimizer):
    """Keras's `SGD`.

    Without momentum p -= lr g. With it (Sutskever et al. 2013, "On the importance of initialization and momentum in
    deep learning", equations 1 and 2; Nesterov's in the form of Bengio et al. 2012, arXiv:1212.0901, equation 7):
    m = momentum m - lr g, then p += m, or with Nesterov p += momentum m - lr g.
    """

    name = "sgd"
    keras_name = "SGD"
    defaults: ClassVar[Mapping[str, float | bool]] = {"momentum": 0.0, "nesterov": False}

    @property
    def slot_names(self) -> tuple[str, ...]:
        """`momentum`, unless the momentum is 0."""
        return ("momentum",) if self.hyper["momentum"] != 0 else ()

    def at_rest(self) -> Mapping[str, float] | None:
        """Nothing moves; with momentum the parameter does."""
        return {} if self.hyper["momentum"] == 0 else None

    def scalars(self, iteration: int, rate: np.float32) -> tuple[np.float32, ...]:
        """Returns learning rate, momentum."""
        return rate, np.float32(self.hyper["momentum"])

    def update(
        self, p: Vector, g: Vector, slots: list[Vector], scalars: tuple[np.float32, ...], t: Vector, u: Vector
    ) -> None:
        """Updates one chunk."""
        rate, momentum = scalars
        np.multiply(g, rate, t)
        if not slots:
            np.subtract(p, t, p)
            return
        (m,) = slots
        np.multiply(m, momentum, m)
        np.subtract(m, t, m)
        if self.hyper["nesterov"]:
            np.multiply(m, momentum, u)
            np.subtract(u, t, u)
            np.add(p, u, p)
        else:
            np.add(p, m, p)
