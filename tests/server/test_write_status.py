"""status.json on a disk that is full: there is some room kept for it."""

from __future__ import annotations

import errno
import json

import pytest

from tfleet.server import process
from tfleet.server.process import RESERVE, write_status
from tfleet.spec.rundir import RunDir, write_atomically


@pytest.fixture
def run(tmp_path):
    made = RunDir.at(tmp_path)
    made.create()
    return made


def fills(monkeypatch, run, code=errno.ENOSPC):
    """From now on there is room for the status only where the reserve was given up."""

    def write(path, text):
        if run.reserve_file.exists() or code != errno.ENOSPC:
            raise OSError(code, "No space left on device")
        write_atomically(path, text)

    monkeypatch.setattr(process, "write_atomically", write)
    monkeypatch.setattr(process, "ROOM", 1 << 62)


def test_room_is_kept_given_up_and_kept_again(run, monkeypatch):
    write_status(run, {"step": 1})
    assert run.reserve_file.stat().st_size == RESERVE
    with monkeypatch.context() as patch:
        fills(patch, run)
        write_status(run, {"step": 2})
        assert run.status() == {"step": 2}
        assert not run.reserve_file.exists()
        write_status(run, {"step": 3})
        assert not run.reserve_file.exists()
    write_status(run, {"step": 4})
    assert run.reserve_file.exists()


def test_what_cannot_be_written_all_the_same_is_said_and_passed_over(run, monkeypatch, capsys):
    write_status(run, {"step": 1})
    fills(monkeypatch, run, errno.EACCES)
    write_status(run, {"step": 2})
    assert json.loads(run.status_file.read_text()) == {"step": 1}
    assert run.reserve_file.exists()
    assert "status.json could not be written" in capsys.readouterr().out
