"""Whole manifests, as they were looked at and found right.

`TFLEET_UPDATE_GOLDEN=1 pytest tests/charts` writes them anew; read the difference before you commit it.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from chart_cases import CASES, manifests
from chart_renders import PRESETS, helm, preset_file
from helm_program import needs_helm

pytestmark = needs_helm

GOLDEN = Path(__file__).parent / "golden"


@pytest.mark.parametrize("case", CASES)
def test_the_manifests_are_the_golden_ones(case):
    path, now = GOLDEN / f"{case}.yaml", manifests(case)
    if os.environ.get("TFLEET_UPDATE_GOLDEN"):
        path.write_text(now, encoding="utf-8")
    assert now == path.read_text(encoding="utf-8"), "TFLEET_UPDATE_GOLDEN=1 writes the golden files anew"


def test_no_golden_file_is_left_over():
    assert {path.stem for path in GOLDEN.glob("*.yaml")} == set(CASES)


@pytest.mark.parametrize("preset", ["", *PRESETS])
def test_helm_lint_finds_nothing(preset):
    values = ["--values", str(preset_file(preset))] if preset else []
    done = helm("lint", "--strict", "--kube-version", "1.34.0", *values, str(preset_file("kind").parents[1]))
    assert done.returncode == 0, done.stdout + done.stderr
    assert "[WARNING]" not in done.stdout
    assert "[INFO]" not in done.stdout, "such as: icon is recommended"
