"""The status of a job: what stands in status.json and what /status answers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tfleet.server.coordinator import Coordinator

_NO_COUNTS = {"epoch": 0, "acknowledged": 0, "leased": 0, "returned": 0}


def describe(job: Coordinator) -> dict[str, Any]:
    """Returns the status as plain values; see docs, run directory, for the fields."""
    now = job.clock()
    metrics = job.progress.metrics() if job.progress else {}
    loss = metrics.pop("loss", None)
    total = job.ledger.total if job.ledger else max(0, job.spec.steps)
    rate = job.progress.steps_per_second if job.progress else 0.0
    left = (total - job.told_step) / rate if job.phase == "training" and total and rate else None
    elapsed = job.training_elapsed
    if job.phase == "training" and job.training_started is not None:
        elapsed += now - job.training_started
    over = job.ending.over or {}
    evaluations = job.evaluating.evaluations
    # Of the model that was exported, once one was.
    evaluation = (evaluations.kept if job.ending.export else None) or evaluations.last
    return {
        "phase": job.phase,
        "reason": job.ending.reason if over else "",
        "exit_code": over.get("exit_code"),
        "task": job.spec.task,
        "strategy": job.spec.strategy,
        "step": job.told_step,
        "steps": total,
        "epoch": job.ledger.epoch if job.ledger else 0,
        "steps_per_second": round(rate, 1),
        "loss": loss,
        "metrics": metrics,
        "staleness": job.staleness.to_json(),
        "bottleneck": job.profile.bottleneck() if job.phase == "training" else "",
        "seconds_left": round(left, 1) if left is not None else None,
        "members": job.members.describe(),
        "ledger": {
            **(job.ledger.counts() if job.ledger else _NO_COUNTS),
            "items": job.plan.items if job.plan else 0,
            "duplicates": job.ledger.duplicates if job.ledger else 0,
            "partial_updates": job.partial_updates,
        },
        "last_commit": job.checkpointing.commits.last,
        "evaluation": evaluation,
        "export": job.ending.export,
        "notes": job.notes[-20:],
        "generation": job.generation,
        "ps": [{**row, "memory": job.profile.memory(row["index"])} for row in job.links.describe()],
        "workers_wanted": job.scaling.wanted,
        "rollbacks": job.history.rollbacks,
        "steps_undone": job.undone,
        "ending": job.ending.wish,
        "ending_reason": job.ending.reason,
        "elapsed": round(now - job.started, 3),
        "training_elapsed": round(elapsed, 6),
        "started": job.started,
        "updated": now,
    }
