"""What NumPy workers train, and what it must come to: known from the ledger alone, to the last bit."""

from __future__ import annotations

import numpy as np

from tfleet.optimizers import OptimizerSpec, build
from tfleet.server.plan import TrainingPlan
from tfleet.spec.layout import CHUNK, Layout, Variable
from tfleet.strategies.ledger import permutation

RATE = 0.5
BATCH = 4


class Counting:
    """Each batch has one parameter of every chunk, modulo CHUNK, and moves it: so parameters count batches.

    Adagrad moves a parameter and its slot as often as its batch was applied, whatever else was, and in which order.
    """

    optimizer = OptimizerSpec("adagrad")
    items = 52

    def __init__(self, chunks: int = 3) -> None:
        self.parameters = chunks * CHUNK

    @property
    def batches(self) -> int:
        return -(-self.items // BATCH)

    @property
    def plan(self) -> TrainingPlan:
        layout = Layout((Variable("w", (self.parameters,)),), (Variable("s", (2,)),))
        return TrainingPlan(layout, self.optimizer.to_json(), self.items, BATCH, BATCH, 0, evaluates=False)

    def initial(self) -> np.ndarray:
        return np.zeros(self.parameters, np.float32)

    def samples(self, epoch: int, batch: int) -> int:
        return len(permutation(0, epoch, self.items)[batch * BATCH : (batch + 1) * BATCH])

    def gradient(self, parameters: np.ndarray, epoch: int, batch: int) -> np.ndarray:
        gradient = np.zeros(self.parameters, np.float32)
        gradient[(epoch * self.batches + batch) % CHUNK :: CHUNK] = -1
        return gradient

    def after(self, counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Returns parameters and accumulators of one chunk whose batches were applied so often: float32 [CHUNK]."""
        optimizer = build(self.optimizer)
        parameters, slots = np.zeros(CHUNK, np.float32), np.full(CHUNK, optimizer.initial("accumulator"), np.float32)
        for times in range(int(counts.max(initial=0))):
            gradient = np.where(counts > times, np.float32(-1), np.float32(0))
            optimizer.apply(parameters, gradient, {"accumulator": slots}, times, RATE, [])
        return parameters, slots


class Linear(Counting):
    """Least squares: under sync the same whoever computes a batch, and in whatever order the parts come."""

    optimizer = OptimizerSpec("adam")
    features = np.arange(0, 3 * CHUNK, 200)
    items = 50

    def data(self) -> tuple[np.ndarray, np.ndarray]:
        generator = np.random.default_rng(5)
        x = generator.normal(size=(self.items, len(self.features))).astype(np.float32)
        return x, (x @ generator.normal(size=len(self.features))).astype(np.float32)

    def initial(self) -> np.ndarray:
        values = np.zeros(self.parameters, np.float32)
        values[self.features] = np.random.default_rng(7).normal(size=len(self.features))
        return values

    def gradient(self, parameters: np.ndarray, epoch: int, batch: int) -> np.ndarray:
        x, y = self.data()
        rows = permutation(0, epoch, self.items)[batch * BATCH : (batch + 1) * BATCH]
        error = x[rows] @ parameters[self.features] - y[rows]
        gradient = np.zeros(self.parameters, np.float32)
        gradient[self.features] = x[rows].T @ error / np.float32(len(rows))
        return gradient


TASKS = {"counting": Counting, "linear": Linear}
