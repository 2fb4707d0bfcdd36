"""What an optimizer is: its name and its numbers, as plain values that travel in a frame or a manifest."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class OptimizerSpec:
    """An optimizer without its learning rate, which comes with every push.

    Attributes:
        name: one of `tfleet.optimizers.registry()`.
        hyper: its hyperparameters under Keras's names; one that is left out has Keras's default.
        weight_decay: decoupled decay as Keras applies it for every optimizer: p -= p * weight_decay * learning_rate
            before the update; 0: none.
    """

    name: str
    hyper: dict[str, float | bool] = field(default_factory=dict)
    weight_decay: float = 0.0

    def to_json(self) -> dict[str, Any]:
        """Returns plain values; JSON keeps every bit of a float."""
        return {"name": self.name, "hyper": dict(self.hyper), "weight_decay": self.weight_decay}

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> OptimizerSpec:
        """Builds a spec from what `to_json` returned."""
        return cls(values["name"], dict(values["hyper"]), values["weight_decay"])
