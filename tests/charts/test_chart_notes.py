"""NOTES.txt says what to run next."""

from __future__ import annotations

import shutil

import pytest
import yaml
from chart_cases import CASES, VALUES
from chart_renders import CHART, KUBERNETES, helm, preset_file
from helm_program import needs_helm

pytestmark = needs_helm

# `helm template` leaves the notes out, so a copy of the chart puts them into an object.
HOLDER = """
apiVersion: v1
kind: ConfigMap
metadata:
  name: held-notes
data:
  notes: {{ include "tfleet/templates/NOTES.txt" . | toJson }}
"""


@pytest.fixture(scope="module")
def chart(tmp_path_factory):
    copy = tmp_path_factory.mktemp("chart") / "tfleet"
    shutil.copytree(CHART, copy)
    (copy / "templates" / "held-notes.yaml").write_text(HOLDER, encoding="utf-8")
    return copy


@pytest.mark.parametrize("case", CASES)
def test_the_notes_name_the_next_commands(chart, case, tmp_path):
    values = tmp_path / "values.yaml"
    values.write_text(yaml.safe_dump(VALUES.get(case, {})), encoding="utf-8")
    given = values if case in VALUES else preset_file(case)
    done = helm(
        *("template", "digits", str(chart), "--namespace", "work", "--kube-version", KUBERNETES),
        *("--values", str(given), "--show-only", "templates/held-notes.yaml"),
    )
    assert done.returncode == 0, done.stderr
    notes = yaml.safe_load(done.stdout)["data"]["notes"]
    assert "digits" in notes
    assert "kubectl" in notes or "tfleet" in notes
    assert "<no value>" not in notes
    assert "%!" not in notes, "a format that did not fit"
    if case == "default":
        for command in (
            "tfleet status k8s://",
            "helm test digits",
            "helm upgrade digits",
            "--reuse-values",
            "helm uninstall",
        ):
            assert command in notes
