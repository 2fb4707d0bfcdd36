"""What the coordinator gives a ps to hold."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from tfleet.checkpoint.store import Store
from tfleet.optimizers import Optimizer, OptimizerSpec
from tfleet.server.partition import Partition
from tfleet.spec.layout import Table
from tfleet.wire.halves import Half


@dataclass(frozen=True)
class Assignment:
    """One ps's share of the model, and how pushes meet there.

    Attributes:
        generation: of the job.
        low: first parameter.
        high: the one after the last.
        start: which element of the vector that travels is the partition's first.
        tables: the part of each sparse table that is here.
        optimizer: of the model.
        decay: ranges to which weight decay applies, of what travels as a vector.
        strategy: its name.
        batch_size: samples in a full batch.
        half: what gradients are packed as on a socket; None: they are not.
        state: length of the state; 0 except in ps 0.
        metrics: length of what a push reports; likewise.
        commit: number of the commit to begin from, or -1.
    """

    generation: int
    low: int
    high: int
    start: int
    tables: list[Table]
    optimizer: OptimizerSpec
    decay: list[tuple[int, int]]
    strategy: str
    batch_size: int
    half: Half | None
    state: int
    metrics: int
    commit: int

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> Assignment:
        """Reads the values of a `prepare` call."""
        return cls(
            generation=int(values["generation"]),
            low=int(values["low"]),
            high=int(values["high"]),
            start=int(values["start"]),
            tables=[Table(*map(int, table)) for table in values["tables"]],
            optimizer=OptimizerSpec.from_json(values["optimizer"]),
            decay=[(int(low), int(high)) for low, high in values["decay"]],
            strategy=str(values["strategy"]),
            batch_size=int(values["batch_size"]),
            half=None if values["wire_dtype"] == "float32" else values["wire_dtype"],
            state=int(values["state"]),
            metrics=int(values["metrics"]),
            commit=int(values["restore"]),
        )

    def partition(self, optimizer: Optimizer) -> Partition:
        """Returns the partition, all of it zero."""
        return Partition(self.low, self.high, optimizer, self.decay, self.state, self.tables, start=self.start)

    def restore(self, store: Store, partition: Partition) -> None:
        """Reads what the commit holds for the partition; blocks.

        Raises:
            TfleetError: when it cannot be read.
        """
        manifest = store.get(self.commit)
        parameters, slots = store.read(manifest, self.low, self.high)
        partition.load(parameters, slots, manifest.iterations(self.low, self.high))
        if self.state:
            partition.state[:] = store.read_state(manifest)[0]
