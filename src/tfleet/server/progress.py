"""What ps 0 tells about a running job: rates and training metrics, deploy.log, metrics.jsonl."""

from __future__ import annotations

import contextlib
import json
import math
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TextIO

import numpy as np

from tfleet.spec.rundir import RunDir
from tfleet.strategies.rule import Vector

WINDOW = 5.0
"""Seconds over which rates and training metrics are averaged."""
LINE_EVERY = 0.1
"""Seconds between two lines of deploy.log, at least."""


@dataclass
class Rate:
    """Steps per second over the last window."""

    _seen: deque[tuple[float, int]] = field(default_factory=deque)

    def update(self, now: float, step: int) -> float:
        """Takes the count at a time; returns steps per second over the window."""
        if not step:
            self._seen.clear()  # the rate begins with the first step, not with the wait for it
        self._seen.append((now, step))
        while len(self._seen) > 2 and self._seen[1][0] <= now - WINDOW:
            self._seen.popleft()
        first_time, first_step = self._seen[0]
        return (step - first_step) / (now - first_time) if now > first_time else 0.0


class Progress:
    """Training metrics and logs of one job.

    Args:
        run: where the logs are.
        names: of the metrics that a push reports as (total, count) pairs.
        clock: wall-clock time in Unix seconds.
    """

    def __init__(self, run: RunDir, names: tuple[str, ...], clock: Callable[[], float]) -> None:
        self._clock = clock
        self._names = names
        self._sum = np.zeros(2 * len(names), np.float64)
        self._window: deque[tuple[float, np.ndarray[Any, Any]]] = deque()
        self._deploy = run.deploy_log.open("a", encoding="utf-8", buffering=1)
        self._metrics = run.metrics.open("a", encoding="utf-8", buffering=1)
        self._next_line = 0.0
        self._lost = False
        self.rate = Rate()
        self.steps_per_second = 0.0

    def pushed(self, worker: int, local_step: int, step: int, metrics: Vector) -> None:
        """Takes what one push reported; writes a line of deploy.log unless the last is too young."""
        self._sum += metrics
        now = self._clock()
        if now >= self._next_line:
            self._next_line = now + LINE_EVERY
            line = f"{now:.6f}: Worker {worker}: training step {local_step} done (global step: {step})"
            self._write(self._deploy, line)

    def tick(self, now: float, step: int) -> None:
        """Updates rates and the window of metrics; `now` in the loop's time."""
        self.steps_per_second = self.rate.update(now, step)
        self._window.append((now, self._sum.copy()))
        while len(self._window) > 2 and self._window[1][0] <= now - WINDOW:
            self._window.popleft()

    def metrics(self) -> dict[str, float]:
        """Returns the means of the training metrics over the last window, the loss too."""
        since = self._window[0][1] if self._window else np.zeros_like(self._sum)
        totals = self._sum - since
        if not totals[1]:
            totals = self._sum
        pairs = zip(self._names, totals[0::2], totals[1::2], strict=True)
        return {name: float(total / count) for name, total, count in pairs if count and math.isfinite(total)}

    def write_metrics(self, kind: str, step: int, epoch: int, metrics: dict[str, float], **more: Any) -> None:
        """Writes one line of metrics.jsonl."""
        row = {"time": round(self._clock(), 3), "kind": kind, "step": step, "epoch": epoch, **metrics, **more}
        self._write(self._metrics, json.dumps(row))

    def training_ended(self, seconds: float) -> None:
        """Writes the last line of deploy.log."""
        self._write(self._deploy, f"Training elapsed time: {seconds:.6f} s")

    def close(self) -> None:
        """Closes the files."""
        for file in (self._deploy, self._metrics):
            with contextlib.suppress(OSError):
                file.close()

    def _write(self, file: TextIO, line: str) -> None:
        # A full disk must not end the job: lines are lost, and that is said once.
        try:
            file.write(line + "\n")
        except OSError as error:
            if not self._lost:
                print(f"tfleet: lines of {file.name} are lost: {error.strerror}", flush=True)
            self._lost = True
