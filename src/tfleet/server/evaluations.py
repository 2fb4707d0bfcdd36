"""What held-out evaluations lead to: the best commit, and when to stop early."""

from __future__ import annotations

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
        best: number of the best commit by `keep_best`, or -1.
    """

    def __init__(self, spec: EvaluationSpec) -> None:
        self._spec = spec
        self.last: dict[str, Any] | None = None
        self.best = -1
        self._best_kept: float | None = None
        self._best_seen: float | None = None
        self._without = 0

    def report(self, step: int, commit: int, metrics: dict[str, float]) -> bool:
        """Takes the held-out metrics of a commit; returns whether training should stop now.

        Raises:
            KeyError: when the metric that the job names was not reported.
        """
        self.last = {"step": step, "commit": commit, "metrics": metrics}
        if self._spec.keep_best and self._better(metrics[self._spec.keep_best], self._best_kept, self._spec.keep_best):
            self._best_kept, self.best = metrics[self._spec.keep_best], commit
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
            "best": self.best,
            "best_kept": self._best_kept,
            "best_seen": self._best_seen,
            "without": self._without,
        }

    def restore(self, values: dict[str, Any]) -> None:
        """Goes back to what `to_json` returned."""
        self.last, self.best = values["last"], values["best"]
        self._best_kept, self._best_seen = values["best_kept"], values["best_seen"]
        self._without = values["without"]

    @staticmethod
    def _better(value: float, than: float | None, metric: str, delta: float = 0.0) -> bool:
        if value != value:
            return False
        if than is None:
            return True
        return value < than - delta if lower_is_better(metric) else value > than + delta
