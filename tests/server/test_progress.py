"""deploy.log, metrics.jsonl, rates and training metrics, by clocks of the test."""

import itertools
import json
import re

import numpy as np
import pytest

from tfleet.server.progress import WINDOW, Progress
from tfleet.spec.rundir import RunDir


class Clock:
    time = 1_700_000_000.25

    def __call__(self):
        return self.time


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def run(tmp_path):
    return RunDir.at(tmp_path)


@pytest.fixture
def progress(run, clock):
    made = Progress(run, ("loss", "accuracy"), clock)
    yield made
    made.close()


def values(loss, accuracy, count=4):
    return np.array([loss * count, count, accuracy * count, count], np.float32)


def test_lines_look_as_users_of_the_original_know_them(progress, run, clock):
    progress.pushed(1, 40, 75, values(0.5, 0.5))
    clock.time += 2
    progress.pushed(0, 36, 76, values(0.5, 0.5))
    progress.training_ended(12.3456784)
    assert run.deploy_log.read_text() == (
        "1700000000.250000: Worker 1: training step 40 done (global step: 75)\n"
        "1700000002.250000: Worker 0: training step 36 done (global step: 76)\n"
        "Training elapsed time: 12.345678 s\n"
    )


def test_there_are_at_most_ten_lines_in_a_second(progress, run, clock):
    for step in range(1000):
        progress.pushed(0, step, step, values(0.5, 0.5))
        clock.time += 0.003
    times = [float(line.split(":")[0]) for line in run.deploy_log.read_text().splitlines()]
    assert 25 <= len(times) <= 30
    assert all(later - earlier >= 0.0999 for earlier, later in itertools.pairwise(times))


def test_a_resumed_job_goes_on_with_its_logs(progress, run, clock):
    progress.pushed(0, 1, 1, values(0.5, 0.5))
    again = Progress(run, ("loss", "accuracy"), clock)
    again.pushed(0, 2, 2, values(0.5, 0.5))
    again.close()
    assert len(run.deploy_log.read_text().splitlines()) == 2


def test_metrics_are_means_over_the_last_seconds(progress):
    assert progress.metrics() == {}
    progress.tick(0.0, 0)
    for second in range(1, 9):
        progress.pushed(0, second, second, values(float(second), 0.25, count=second))
        progress.tick(float(second), second)
    # The window begins with what was known 5 s before the last tick.
    recent = range(4, 9)
    loss = sum(s * s for s in recent) / sum(recent)
    assert progress.metrics() == pytest.approx({"loss": loss, "accuracy": 0.25})
    assert progress.steps_per_second == pytest.approx(1.0)
    assert len(progress._window) <= WINDOW + 2


def test_metrics_of_a_quiet_time_are_those_of_all_training(progress):
    progress.tick(0.0, 0)
    progress.pushed(0, 1, 1, values(2.0, 0.5))
    for second in range(1, 20):
        progress.tick(float(second), 1)
    assert progress.metrics() == {"loss": 2.0, "accuracy": 0.5}
    assert progress.steps_per_second == 0.0


def test_what_is_not_finite_or_was_not_counted_is_left_out(run, clock):
    progress = Progress(run, ("loss", "a", "b"), clock)
    progress.pushed(0, 1, 1, np.array([1, 2, np.nan, 1, 0, 0], np.float32))
    assert progress.metrics() == {"loss": 0.5}
    progress.close()


def test_metrics_are_written_as_lines_of_json(progress, run):
    progress.write_metrics("train", 40, 1, {"loss": 0.5}, steps_per_second=10.5)
    progress.write_metrics("eval", 40, 1, {"accuracy": 0.9}, commit=3)
    rows = [json.loads(line) for line in run.metrics.read_text().splitlines()]
    assert rows == [
        {"time": 1700000000.25, "kind": "train", "step": 40, "epoch": 1, "loss": 0.5, "steps_per_second": 10.5},
        {"time": 1700000000.25, "kind": "eval", "step": 40, "epoch": 1, "accuracy": 0.9, "commit": 3},
    ]


def test_a_full_disk_costs_lines_and_not_the_job(progress, run, clock, capsys):
    class Full:
        name = str(run.deploy_log)

        def write(self, _text):
            raise OSError(28, "No space left on device")

        def close(self):
            self.write("")

    opened, progress._deploy = progress._deploy, Full()
    for step in range(3):
        progress.pushed(0, step, step, values(1.0, 1.0))
    progress.training_ended(1.0)
    assert re.findall("lost: No space left", capsys.readouterr().out) == ["lost: No space left"]
    assert progress.metrics()["loss"] == 1.0
    progress.close()
    opened.close()
