"""Where helm is, and marks for tests that need it."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

# CI installs helm with the test cluster; see ../shared/cluster/install.
HELM = shutil.which("helm") or shutil.which("helm", path=str(Path.home() / ".cache/local-cluster/bin"))

needs_helm = pytest.mark.skipif(HELM is None, reason="helm is neither on PATH nor in ~/.cache/local-cluster/bin")
needs_helm_on_path = pytest.mark.skipif(
    shutil.which("helm") is None, reason="helm is not on PATH, where tfleet looks for it; it renders the chart"
)
