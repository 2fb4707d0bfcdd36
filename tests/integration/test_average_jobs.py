"""A real job of the strategy average: real processes, real digits."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from jobs import nothing_left, tfleet

pytestmark = [pytest.mark.processes, pytest.mark.tf]


def test_average_reaches_the_accuracy_and_goes_on_for_more_rounds(tmp_path: Path) -> None:
    run = tmp_path / "run"
    given = ("--strategy", "average", "--workers", "2", "--ps", "2", "--run-dir", str(run), "-o", "json")
    done = tfleet("train", "mnist", "--local-steps", "50", "--rounds", "15", *given)
    assert done.code == 0, done.err
    status = json.loads((run / "status.json").read_text())
    # 450 batches an epoch: rounds of 100, 100, 100, 100 and the 50 that are left.
    assert status["step"] == status["steps"] == status["ledger"]["acknowledged"] == 3 * 450
    # Where the machine is busy a run is overdue now and then, and done twice: `duplicates` counts what was refused.
    assert status["ledger"]["leased"] == status["ledger"]["returned"] == status["ledger"]["partial_updates"] == 0
    assert sum(m["steps"] for m in status["members"] if m["role"] == "worker") == 1350
    assert done.json()["evaluation"]["metrics"]["accuracy"] >= 0.90
    nothing_left(run)

    more = tfleet("train", "--resume", "--rounds", "20", *given[2:])
    assert more.code == 0, more.err
    assert more.json()["step"] == 1800
    assert more.json()["evaluation"]["metrics"]["accuracy"] >= 0.91
    refused = tfleet("train", "--resume", "--local-steps", "10", *given[2:])
    assert refused.code == 2
    assert "was trained with local_steps 50, this job has 10" in refused.err
