"""What a job writes for TensorBoard.

Layout below `RUN/summaries`; each folder is one run in TensorBoard and has one writer at a time:

| folder | what | writer |
| --- | --- | --- |
| `train/worker-<i>` | scalars of one worker by global step | that worker |
| `train/job` | scalars of the whole job | the worker that holds the summaries lease |
| `train/details` | histograms and images | the same |
| `eval/job` | held-out metrics by global step | the worker that evaluates or finalises |
| `eval/evaluator` | held-out metrics of every commit | the evaluator |
"""

from __future__ import annotations

from pathlib import Path

from tfleet.worker.summaries.budget import Budget
from tfleet.worker.summaries.details import Details
from tfleet.worker.summaries.events import Scalars

__all__ = [
    "Budget",
    "Details",
    "Scalars",
    "details_folder",
    "eval_folder",
    "evaluator_folder",
    "job_folder",
    "worker_folder",
]


def worker_folder(summaries: Path, index: int) -> Path:
    """Returns the folder of one worker's scalars; `summaries` is `RunDir.summaries`."""
    return summaries / "train" / f"worker-{index}"


def job_folder(summaries: Path) -> Path:
    """Returns the folder of the scalars of the whole job; `summaries` is `RunDir.summaries`."""
    return summaries / "train" / "job"


def details_folder(summaries: Path) -> Path:
    """Returns the folder of histograms and images; `summaries` is `RunDir.summaries`."""
    return summaries / "train" / "details"


def eval_folder(summaries: Path) -> Path:
    """Returns the folder of the held-out metrics that workers write; `summaries` is `RunDir.summaries`."""
    return summaries / "eval" / "job"


def evaluator_folder(summaries: Path) -> Path:
    """Returns the folder of the held-out metrics that the evaluator writes; `summaries` is `RunDir.summaries`."""
    return summaries / "eval" / "evaluator"
