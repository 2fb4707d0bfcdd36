"""What the first worker's description of the task makes of the job: steps, batches, ledger, and what must match."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from tfleet.checkpoint.manifest import Manifest
from tfleet.spec.errors import WrongInput
from tfleet.spec.job import TASK_DEFAULT, JobSpec
from tfleet.spec.layout import Layout
from tfleet.strategies import strategy
from tfleet.strategies.ledger import Ledger, batches_in_epoch

_MUST_STAY = {
    "batch_size": "batch_size",
    "seed": "seed",
    "strategy": "strategy",
    "items": "items",
    "aggregate": "replicas_to_aggregate",
}
"""Settings on which the order of work depends, and how the user knows them."""


@dataclass(frozen=True)
class TrainingPlan:
    """One job's facts, the same for every worker.

    Attributes:
        layout: of the model.
        optimizer: as `OptimizerSpec.to_json` gives it.
        items: in the training data (rows, records, or whole batches of a PyDataset).
        batch_items: items in a batch.
        batch_size: samples in a full batch.
        steps: to train when the job does not say (0: until stopped).
        evaluates: whether there is held-out data.
    """

    layout: Layout
    optimizer: dict[str, Any]
    items: int
    batch_items: int
    batch_size: int
    steps: int
    evaluates: bool

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> TrainingPlan:
        """Builds a plan from a worker's `describe` call.

        Raises:
            ValueError: when it describes no work at all.
        """
        plan = cls(
            layout=Layout.from_json(values["layout"]),
            optimizer=values["optimizer"],
            items=int(values["items"]),
            batch_items=int(values["batch_items"]),
            batch_size=int(values["batch_size"]),
            steps=int(values["steps"]),
            evaluates=bool(values["evaluates"]),
        )
        if min(plan.items, plan.batch_items, plan.batch_size) < 1 or plan.steps < 0 or not plan.layout.metrics:
            raise ValueError("a plan without items, batches or metrics")
        return plan

    def to_json(self) -> dict[str, Any]:
        """Returns plain values for a `describe` call."""
        return {**self.__dict__, "layout": self.layout.to_json()}

    def difference(self, other: TrainingPlan) -> str:
        """Says what differs from another worker's plan, or returns the empty string."""
        if self.layout.fingerprint != other.layout.fingerprint:
            return self.layout.difference(other.layout) or "another order of variables"
        if self.layout.sparse != other.layout.sparse:
            tables = [", ".join(x.layout.trainable[i].name for i in x.layout.sparse) or "none" for x in (self, other)]
            return f"tables of which only touched rows travel are {tables[0]} instead of {tables[1]}"
        if self.layout.metrics != other.layout.metrics:
            return f"metrics are {', '.join(self.layout.metrics)} instead of {', '.join(other.layout.metrics)}"
        names = ("optimizer", "items", "batch_items", "batch_size")
        return next(
            (
                f"{n} is {getattr(self, n)} instead of {getattr(other, n)}"
                for n in names
                if getattr(self, n) != getattr(other, n)
            ),
            "",
        )

    def settings(self, spec: JobSpec, aggregate: int) -> dict[str, Any]:
        """Returns what a commit remembers of the job."""
        return {
            "task": spec.task,
            "params": dict(spec.params),
            "batch_size": self.batch_size,
            "seed": spec.seed,
            "strategy": spec.strategy,
            "aggregate": aggregate,
            "items": self.items,
            "xla": spec.xla,
            "threads": spec.threads,
            **{name: getattr(spec, name) for name in strategy(spec.strategy).must_stay},
        }

    def check_resume(self, manifest: Manifest, settings: dict[str, Any]) -> None:
        """Refuses to go on from a commit of another model, optimizer, or order of work.

        Raises:
            WrongInput: says what changed.
        """
        changed = self.layout.difference(Layout.from_json(manifest.layout))
        if changed:
            raise WrongInput(
                f"commit {manifest.number} holds another model: {changed}; "
                "undo the change of the model, or train in a new --run-dir"
            )
        if manifest.optimizer != self.optimizer:
            raise WrongInput(
                f"commit {manifest.number} was trained with the optimizer {_optimizer(manifest.optimizer)}, "
                f"the model now has {_optimizer(self.optimizer)}; undo that change, or train in a new --run-dir"
            )
        own = strategy(str(settings["strategy"])).must_stay
        for name, known_as in [*_MUST_STAY.items(), *zip(own, own, strict=True)]:
            if manifest.settings.get(name) != settings[name]:
                raise WrongInput(
                    f"commit {manifest.number} was trained with {known_as} {manifest.settings.get(name)}, this job has "
                    f"{settings[name]}; resume with the old value, or train in a new --run-dir"
                )

    def aggregate(self, spec: JobSpec, manifest: Manifest | None) -> int:
        """Returns the batches of a step; a resumed job keeps what it began with unless it is told."""
        if manifest and strategy(spec.strategy).aggregates and not spec.replicas_to_aggregate:
            return int(manifest.settings.get("aggregate", spec.aggregate))
        return spec.aggregate

    def ledger(self, spec: JobSpec, aggregate: int) -> Ledger:
        """Makes the ledger that the strategy needs."""
        batches = batches_in_epoch(self.items, self.batch_items)
        chosen = strategy(spec.strategy).of(spec)
        total = chosen.steps(batches, aggregate)
        if total is None:
            total = self.steps if spec.steps == TASK_DEFAULT else spec.steps
            if spec.epochs:
                total = spec.epochs * math.ceil(batches / aggregate)
        return chosen.ledger(batches, total, aggregate)


def _optimizer(values: dict[str, Any]) -> str:
    hyper = ", ".join(f"{k}={v}" for k, v in sorted(values.get("hyper", {}).items()))
    return f"{values.get('name')}({hyper}, weight_decay={values.get('weight_decay')})"
