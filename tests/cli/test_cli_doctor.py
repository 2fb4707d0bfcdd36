"""`tfleet doctor` shows what was found, and its exit code says whether training can work."""

import json

import pytest

from tfleet.backends.doctor import Finding
from tfleet.cli.main import run

GOOD = Finding("Python", True, "3.11.7")
SLOW = Finding("cores", False, "1", "fewer workers", required=False)
BAD = Finding("tensorflow", False, "No module named 'tensorflow'", "install it with: pip install 'tfleet[cpu]'")


@pytest.fixture
def found(monkeypatch):
    findings = [GOOD, SLOW]
    monkeypatch.setattr("tfleet.backends.doctor.examine", lambda: findings)
    return findings


def test_a_fit_machine(found, capsys):
    assert run(["doctor"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split() for line in lines[:3]] == [
        ["✓", "Python", "3.11.7"],
        ["!", "cores", "1"],
        ["fewer", "workers"],
    ]
    assert lines[-1] == "This machine is fit. Start with: tfleet train mnist --workers 2 --ps 2"


def test_an_unfit_machine(found, capsys):
    found.append(BAD)
    assert run(["doctor"]) == 1
    out = capsys.readouterr().out
    assert "✗ tensorflow" in out
    assert "install it with: pip install 'tfleet[cpu]'" in out
    assert "This machine is not fit yet" in out


def test_json(found, capsys):
    assert run(["doctor", "-o", "json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"fit": True, "findings": [GOOD.to_json(), SLOW.to_json()]}
