"""Summaries on a disk that does not take them: the job goes on, and the user is told once."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from tfleet.data import Batch
from tfleet.spec.job import SummarySpec
from tfleet.spec.rundir import RunDir
from tfleet.worker.recorder import Recorder

pytestmark = pytest.mark.tf


class Heart:
    """Holds the lease of the job's summaries, and remembers what it is to tell."""

    def __init__(self):
        self.summaries, self.told = True, []
        self.status = {"step": 1, "loss": 0.5, "metrics": {}, "steps_per_second": 10.0}

    def remark(self, text):
        self.told.append(text)


def test_what_cannot_be_written_is_told_once_and_tried_again(tmp_path):
    run = RunDir.at(tmp_path)
    run.summaries.touch()  # a file where the folder should be: nothing can be written in it
    heart = Heart()
    built = SimpleNamespace(plan=SimpleNamespace(layout=SimpleNamespace(metrics=("loss",))))
    ticks = iter(range(100))
    recorder = Recorder(
        SummarySpec(every_steps=10, histograms=False), run, 0, built, heart, clock=lambda: float(next(ticks))
    )
    step, batch = SimpleNamespace(metrics=np.ones(2)), Batch(np.zeros((1, 1)), None, None, 1)
    recorder.purge(1)
    for number in (1, 11, 21):
        recorder.step(SimpleNamespace(step=number), step, batch, 0.1)
    recorder.evaluated(21, {"loss": 0.5})
    assert len(heart.told) == 1
    assert "summaries cannot be written" in heart.told[0]
    assert heart.told[0].endswith("; training goes on without them, later ones are tried")
    run.summaries.unlink()
    recorder.step(SimpleNamespace(step=31), step, batch, 0.1)
    recorder.finished(31)
    assert list((run.summaries / "train" / "worker-0").glob("events*"))
    assert len(heart.told) == 1
