"""A model of digits in NumPy, in the place of `tfleet.worker.built`, and with it a witness of every update.

Importing TensorFlow takes a worker five seconds, NumPy a tenth of one: hundreds of jobs become affordable. Everything
but the model is the real worker: process, session, heartbeat, loop, strategy, exchange (see `light_replica`).

Witnesses are parameters, and one element of the state, that every update moves by the same exact amount. They stand in
every partition, so that at the end the vector itself tells how many updates each partition has had.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from tfleet.checkpoint.manifest import Manifest
from tfleet.checkpoint.store import Store
from tfleet.data import Batch, as_source, load_digits
from tfleet.optimizers import OptimizerSpec
from tfleet.server.plan import TrainingPlan
from tfleet.spec.job import JobSpec
from tfleet.spec.layout import Layout, Variable
from tfleet.strategies.exchange import Step
from tfleet.strategies.ledger import permutation

HIDDEN = 32
ROWS = 112
"""Rows of the first matrix between two witnesses: every partition of up to four has one."""
BATCH = 20
RATE = 0.0625
"""Learning rate: a power of two, so that a witness counts exactly."""
ITEMS = 9000
BATCHES = ITEMS // BATCH

Vector = np.ndarray[Any, np.dtype[np.float32]]


def layout() -> Layout:
    """Returns the variables: a witness before each block of the first matrix, and one at the end."""
    variables: list[Variable] = []
    for block in range(784 // ROWS):
        variables += [Variable(f"witness_{block}", (1,)), Variable(f"first_{block}", (ROWS, HIDDEN))]
    variables += [Variable("first_bias", (HIDDEN,)), Variable("second", (HIDDEN, 10)), Variable("second_bias", (10,))]
    variables += [Variable("witness", (1,))]
    return Layout(tuple(variables), state=(Variable("batches", (1,)),), metrics=("loss", "accuracy"))


LAYOUT = layout()
WITNESSES = np.array(
    [
        sum(v.size for v in LAYOUT.trainable[:position])
        for position, variable in enumerate(LAYOUT.trainable)
        if variable.name.startswith("witness")
    ]
)
"""Where in the parameter vector the witnesses are."""


def updates(parameters: Vector) -> list[int]:
    """Returns how many updates each witness has seen."""
    return [round(float(value) / RATE) for value in parameters[WITNESSES]]


class Network:
    """Views of one flat vector."""

    def __init__(self, vector: Vector) -> None:
        places, at = {}, 0
        for variable in LAYOUT.trainable:
            places[variable.name] = vector[at : at + variable.size].reshape(variable.shape)
            at += variable.size
        self.blocks = [places[f"first_{block}"] for block in range(784 // ROWS)]
        self.first_bias, self.second, self.second_bias = (
            places[name] for name in ("first_bias", "second", "second_bias")
        )

    def hidden(self, x: Vector) -> Vector:
        """Returns the hidden layer, float32 [N, HIDDEN]."""
        total = self.first_bias + sum(x[:, ROWS * i : ROWS * (i + 1)] @ block for i, block in enumerate(self.blocks))
        return np.maximum(total, 0).astype(np.float32)

    def probabilities(self, hidden: Vector) -> Vector:
        """Returns float32 [N, 10]."""
        logits = hidden @ self.second + self.second_bias
        raised = np.exp(logits - logits.max(axis=1, keepdims=True))
        return (raised / raised.sum(axis=1, keepdims=True)).astype(np.float32)


def loss_and_accuracy(probabilities: Vector, y: np.ndarray[Any, Any]) -> tuple[float, float]:
    """Returns the means over the samples."""
    picked = probabilities[np.arange(len(y)), y]
    return float(-np.log(np.maximum(picked, 1e-7)).mean()), float((probabilities.argmax(axis=1) == y).mean())


class LightGradient:
    """What `GradientFunction` is to a worker.

    Args:
        seed: of the initial values.
        seconds: to sleep for each batch, in place of a larger model.
    """

    def __init__(self, seed: int, seconds: float) -> None:
        self.layout = LAYOUT
        self.tables = SimpleNamespace(remarks=[])
        self._seed = seed
        self._seconds = seconds

    def initial(self) -> tuple[Vector, Vector, Vector]:
        """Returns parameters, state and frozen values."""
        vector = np.zeros(LAYOUT.parameters, np.float32)
        network, random = Network(vector), np.random.default_rng(self._seed)
        for block in network.blocks:
            block[:] = random.normal(0, (2 / 784) ** 0.5, block.shape)
        network.second[:] = random.normal(0, (2 / HIDDEN) ** 0.5, network.second.shape)
        return vector, np.zeros(1, np.float32), np.zeros(0, np.float32)

    def assign_frozen(self, values: Vector) -> None:
        """There are none."""

    def __call__(
        self, parameters: Vector, state: Vector, batch: Batch, epoch: int, number: int, fetch: Callable[..., None]
    ) -> Step:
        time.sleep(self._seconds)
        x, y = np.asarray(batch.x).reshape(-1, 784), np.asarray(batch.y)
        network, gradient = Network(parameters), np.zeros(LAYOUT.parameters, np.float32)
        gradient[WITNESSES] = -1.0
        back = Network(gradient)
        hidden = network.hidden(x)
        probabilities = network.probabilities(hidden)
        loss, accuracy = loss_and_accuracy(probabilities, y)
        error = probabilities.copy()
        error[np.arange(len(y)), y] -= 1
        error /= len(y)
        back.second[:], back.second_bias[:] = hidden.T @ error, error.sum(axis=0)
        below = (error @ network.second.T) * (hidden > 0)
        back.first_bias[:] = below.sum(axis=0)
        for i, block in enumerate(back.blocks):
            block[:] = x[:, ROWS * i : ROWS * (i + 1)].T @ below
        size = len(y)
        metrics = np.array([loss * size, size, accuracy * size, size], np.float32)
        return Step(gradient, state + 1, loss, metrics, bool(np.isfinite(gradient).all()))


class LightBuilt:
    """What `Built` is to a worker and an evaluator. The parameter `step_ms` is how long a batch takes at least."""

    def __init__(self, spec: JobSpec) -> None:
        inputs = load_digits().as_inputs()
        self.spec = spec
        self.train = as_source(inputs["train"])
        self._x, self._y = inputs["test"]
        self.gradient = LightGradient(spec.seed, float(spec.params.get("step_ms", "0")) / 1000)
        self.optimizer = SimpleNamespace(spec=OptimizerSpec("sgd"), learning_rate=lambda updates: RATE)
        self.plan = TrainingPlan(LAYOUT, self.optimizer.spec.to_json(), len(self.train), BATCH, BATCH, 0, True)
        self._vector = self.gradient.initial()[0]
        self._order = (-1, np.zeros(0, np.int64))

    def read(self, indices: np.ndarray[Any, Any]) -> Batch:
        """Reads items of the training data."""
        return self.train.batch(indices)

    def indices(self, epoch: int, batch: int) -> np.ndarray[Any, Any]:
        """Returns the items of one batch, as `Built` does."""
        if self._order[0] != epoch:
            self._order = (epoch, permutation(self.spec.seed, epoch, len(self.train)))
        return self._order[1][batch * BATCH : (batch + 1) * BATCH]

    def load(self, store: Store, manifest: Manifest) -> None:
        """Takes the values of a commit."""
        self._vector = store.read(manifest, 0, manifest.parameters)[0]

    def evaluate(self) -> dict[str, float]:
        """Returns loss and accuracy on the held-out digits."""
        network = Network(self._vector)
        loss, accuracy = loss_and_accuracy(network.probabilities(network.hidden(self._x.reshape(-1, 784))), self._y)
        return {"loss": loss, "accuracy": accuracy}

    def export(self, directory: Path, step: int, metrics: dict[str, float]) -> Path:
        """Writes the vector as a new version."""
        version = directory / str(1 + max((int(p.name) for p in directory.iterdir() if p.name.isdigit()), default=0))
        version.mkdir()
        np.save(version / "vector.npy", self._vector)
        return version


class Silent:
    """What a `Recorder`, and `Scalars`, are to a worker: nothing is written for TensorBoard."""

    def __init__(self, *_: object) -> None:
        pass

    def __getattr__(self, name: str) -> Callable[..., None]:
        return lambda *_: None
