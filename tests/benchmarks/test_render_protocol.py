"""The section on faults says what its result file says, of those tests that were run."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"


@pytest.fixture
def section(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    yield __import__("render_protocol").protocol_section
    sys.modules.pop("render_protocol", None)


def test_each_test_that_was_run_has_a_row(section):
    when = {"date": "2026-11-23", "load_at_start": 1.0, "seed": 7}
    silent = {"connections": 1000, "most_open": 269, "grown_kib": 1536, "longest_gap_seconds": 0.5}
    figures = {"commit_kills": {**when, "kills": 1300, "phases": {}}, "silent": {**when, **silent}}
    text = section({"figures": figures}, "\norigin\n")
    rows = [line for line in text.splitlines() if line.endswith("| 2026-11-23, seed 7 |")]
    assert len(rows) == 2
    assert "| 1,300 kills | each time the last commit loaded" in rows[0]
    assert "at most 269 descriptors of a ps open at once; it grew by 1.5 MiB" in rows[1]
    assert text.endswith("\norigin\n")
