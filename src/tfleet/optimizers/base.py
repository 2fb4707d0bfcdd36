"""The interface of an optimizer on a parameter server, and what all of them share."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from tfleet.optimizers.denormals import FlushDenormals
from tfleet.optimizers.spec import OptimizerSpec
from tfleet.spec.errors import WrongInput, nearest

Vector = NDArray[np.float32]

CHUNK = 16 * 1024
"""Parameters in a chunk: six arrays of it stay in a second-level cache of 512 KiB, and NumPy's cost of a call is small
against it."""

ONE = np.float32(1.0)

SMALLEST = float(np.finfo(np.float32).tiny)
"""Numbers below it, where they are not zero, are denormals."""


class _Quiet(AbstractContextManager[None]):
    """Float arithmetic as TensorFlow does it: denormals are zero, and nothing warns."""

    def __init__(self) -> None:
        self._flush = FlushDenormals()
        self._errors: Any = {}

    def __enter__(self) -> None:
        self._flush.__enter__()
        self._errors = np.seterr(all="ignore")

    def __exit__(self, *_: object) -> None:
        np.seterr(**self._errors)
        self._flush.__exit__()


class Optimizer(ABC):
    """Applies gradients to a slice of the flat parameter vector, in place, in Keras's order of float32 operations.

    Bit-equal to the eager `apply` of the Keras optimizer of the same name with the TensorFlow backend on the CPU
    (x86-64 Linux; elsewhere within |difference| <= 1e-5 |p| + 1e-6: see `denormals`, and TensorFlow's own kernels
    may round division and square root in another way). NaN and infinities pass through, without a warning.

    Every operation is element by element: a slice of the vector gets the same bits as the whole. An instance keeps
    no state but scratch memory; what must be stored are the slots and the number of updates. It is not for two
    threads at once.

    A new optimizer is one new file in this package with a subclass: the registry and the tests find it there.

    Attributes:
        name: name in an `OptimizerSpec`.
        keras_name: name of the class in `keras.optimizers`.
        defaults: its hyperparameters under Keras's names, with Keras's defaults.
        spec: what this instance was built from.
        hyper: every hyperparameter, given or default.
        lazy: whether updating only some rows of a table is a method of its own that users may ask for, though it is not
            this optimizer.
    """

    name: ClassVar[str]
    keras_name: ClassVar[str]
    defaults: ClassVar[Mapping[str, float | bool]]
    lazy: ClassVar[bool] = False

    def __init__(self, spec: OptimizerSpec) -> None:
        """Checks the hyperparameters and allocates the scratch memory.

        Raises:
            WrongInput: when `spec` names a hyperparameter that this optimizer does not have.
        """
        for key in spec.hyper:
            if key not in self.defaults:
                raise WrongInput(
                    f"unknown hyperparameter {key} of optimizer {self.name}{nearest(key, self.defaults)}; "
                    f"allowed: {', '.join(self.defaults)}"
                )
        self.spec = spec
        self.hyper: dict[str, float | bool] = {**self.defaults, **spec.hyper}
        self._decay = np.float32(spec.weight_decay)
        self._scratch = (np.empty(CHUNK, np.float32), np.empty(CHUNK, np.float32))
        self._environment: AbstractContextManager[None] = _Quiet()

    def keep_thread(self) -> None:
        """Sets up the calling thread, which will do nothing else with floats, for all updates of this instance."""
        self._environment.__enter__()
        self._environment = nullcontext()

    @property
    @abstractmethod
    def slot_names(self) -> tuple[str, ...]:
        """Names of the vectors, as long as the parameters, that live from one update to the next."""

    def initial(self, slot: str) -> float:
        """Returns the value with which every element of `slot` starts."""
        return 0.0

    def at_rest(self) -> Mapping[str, float] | None:
        """Returns what an update does to a parameter whose gradient is zero, where nothing decays.

        Returns:
            By what each slot is multiplied (one that is left out stays as it is) while the parameter keeps its bits;
            None when the parameter may move, or more happens to a slot.
        """
        return None

    def apply(
        self,
        params: Vector,
        grad: Vector,
        slots: Mapping[str, Vector],
        iteration: int,
        learning_rate: float,
        decay: Sequence[tuple[int, int]],
    ) -> None:
        """Applies one gradient, in place; takes memory for nothing, does not block.

        Args:
            params: parameters, float32 [n], changed in place; n may be 0.
            grad: gradient, float32 [n], only read: it may be a view of a receive buffer.
            slots: a float32 [n] for each of `slot_names`, changed in place.
            iteration: updates applied before this one.
            learning_rate: of this update; rounded to float32.
            decay: ranges [low, high) of `params` to which weight decay applies, as from `Layout.decay_ranges`.
        """
        with self._environment:
            rate = np.float32(learning_rate)
            if self._decay:
                self._apply_decay(params, rate, decay)
            scalars = self.scalars(iteration, rate)
            vectors = [slots[name] for name in self.slot_names]
            t, u = self._scratch
            for low in range(0, params.size, CHUNK):
                part = slice(low, low + CHUNK)
                p = params[part]
                self.update(p, grad[part], [v[part] for v in vectors], scalars, t[: p.size], u[: p.size])

    @abstractmethod
    def scalars(self, iteration: int, rate: np.float32) -> tuple[np.float32, ...]:
        """Returns the numbers that `update` needs and that are the same for all chunks of one update."""

    @abstractmethod
    def update(
        self, p: Vector, g: Vector, slots: list[Vector], scalars: tuple[np.float32, ...], t: Vector, u: Vector
    ) -> None:
        """Updates one chunk in place.

        Args:
            p: parameters.
            g: gradient, only read.
            slots: the chunk of each slot, in the order of `slot_names`.
            scalars: what `scalars` returned.
            t: scratch as long as `p`, content undefined.
            u: more of it.
        """

    def _apply_decay(self, params: Vector, rate: np.float32, decay: Sequence[tuple[int, int]]) -> None:
        """Decoupled weight decay (Loshchilov & Hutter 2019, arXiv:1711.05101, algorithm 2): p -= (p * wd) * lr."""
        for low, high in decay:
            for start in range(low, high, CHUNK):
                p = params[start : min(start + CHUNK, high)]
                t = self._scratch[0][: p.size]
                np.multiply(p, self._decay, t)
                np.multiply(t, rate, t)
                np.subtract(p, t, p)
