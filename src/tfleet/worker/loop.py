"""The training loop of a worker: lease, batch, gradient, exchange, again; and the orders in between."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Sequence

import numpy as np

from tfleet.checkpoint.store import Store
from tfleet.data import Batch
from tfleet.spec.arrays import Ids, Matrix
from tfleet.spec.errors import ExitCode, JobFailed
from tfleet.spec.rundir import RunDir
from tfleet.strategies.exchange import Exchange, Step
from tfleet.wire.frames import Lease, Order, Take
from tfleet.worker.built import Built
from tfleet.worker.recorder import Recorder
from tfleet.worker.session import Session


class TrainingLoop:
    """What one worker does from its first lease until the job is over.

    Args:
        session: the membership.
        built: the task.
        exchange: of the job's strategy.
        run: the run directory.
        recorder: of the summaries.
        draining: set when this worker shall leave after the batch at hand.
    """

    def __init__(
        self,
        session: Session,
        built: Built,
        exchange: Exchange,
        run: RunDir,
        recorder: Recorder,
        draining: threading.Event,
    ) -> None:
        self._session = session
        self._built = built
        self._exchange = exchange
        self._run = run
        self._store = Store(run.checkpoints)
        self._recorder = recorder
        self._draining = draining
        self._times = session.heart.times

    def run(self) -> int:
        """Blocks until the job is over or this worker was drained; returns its exit code.

        Raises:
            JobFailed: when a loss or gradient is not finite.
            ConnectionLost: when a ps is gone.
        """
        take = self._exchange.pull()
        while take.order is not Order.OVER:
            take = self._train(take)
            if take.order is Order.OVER:
                break
            if self._draining.is_set():
                self._session.first.call("leave", reason="")
                return ExitCode.INTERRUPTED
            if take.order is Order.EVALUATE:
                self._evaluate()
            elif take.order is Order.FINALISE:
                self._finalise()
            take = self._exchange.pull()
        return int(self._session.outcome().get("exit_code", ExitCode.FAILED))

    def _train(self, take: Take) -> Take:
        """Computes batches until there are no more leases, or the job is over; returns the last order among it all."""
        leases, order = deque(take.leases), take.order
        while leases and order is not Order.OVER:
            self._exchange.want = order is Order.NONE and not self._draining.is_set()
            take = self._compute(leases.popleft(), len(leases))
            leases.extend(take.leases)
            order = take.order if order is Order.NONE else order
        self._exchange.want = not self._draining.is_set()
        return take._replace(order=order)

    def _compute(self, lease: Lease, held: int) -> Take:
        built, exchange, times = self._built, self._exchange, self._times
        times.begin()
        batch = built.read(built.indices(lease.epoch, lease.batch))
        times.end("data")
        step = built.gradient(exchange.parameters, exchange.state, batch, lease.epoch, lease.batch, self._fetch)
        times.end("gradient")
        if not step.finite:
            raise JobFailed(_not_finite(step, batch, lease))
        rate = built.optimizer.learning_rate(exchange.updates)
        self._recorder.step(exchange, step, batch, rate)
        take = exchange.push(step, rate, batch.size, lease.epoch, lease.batch, lease.batches, held)
        times.end("exchange")
        return take

    def _fetch(self, touched: Sequence[Ids], into: Sequence[Matrix]) -> None:
        """Gets rows of tables, in the middle of making a gradient."""
        assert self._exchange.rows is not None
        self._times.end("gradient")
        self._exchange.rows.fetch(touched, into)
        self._times.end("exchange")

    def _evaluate(self) -> None:
        asked, _ = self._session.first.call("evaluation")
        manifest = self._store.get(int(asked["commit"]))
        self._built.load(self._store, manifest)
        metrics = self._built.evaluate()
        self._recorder.evaluated(manifest.step, metrics)
        self._session.first.call("report", step=manifest.step, commit=manifest.number, metrics=as_json(metrics))

    def _finalise(self) -> None:
        """Evaluates the last commit and exports it, or the best one where the job keeps that."""
        built, call = self._built, self._session.first.call
        asked, _ = call("finalise")
        manifest = self._store.get(int(asked["commit"]))
        built.load(self._store, manifest)
        metrics = built.evaluate()
        if metrics:
            answer, _ = call("report", step=manifest.step, commit=manifest.number, metrics=as_json(metrics))
            self._recorder.evaluated(manifest.step, metrics)
            if int(answer["export"]) != manifest.number:
                manifest = self._store.get(int(answer["export"]))
                built.load(self._store, manifest)
                metrics = built.evaluate()
        folder = built.export(self._run.export, manifest.step, metrics)
        self._recorder.finished(manifest.step)
        call("finalised", export=str(folder))


def as_json(metrics: dict[str, float]) -> dict[str, float | str]:
    """Returns metrics as frames carry them: JSON has no NaN and no infinity, so they go as text."""
    return {name: value if np.isfinite(value) else str(value) for name, value in metrics.items()}


def _not_finite(step: Step, batch: Batch, lease: Lease) -> str:
    where = f"batch {lease.batch} of epoch {lease.epoch}"
    for name, tree in (("inputs", batch.x), ("targets", batch.y), ("sample weights", batch.sample_weight)):
        if any(not np.isfinite(a).all() for a in _leaves(tree) if a.dtype.kind == "f"):
            return f"the {name} of {where} hold NaN or infinity; clean the data (the last commit is kept)"
    what = f"loss is {step.loss}" if not np.isfinite(step.loss) else "gradient is not finite"
    return (
        f"the {what} at {where}, though its data are finite; "
        "try a smaller learning rate or clipping, and see that the targets are what the loss expects "
        "(the last commit is kept)"
    )


def _leaves(tree: object) -> list[np.ndarray]:
    if tree is None:
        return []
    if isinstance(tree, dict):
        return [leaf for part in tree.values() for leaf in _leaves(part)]
    if isinstance(tree, list | tuple):
        return [leaf for part in tree for leaf in _leaves(part)]
    return [np.asarray(tree)]
