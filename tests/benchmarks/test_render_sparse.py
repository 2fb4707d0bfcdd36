"""The section on embeddings says what its result file says."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"


@pytest.fixture
def section(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    yield __import__("render_sparse").sparse_section
    sys.modules.pop("render_sparse", None)


def case(sparse, optimizer, rows, touched, milliseconds):
    spread = {"median": milliseconds, "min": milliseconds / 2, "max": milliseconds * 2}
    return {"sparse": sparse, "optimizer": optimizer, "rows": rows, "touched": touched, "milliseconds": spread}


def test_each_case_stands_in_its_table(section):
    result = {
        "repeats": 3,
        "cases": [
            case("exact", "sgd", 1_000_000, 2000, 2.0),
            case("never", "sgd", 1_000_000, 2000, 150.0),
            case("exact", "sgd", 1_000_000, 20_000, 20.0),
            case("exact", "sgd", 10_000, 2000, 1.9),
        ],
        "faster": {"sgd": {"median": 75.0, "min": 70.0, "max": 80.0}},
    }
    text = section(result, lambda v, form: form.format(v["median"]), "\norigin\n")
    assert "| sgd | 2.00 | 150.00 | 75 |" in text
    touched, rows = text.split("| rows touched")[1].split("| rows of the table")
    assert [line for line in touched.splitlines() if line.startswith("| 2")] == [
        "| 2,000 | 2.00 |",
        "| 20,000 | 20.00 |",
    ]
    assert "| 10,000 | 1.90 |\n| 1,000,000 | 2.00 |" in rows
    assert text.endswith("\norigin\n")
