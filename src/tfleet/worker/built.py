"""A task made ready in this process: model, data, optimizer, gradient function; and what a commit makes of it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import keras
import numpy as np

from tfleet.checkpoint.manifest import Manifest
from tfleet.checkpoint.store import Store
from tfleet.data import Batch, Source, class_weights
from tfleet.optimizers import build as build_optimizer
from tfleet.server.plan import TrainingPlan
from tfleet.spec.errors import WrongInput, nearest
from tfleet.spec.job import JobSpec
from tfleet.spec.layout import Layout
from tfleet.strategies.ledger import permutation
from tfleet.tasks.load import load_task, resolve
from tfleet.tasks.task import Task
from tfleet.worker.evaluate import Evaluator
from tfleet.worker.export import export
from tfleet.worker.gradient import GradientFunction
from tfleet.worker.model_check import check_model
from tfleet.worker.optimizer_config import DescribedOptimizer, describe
from tfleet.worker.sparse import check_lazy, find_tables
from tfleet.worker.training_call import build


class Built:
    """A task, built for one job.

    Attributes:
        spec: the job, with steps and batch size filled in from the task.
        task: the task.
        model: its compiled model.
        train: training data.
        test: held-out data, or None.
        optimizer: described for the ps.
        gradient: the compiled function.
        plan: what the coordinator needs to know.
    """

    def __init__(self, spec: JobSpec) -> None:
        """Loads, builds and compiles; blocks for seconds. Keras must be set up.

        Raises:
            WrongInput: when the task, its model or its data cannot be trained.
        """
        self.task: Task = load_task(spec.task)
        self.spec = resolve(spec, self.task)
        self.train, self.test = self.task.build_data(spec)
        self._batch_items = self._check_batch(spec)
        self.model: keras.Model = self.task.build_model(spec)
        example = self.read(np.arange(self._batch_items, dtype=np.int64))
        build(check_model(self.model), example)
        self.optimizer: DescribedOptimizer = describe(self.model, spec.learning_rate)
        optimizer = build_optimizer(self.optimizer.spec)
        mode = spec.sparse if spec.moves_rows else "never"
        tables = find_tables(self.model, example, optimizer, self.optimizer.decay, self.optimizer.clipping, mode)
        if mode == "lazy":
            check_lazy(self.model, optimizer, tables)
        self.gradient = GradientFunction(
            self.model,
            example,
            seed=spec.seed,
            xla=spec.xla,
            clipping=self.optimizer.clipping,
            decay=self.optimizer.decay,
            tables=tables,
        )
        if mode == "lazy":
            check_lazy(self.model, optimizer, self.gradient.tables)
        self.plan = TrainingPlan(
            layout=self.gradient.layout,
            optimizer=self.optimizer.spec.to_json(),
            items=len(self.train),
            batch_items=self._batch_items,
            batch_size=example.size,
            steps=self.task.steps,
            evaluates=self.test is not None,
        )
        self._example = example
        self._evaluator = Evaluator(self.model, self.test, example.size) if self.test is not None else None
        self._check_evaluation()
        self._order: tuple[int, np.ndarray[Any, Any]] = (-1, np.zeros(0, np.int64))

    def read(self, indices: np.ndarray[Any, np.dtype[np.int64]]) -> Batch:
        """Reads items of the training data, class weights folded in."""
        batch = self.train.batch(indices)
        weights: Mapping[int, float] | None = self.task.class_weight
        return class_weights(batch, weights) if weights else batch

    def indices(self, epoch: int, batch: int) -> np.ndarray[Any, np.dtype[np.int64]]:
        """Returns the items of one batch of one epoch: int64."""
        if self._order[0] != epoch:
            self._order = (epoch, permutation(self.spec.seed, epoch, len(self.train)))
        first = batch * self._batch_items
        return self._order[1][first : first + self._batch_items]

    def load(self, store: Store, manifest: Manifest) -> None:
        """Gives the model the values of a commit.

        Raises:
            WrongInput: when the commit holds another model.
        """
        changed = self.plan.layout.difference(Layout.from_json(manifest.layout))
        if changed:
            raise WrongInput(
                f"commit {manifest.number} holds another model: {changed}; undo the change of the task's model"
            )
        parameters, _ = store.read(manifest, 0, manifest.parameters)
        state, frozen = store.read_state(manifest)
        self.gradient.assign(parameters, state, frozen)

    def evaluate(self) -> dict[str, float]:
        """Returns the held-out metrics of the model as it is now; empty when there is no held-out data."""
        return self._evaluator.metrics() if self._evaluator else {}

    def export(self, directory: Path, step: int, metrics: dict[str, float]) -> Path:
        """Writes the model as it is now as a new version; returns its folder."""
        facts = {
            "task": self.spec.task,
            "params": dict(self.spec.params),
            "step": step,
            "metrics": metrics,
        }
        signatures = self.task.signatures(self.model) if self.task.signatures else None
        return export(self.model, signatures, directory, facts=facts, example=self._example.x)

    def _check_batch(self, spec: JobSpec) -> int:
        train: Source = self.train
        if train.items_are_batches:
            if spec.batch_size:
                raise WrongInput(
                    f"batch_size {spec.batch_size} is given, but the task's PyDataset makes batches of its own; "
                    "leave --batch-size out"
                )
            return 1
        if self.spec.batch_size > len(train):
            raise WrongInput(
                f"batch_size {self.spec.batch_size} is larger than the training data of {len(train)} samples; "
                f"give --batch-size {len(train)} or less"
            )
        return self.spec.batch_size

    def _check_evaluation(self) -> None:
        wanted = self.spec.evaluation
        if self._evaluator is None and (
            wanted.every_steps or wanted.evaluator or wanted.keep_best or wanted.stop_metric
        ):
            raise WrongInput(
                "the job asks for evaluations, but the task's data function returns no 'test'; "
                "return held-out data too, or leave --eval-every and --evaluator out"
            )
        names = self._evaluator.try_one() if self._evaluator else []
        for flag, name in (("--keep-best", wanted.keep_best), ("--stop-metric", wanted.stop_metric)):
            if name and name not in names:
                raise WrongInput(
                    f"{flag} {name}: the held-out data give no such metric{nearest(name, names)}; "
                    f"name one of {', '.join(names)}"
                )
