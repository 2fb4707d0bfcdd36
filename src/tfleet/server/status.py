"""The status of a job: what stands in status.json and what /status answers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tfleet.server.stragglers import Straggler, slowest

if TYPE_CHECKING:
    from tfleet.server.coordinator import Coordinator

COUNTS = ("commits", "failed_commits", "fenced", "given_back", "late_pushes")
"""What is counted over all generations: commits that were made, that could not be, members that were dropped or lost,
batches that those who left had not done, pushes that were refused because their worker was out of the job."""

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
    straggler = _straggler(job) if job.phase == "training" else None
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
        "straggler": straggler.to_json() if straggler else None,
        "seconds_left": round(left, 1) if left is not None else None,
        "members": job.members.describe(job.epoch),
        "ledger": {
            **(job.ledger.counts() if job.ledger else _NO_COUNTS),
            "items": job.plan.items if job.plan else 0,
            "duplicates": job.ledger.duplicates if job.ledger else 0,
            "partial_updates": job.partial_updates,
        },
        "fenced": [dict(row) for row in job.dropped.rows],
        "counts": _counts(job),
        "last_commit": job.checkpointing.commits.last or job.goes_on,
        "evaluation": evaluation,
        "export": job.ending.export,
        "notes": job.notes[-20:],
        "generation": job.generation,
        "ps": [{**row, **_of_ps(job, row["index"])} for row in job.links.describe()],
        "workers_wanted": job.scaling.wanted,
        "workers_asked": job.scaling.asked,
        "rollbacks": job.history.rollbacks,
        "steps_undone": job.undone,
        "goodput": round(job.told_step / (job.told_step + job.undone), 4) if job.told_step else None,
        "ending": job.ending.wish,
        "ending_reason": job.ending.reason,
        "elapsed": round(now - job.started, 3),
        "training_elapsed": round(elapsed, 6),
        "started": job.started,
        "updated": now,
    }


def _straggler(job: Coordinator) -> Straggler | None:
    workers = [member.index for member in job.members.workers]
    return slowest(job.profile.of_workers(workers), meet=job.strategy.waits)


def _of_ps(job: Coordinator, index: int) -> dict[str, Any]:
    """Returns what a ps tells about itself: bytes, and since this generation began updates and seconds of waiting."""
    told = job.profile.newest("ps", index)
    return {
        "memory": int(told.get("memory", 0)),
        "updates": int(told.get("rounds", 0)),
        "queue_seconds": round(told.get("queue", 0.0), 3),
    }


def _counts(job: Coordinator) -> dict[str, int]:
    commits = job.checkpointing.commits
    late = sum(int(job.profile.newest("ps", index).get("late", 0)) for index in range(job.spec.ps))
    now = {"commits": commits.made, "failed_commits": commits.failed, "late_pushes": late}
    return {name: job.counts[name] + now.get(name, 0) for name in COUNTS}
