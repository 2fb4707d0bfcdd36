"""What held-out evaluations lead to: the best commit, and when to stop early."""

from __future__ import annotations

import math
from typing import Any

from tfleet.spec.job import EvaluationSpec

_LOWER_IS_BETTER = ("loss", "error", "mse", "mae", "rmse", "mape", "crossentropy", "divergence", "perplexity")


def lower_is_better(metric: str) -> bool:
    """Tells by its name whether a metric gets better by getting smaller (losses and errors do)."""
    return any(part in metric.lower() for part in _LOWER_IS_BETTER)


class Evaluations:
    """Keeps the newest evaluation and the best commit, and counts evaluations without improvement.

    Attributes:
        last: {"step", "commit", "metrics"} of the newest evaluation, or None.
        kept: the same of the best commit by `keep_best`, or None.
    """

    def __init__(self, spec: EvaluationSpec) -> None:
        self._spec = spec
        self.last: dict[str, Any] | None = None
        self.kept: dict[str, Any] | None = None
        self._best_seen: float | None = None
        self._without = 0

    @property
    def best(self) -> int:
        """Number of the best commit, or -1."""
        return int(self.kept["commit"]) if self.kept else -1

    def report(self, step: int, commit: int, metrics: dict[str, float]) -> bool:
        """Takes the held-out metrics of a commit; returns whether training should stop now.

        NaN and infinities are no better than anything, and are left out of what is told: JSON has none.

        Raises:
            KeyError: when the metric that the job names was not reported.
        """
        finite = {name: value for name, value in metrics.items() if math.isfinite(value)}
        self.last = {"step": step, "commit": commit, "metrics": finite}
        if best_by := self._spec.keep_best:
            before = self.kept["metrics"].get(best_by) if self.kept else None
            if self._better(metrics[best_by], before, best_by):
                self.kept = self.last
        if not self._spec.stop_metric:
            return False
        value = metrics[self._spec.stop_metric]
        if self._better(value, self._best_seen, self._spec.stop_metric, self._spec.stop_min_delta):
            self._best_seen, self._without = value, 0
        else:
            self._without += 1
        return self._without >= self._spec.stop_patience

    def to_json(self) -> dict[str, Any]:
        """Returns what a commit stores."""
        return {
            "last": self.last,
            "kept": self.kept,
            "best_seen": self._best_seen,
            "without": self._without,
        }

    def restore(self, values: dict[str, Any]) -> None:
        """Goes back to what `to_json` returned."""
        self.last, self.kept = values["last"], values["kept"]
        self._best_seen, self._without = values["best_seen"], values["without"]

    @staticmethod
    def _better(value: float, than: float | None, metric: str, delta: float = 0.0) -> bool:
        if not math.isfinite(value):
            return False
        if than is None:
            return True
        return value < than - delta if lower_is_better(metric) else value > than + delta
