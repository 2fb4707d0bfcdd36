"""The entry point of a ps: how it ends when there is no memory for it."""

from __future__ import annotations

import sys

import pytest

from tfleet.server import __main__ as entry
from tfleet.spec.rundir import RunDir


@pytest.mark.parametrize("index", [0, 1])
def test_a_ps_without_memory_says_so_and_may_be_started_again(tmp_path, monkeypatch, capsys, index):
    class Short:
        def __init__(self, *_):
            pass

        def run(self):
            raise MemoryError("Unable to allocate 30.0 GiB for an array")

    for name in ("FirstPs", "OtherPs"):
        monkeypatch.setattr(entry, name, Short)
    monkeypatch.setattr(entry, "never_fail_to_print", lambda: None)
    monkeypatch.setattr(sys, "argv", ["ps", "--index", str(index), "--run-dir", str(tmp_path)])
    assert entry.main() == 1
    said = (
        f"tfleet: ps {index} is out of memory: Unable to allocate 30.0 GiB for an array; give more ps, or more memory"
    )
    assert capsys.readouterr().err == said + "\n"
    assert RunDir.at(tmp_path).status() == {}  # the job is not over: this ps is started again
