"""`launch` with scripts written for TensorFlow's own distributed runtime, unchanged."""

from __future__ import annotations

import re
import sys
import time
from pathlib import Path

import pytest

from tfleet.backends.launch import Launch, plan_launch

pytestmark = [pytest.mark.processes, pytest.mark.tf]
SCRIPTS = Path(__file__).with_name("scripts")


@pytest.fixture(autouse=True)
def _dead_proxy(monkeypatch):
    """A proxy that nothing listens on: TensorFlow's gRPC would go there for loopback too, and hang."""
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "grpc_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.setenv("TF_CPP_MIN_LOG_LEVEL", "2")


def launch(tmp_path, script, *arguments, workers=2, ps=2, chief=False):
    lines = []
    command = [sys.executable, str(SCRIPTS / script), *map(str, arguments)]
    deadline = time.monotonic() + 180
    with Launch(plan_launch(command, workers, ps, chief, tmp_path / "run")) as running:
        while (code := running.poll()) is None and time.monotonic() < deadline:
            lines += running.lines()
            time.sleep(0.1)
        lines += running.lines()
    return code, "\n".join(lines)


def test_graph_mode_by_host_lists(tmp_path):
    code, output = launch(tmp_path, "graph_hosts.py", 200)
    assert code == 0, output
    trained = [int(n) for n in re.findall(r"^worker-\d \| worker \d trained (\d+) steps", output, re.M)]
    assert len(trained) == 2
    assert sum(trained) >= 200


def test_graph_mode_by_tf_config(tmp_path):
    code, output = launch(tmp_path, "graph_tf_config.py", 20)
    assert code == 0, output
    assert "worker-0 | worker 0 saw 40 of 40" in output


def test_parameter_server_strategy_with_a_chief(tmp_path):
    code, output = launch(tmp_path, "parameter_server_strategy.py", 30, chief=True)
    assert code == 0, output
    assert "chief-0 | the chief counted 30" in output
