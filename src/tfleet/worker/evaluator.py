"""The evaluator: a replica that evaluates the newest commit whenever there is one, and ends with the job."""

from __future__ import annotations

import contextlib
import threading

from tfleet.checkpoint.errors import CommitDamaged
from tfleet.checkpoint.store import Store
from tfleet.spec.errors import ExitCode, JobFailed
from tfleet.spec.rundir import RunDir
from tfleet.worker.built import Built
from tfleet.worker.loop import as_json
from tfleet.worker.session import Session
from tfleet.worker.summaries import Scalars, evaluator_folder


def follow(session: Session, built: Built, run: RunDir, draining: threading.Event) -> int:
    """Blocks until the job is over; returns the exit code.

    Args:
        session: the membership.
        built: the task.
        run: the run directory.
        draining: set when this replica shall leave.
    """
    store = Store(run.checkpoints)
    scalars = Scalars(evaluator_folder(run.summaries))
    seen = 0  # commit 0 is the untrained model
    while not draining.is_set():
        answer, _ = session.first.call("follow", seen=seen)
        if answer["over"]:
            with contextlib.suppress(JobFailed):
                scalars.close()
            return int(session.outcome().get("exit_code", ExitCode.FAILED))
        seen = int(answer["commit"])
        try:
            manifest = store.get(seen)
            built.load(store, manifest)
        except CommitDamaged:
            continue  # pruned meanwhile: there is a newer one
        metrics = built.evaluate()
        try:
            scalars.write(manifest.step, metrics)
            scalars.flush()
        except JobFailed as error:
            session.heart.remark(f"{error}; evaluation goes on without them")
        session.first.call("report", step=manifest.step, commit=seen, metrics=as_json(metrics))
    session.first.call("leave", reason="")
    return ExitCode.INTERRUPTED
