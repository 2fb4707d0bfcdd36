"""What a status tells a monitoring system besides progress: metrics of training, restarts, commits, memory.

Names follow Prometheus: base units, `_total` for what only grows, labels where one thing has many.
"""

from __future__ import annotations

from typing import Any

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric


def families(status: dict[str, Any]) -> list[Metric]:
    """Returns the metric families of a status; what it does not know yet is left out."""
    return [
        *_single(status),
        _values("tfleet_training_metric", "Training metrics over the last seconds.", status.get("metrics") or {}),
        _values(
            "tfleet_evaluation_metric",
            "Metrics of the last evaluation on held-out data.",
            (status.get("evaluation") or {}).get("metrics", {}),
        ),
        *_replicas(status),
    ]


def _single(status: dict[str, Any]) -> list[Metric]:
    gauges = {
        "tfleet_step": ("Global step; a rollback takes it back.", status["step"]),
        "tfleet_generation": ("Counts rollbacks and restarts of the job.", status.get("generation")),
        "tfleet_workers_wanted": ("Workers that the job is to have.", status.get("workers_wanted")),
        "tfleet_seconds_left": ("Estimate of the rest of training.", status.get("seconds_left")),
        "tfleet_commit_duration_seconds": (
            "How long the last commit took.",
            (status.get("last_commit") or {}).get("seconds"),
        ),
        "tfleet_staleness_mean": (
            "Updates between parameters and the gradient computed from them.",
            (status.get("staleness") or {}).get("mean"),
        ),
        "tfleet_staleness_max": ("The largest such number of updates.", (status.get("staleness") or {}).get("max")),
        "tfleet_goodput_ratio": (
            "Steps that count over all steps, those that a rollback undid too.",
            status["goodput"],
        ),
        "tfleet_commit_age_seconds": ("How long ago the last commit was made.", _age(status)),
    }
    counts = status["counts"]
    counters = {
        "tfleet_rollbacks": ("How often everybody went back to the last commit.", status.get("rollbacks")),
        "tfleet_steps_undone": ("Steps that were lost by that.", status.get("steps_undone")),
        "tfleet_commits": ("Commits that were made.", counts["commits"]),
        "tfleet_commits_failed": ("Commits that could not be made.", counts["failed_commits"]),
        "tfleet_members_fenced": ("Members that were lost: dead, or dropped as silent.", counts["fenced"]),
        "tfleet_batches_given_back": ("Batches that those who left had not done.", counts["given_back"]),
        "tfleet_pushes_late": ("Those of them whose worker was out of the job.", counts["late_pushes"]),
    }
    return [
        *(GaugeMetricFamily(name, text, value) for name, (text, value) in gauges.items() if value is not None),
        *(CounterMetricFamily(name, text, value) for name, (text, value) in counters.items() if value is not None),
    ]


def _age(status: dict[str, Any]) -> float | None:
    commit = status.get("last_commit")
    return max(0.0, status["updated"] - commit["time"]) if commit else None


def _values(name: str, text: str, values: dict[str, float]) -> Metric:
    family = GaugeMetricFamily(name, text, labels=["metric"])
    for metric, value in values.items():
        family.add_metric([metric], value)
    return family


def _replicas(status: dict[str, Any]) -> list[Metric]:
    restarts = CounterMetricFamily(
        "tfleet_restarts", "How often the backend started a replica again in place.", labels=["role", "index"]
    )
    memory = GaugeMetricFamily("tfleet_ps_memory_bytes", "Resident memory of a ps.", labels=["index"])
    updates = CounterMetricFamily("tfleet_ps_updates", "Pushes that a ps has taken.", labels=["index"])
    queue = CounterMetricFamily(
        "tfleet_ps_queue_seconds", "Time that pushes waited at a ps for their turn.", labels=["index"]
    )
    missing = 0
    for row in status.get("ps", []):
        restarts.add_metric(["ps", str(row["index"])], row["restarts"])
        missing += row["state"] == "missing"
        if row.get("memory"):
            memory.add_metric([str(row["index"])], row["memory"])
            updates.add_metric([str(row["index"])], row["updates"])
            queue.add_metric([str(row["index"])], row["queue_seconds"])
    for row in status["members"]:
        restarts.add_metric([row["role"], str(row["index"])], row.get("restarts", 0))
    slow = GaugeMetricFamily(
        "tfleet_straggler_ratio", "Step of a worker that is much slower than the others, over theirs.", labels=["index"]
    )
    if straggler := status["straggler"]:
        slow.add_metric([str(straggler["worker"])], straggler["ratio"])
    absent = GaugeMetricFamily("tfleet_ps_missing", "Parameter servers that are not there.", missing)
    return [restarts, memory, updates, queue, absent, slow]
