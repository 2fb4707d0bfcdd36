"""Makes helpers beside the tests importable."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))


@pytest.fixture
def api(tmp_path, monkeypatch):
    """An API server that answers by a table, and KUBECONFIG that names it by the context `fake`."""
    pytest.importorskip("kr8s", reason="kr8s is not installed: pip install 'tfleet[kubernetes]'")
    from fake_api_server import served

    with served(tmp_path) as (server, config):
        monkeypatch.setenv("KUBECONFIG", config)
        for name in ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
            monkeypatch.delenv(name, raising=False)
        yield server
