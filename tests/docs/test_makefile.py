"""The Makefile's promises: few packages for the demo, clear refusals, nothing done twice."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

pytestmark = pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")


def make(*arguments: str) -> subprocess.CompletedProcess[str]:
    # The tests may themselves run under `make test`, whose variables and job server are not ours.
    environ = {k: v for k, v in os.environ.items() if k not in ("MAKEFLAGS", "MFLAGS", "MAKELEVEL", "MAKEOVERRIDES")}
    return subprocess.run(["make", *arguments], cwd=ROOT, env=environ, capture_output=True, text=True)


def stamped(tmp_path: Path, *stamps: str) -> Path:
    venv = tmp_path / "venv"
    venv.mkdir()
    for stamp in stamps:
        (venv / f".stamp-{stamp}").touch()
    return venv


def test_help_lists_the_targets():
    listed = {line.split()[0] for line in make("help").stdout.splitlines()}
    assert {"demo", "test", "check", "e2e", "chaos", "bench", "docs"} <= listed


def test_the_demo_installs_what_training_needs_and_no_more(tmp_path):
    said = make("-n", "demo", f"VENV={tmp_path / 'venv'}").stdout
    assert "-e '.[cpu]'" in said
    assert "[cpu,dev,docs]" not in said
    assert "tfleet train mnist --workers 2 --ps 2 --steps 2000 --param hidden_units=100" in said


def test_a_short_run_of_chaos_is_short_in_all_its_parts(tmp_path):
    venv = f"VENV={stamped(tmp_path, 'venv', 'cpu', 'dev')}"
    short = make("-n", "chaos", venv, "CHAOS_SCHEDULES=5", "CHAOS_SEED=7").stdout
    assert "chaos.py --schedules 5 --seed 7" in short
    assert "soak.py --minutes 1.5 --seed 7" in short
    assert "recovery.py --repeats 1" in short
    long = make("-n", "chaos", venv).stdout
    assert "chaos.py --schedules 200 --seed " in long
    assert "soak.py --minutes 30 " in long


def test_what_needs_no_cluster_is_tested_without_one(tmp_path):
    said = make("-n", "test", f"VENV={stamped(tmp_path, 'venv', 'cpu', 'dev')}").stdout
    assert "--ignore=tests/e2e" in said
    assert "tests/chaos" not in said


def test_a_second_call_installs_nothing(tmp_path):
    venv = stamped(tmp_path, "venv", "cpu", "dev")
    assert make("-q", "venv", f"VENV={venv}").returncode == 0
    assert make("-q", "dev", f"VENV={venv}").returncode == 0


def test_no_fit_python_is_refused_in_a_sentence(tmp_path):
    done = make("venv", f"VENV={tmp_path / 'venv'}", "PYTHON=false")
    assert done.returncode != 0
    assert "tfleet needs Python 3.11" in done.stderr
    assert "make PYTHON=" in done.stderr
    assert not (tmp_path / "venv").exists()


def test_constraints_hold_names_and_versions_only():
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    assert lines
    assert [line for line in lines if not re.fullmatch(r"[A-Za-z0-9._-]+==[A-Za-z0-9.+!]+", line)] == []
    assert not [line for line in lines if line.lower().startswith("tfleet")]


def test_the_script_of_ci_is_executable_bash():
    script = ROOT / ".ci" / "run"
    assert script.stat().st_mode & 0o111
    assert subprocess.run(["bash", "-n", str(script)]).returncode == 0
