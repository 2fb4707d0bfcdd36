"""The peers run: what they print is checked, never how fast they are."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

PEERS = Path(__file__).resolve().parents[2] / "benchmarks" / "peers"
sys.path.insert(0, str(PEERS.parent))

from contestants import Missing, torch_python  # noqa: E402
from measure import child_environment  # noqa: E402

pytestmark = [pytest.mark.tf, pytest.mark.processes]


@pytest.fixture
def data(tmp_path):
    random = np.random.default_rng(0)
    y = random.integers(0, 10, 400)
    x = np.zeros([400, 784], np.float32)
    x[np.arange(400), y] = 1
    np.savez(tmp_path / "data.npz", x=x, y=y, x_test=x[:100], y_test=y[:100])
    return tmp_path / "data.npz"


def run(script: str, *arguments: str, python: str = sys.executable) -> dict:
    command = [python, str(PEERS / script), *arguments]
    done = subprocess.run(command, env=child_environment(), capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout.strip().splitlines()[-1])


def test_keras_fit_learns_and_counts_its_steps(data):
    result = run("keras_fit.py", f"--data={data}", "--steps=4000", "--warmup=20", "--steps-per-execution=10")
    assert result["steps"] == 4000
    assert result["train_accuracy"] > 0.9


def test_keras_fit_as_a_whole_run_evaluates_and_exports(data, tmp_path):
    result = run("keras_fit.py", f"--data={data}", "--steps=2000", "--steps-per-execution=10", f"--export={tmp_path}/1")
    assert result["accuracy"] > 0.9
    assert (tmp_path / "1" / "saved_model.pb").exists()


def test_tensorflow_ps_reaches_the_global_step_with_both_workers(data):
    result = run("tf_graph_ps.py", f"--data={data}", "--steps=1200", "--warmup=50", "--input=tfdata", "--xla=yes")
    assert result["steps"] >= 1200
    assert result["steps_per_second"] > 0


def test_parameter_server_strategy_counts_the_steps_of_both_workers(data):
    result = run("tf2_ps.py", f"--data={data}", "--steps=1200", "--warmup=100", "--steps-a-call=5")
    assert result["steps"] == 1200
    assert result["train_accuracy"] > 0.9


def test_pytorch_ddp_learns_and_counts_its_iterations(data):
    try:
        python = torch_python()
    except Missing as why:
        pytest.skip(str(why))
    result = run("torch_ddp.py", f"--data={data}", "--steps=1500", "--warmup=100", python=python)
    assert result["steps"] == 1500
    assert result["train_accuracy"] > 0.9
    assert set(result["versions"]) == {"torch"}
