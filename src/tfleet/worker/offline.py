"""Evaluation and export of a run's commits, outside of a job."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from tfleet.checkpoint.errors import none_readable
from tfleet.checkpoint.manifest import Manifest
from tfleet.checkpoint.store import Store
from tfleet.spec.errors import WrongInput
from tfleet.spec.job import JobSpec
from tfleet.spec.rundir import RunDir
from tfleet.worker.built import Built
from tfleet.worker.keras_setup import set_up


def evaluate_run(run: RunDir, commit: int = -1) -> dict[str, Any]:
    """Evaluates a commit on the task's held-out data; blocks for seconds.

    Tells on stderr which newer commits are damaged.

    Args:
        run: the run directory.
        commit: number of the commit; -1: the newest one.

    Returns:
        {"commit", "step", "metrics"}.

    Raises:
        WrongInput: when there is no such commit, or no held-out data.
    """
    built, manifest = _load(run, commit)
    if built.test is None:
        raise WrongInput("the task has no held-out data; let its data function return 'test' too")
    return {"commit": manifest.number, "step": manifest.step, "metrics": built.evaluate()}


def export_run(run: RunDir, commit: int = -1) -> Path:
    """Exports a commit as a new version; blocks for seconds.

    Tells on stderr which newer commits are damaged.

    Args:
        run: the run directory.
        commit: number of the commit; -1: the newest one.

    Returns:
        The folder of the version.

    Raises:
        WrongInput: when there is no such commit.
    """
    built, manifest = _load(run, commit)
    return built.export(run.export, manifest.step, built.evaluate())


def _load(run: RunDir, commit: int) -> tuple[Built, Manifest]:
    spec = JobSpec.load(run.job_file)
    store = Store(run.checkpoints)
    if commit >= 0:
        if commit not in store.numbers():
            have = ", ".join(map(str, store.numbers())) or "none"
            raise WrongInput(f"there is no commit {commit} in {run.path}; give one of these to --commit: {have}")
        manifest: Manifest | None = store.get(commit)
    else:
        manifest, refused = store.newest()
        if manifest is None and refused:
            raise none_readable(refused)
        for sentence in refused:
            print(f"tfleet: note: {sentence}", file=sys.stderr, flush=True)
    if manifest is None:
        raise WrongInput(f"there is no commit in {run.path} yet; train first, or wait until the job has begun to train")
    set_up(spec.threads, spec.seed)
    built = Built(spec)
    built.load(store, manifest)
    return built, manifest
