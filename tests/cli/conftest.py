"""Makes `fake_jobs` importable, and gives the commands a backend that starts nothing."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent.parent / "api"))

from fake_jobs import FakeBackend, done, status


@pytest.fixture
def backend(monkeypatch, tmp_path):
    """The backend behind `tfleet train`; the working directory is a new one."""
    fake = FakeBackend([{}, status("starting", members=[]), status("training", 900), done()])
    monkeypatch.setattr("tfleet.cli.train.local_backend", lambda: fake)
    monkeypatch.setattr("tfleet.api.follow.INTERVAL", 0.0)
    monkeypatch.chdir(tmp_path)
    return fake
