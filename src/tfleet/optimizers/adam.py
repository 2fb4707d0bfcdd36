"""Adam, and AMSGrad."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import numpy as np

from tfleet.optimizers.base import ONE, Optimizer, Vector


class Adam(Optimizer):
    """Keras's `Adam`.

    Kingma & Ba 2015, arXiv:1412.6980, algorithm 1 in the order of the end of section 2: alpha = lr sqrt(1 - beta_2^t)
    / (1 - beta_1^t), m += (g - m)(1 - beta_1), v += (g^2 - v)(1 - beta_2), p -= m alpha / (sqrt(v) + epsilon), where
    epsilon is the paper's epsilon hat. With `amsgrad` the greatest v so far takes its place (Reddi, Kale & Kumar
    2018, arXiv:1904.09237, algorithm 2).
    """

    name = "adam"
    keras_name = "Adam"
    lazy = True
    defaults: ClassVar[Mapping[str, float | bool]] = {"beta_1": 0.9, "beta_2": 0.999, "epsilon": 1e-7, "amsgrad": False}

    @property
    def slot_names(self) -> tuple[str, ...]:
        """`momentum`, `velocity`, and `velocity_hat` with amsgrad."""
        hat = ("velocity_hat",) if self.hyper["amsgrad"] else ()
        return ("momentum", "velocity", *hat)

    def scalars(self, iteration: int, rate: np.float32) -> tuple[np.float32, ...]:
        """Returns alpha, 1 - beta_1, 1 - beta_2, epsilon.

        The two differences are taken in double precision, as in Keras; alpha in float32, with powers of float32
        scalars: those call C's `powf`, as TensorFlow does for a scalar, while powers of arrays round otherwise.
        """
        beta_1, beta_2, epsilon = (self.hyper[key] for key in ("beta_1", "beta_2", "epsilon"))
        step = np.float32(iteration + 1)
        power_1, power_2 = np.float32(beta_1) ** step, np.float32(beta_2) ** step
        alpha = rate * np.sqrt(ONE - power_2) / (ONE - power_1)
        return alpha, np.float32(1 - beta_1), np.float32(1 - beta_2), np.float32(epsilon)

    def update(
        self, p: Vector, g: Vector, slots: list[Vector], scalars: tuple[np.float32, ...], t: Vector, u: Vector
    ) -> None:
        """Updates one chunk."""
        alpha, rest_1, rest_2, epsilon = scalars
        m, v = slots[:2]
        np.subtract(g, m, t)
        np.multiply(t, rest_1, t)
        np.add(m, t, m)
        np.multiply(g, g, t)
        np.subtract(t, v, t)
        np.multiply(t, rest_2, t)
        np.add(v, t, v)
        if self.hyper["amsgrad"]:
            v = np.maximum(slots[2], v, out=slots[2])
        np.sqrt(v, t)
        np.add(t, epsilon, t)
        np.multiply(m, alpha, u)
        np.divide(u, t, u)
        np.subtract(p, u, p)
