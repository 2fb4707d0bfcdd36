"""How the memory of a worker is compared and shown. Nothing is trained here."""

from __future__ import annotations

import sys
from argparse import Namespace
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"
sys.path.insert(0, str(BENCHMARKS))

import measure  # noqa: E402
import memory_worker  # noqa: E402
import processes  # noqa: E402
import write_measurements  # noqa: E402
from memory_worker import KERAS, WORKER  # noqa: E402


def compared(*rounds):
    commands = memory_worker.command_lines(Namespace(steps=500, hidden_units=100))
    return memory_worker.compare(commands, [{WORKER: worker, KERAS: keras} for worker, keras in rounds])


def test_the_peak_is_read_and_there_is_none_of_a_process_that_has_ended():
    assert processes.parse_peak("VmPeak: 9 kB\nVmHWM:\t  2000 kB\nVmRSS:\t 1000 kB\n") == pytest.approx(2.048)
    assert processes.parse_peak("Name: x\nState: Z (zombie)\n") == 0
    assert processes.high_water_mark(2**22 + 1) == 0


def test_a_worker_is_compared_with_the_keras_process_of_its_round():
    figures = compared((660, 600), (500, 1000), (720, 600))
    assert figures["ratio"]["values"] == [1.1, 0.5, 1.2]
    assert [row["peak_mb"]["median"] for row in figures["programs"]] == [660, 600]


def test_a_program_that_fails_is_no_measurement():
    with pytest.raises(RuntimeError, match="ended with 3"):
        memory_worker.peak_of([sys.executable, "-c", "raise SystemExit(3)"])


@pytest.mark.parametrize(("worker", "said"), [(690, "is reached"), (700, "is not reached")])
def test_the_page_says_whether_the_goal_is_reached(tmp_path, worker, said):
    settings = {"hidden_units": 100, "steps": 500, "batch_size": 20, "workers": 2, "ps": 2}
    values = {"kind": "memory", "settings": settings, **compared((worker, 630))}
    measure.write_result("m", ["benchmarks/memory_worker.py"], values, folder=tmp_path)
    page = write_measurements.page(tmp_path)
    assert f"| {WORKER} | {worker} ({worker} to {worker}) |" in page
    assert f"at most 1.1 times, {said}." in page
