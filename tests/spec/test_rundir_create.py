"""Making a run directory, and what is told and left when that is impossible."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from tfleet.spec import rundir
from tfleet.spec.errors import WrongInput
from tfleet.spec.rundir import RunDir, write_atomically


def test_what_was_made_is_told_from_the_outermost_on(tmp_path):
    run = RunDir.at(tmp_path / "runs" / "new")
    made = run.create()
    assert made[:2] == [tmp_path / "runs", run.path]
    assert all(folder.is_dir() for folder in made)
    assert run.private.stat().st_mode & 0o777 == 0o700
    assert run.create() == []


def test_a_folder_of_a_newer_tfleet_is_refused_and_left_alone(tmp_path):
    run = RunDir.at(tmp_path / "run")
    run.create()
    run.write_job("task: mnist\n")
    assert RunDir.existing(run.path) == run
    run.format_file.write_text("2\n")
    before = {path: path.stat().st_mtime_ns for path in (run.path, run.private, *run.path.iterdir())}
    for use in (run.create, lambda: RunDir.existing(run.path)):
        with pytest.raises(WrongInput, match=r"is of a newer tfleet: it has format 2, and this .* knows up to 1"):
            use()
    assert before == {path: path.stat().st_mtime_ns for path in before}


@pytest.mark.parametrize("text", ["", "1\n", "anything"])
def test_a_folder_of_an_older_tfleet_is_taken(tmp_path, text):
    run = RunDir.at(tmp_path)
    run.create()
    run.write_job("task: mnist\n")
    run.format_file.write_text(text)
    assert RunDir.existing(run.path) == run


def test_a_full_disk_is_told_and_nothing_stays(tmp_path, monkeypatch):
    def full(_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(rundir.os, "fsync", full)
    with pytest.raises(WrongInput, match="No space left on device; make room on its disk or choose another"):
        RunDir.at(tmp_path / "runs" / "new").create()
    assert list(tmp_path.iterdir()) == []


def test_a_file_in_the_way_is_told_and_nothing_stays(tmp_path):
    (tmp_path / "file").touch()
    for path in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(WrongInput, match=r"cannot be written: .*; choose another with --run-dir"):
            RunDir.at(path).create()
    assert list(tmp_path.iterdir()) == [tmp_path / "file"]


def test_a_text_that_cannot_be_replaced_is_still_there(tmp_path, monkeypatch):
    def full(*_: object):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    write_atomically(tmp_path / "text", "old")
    monkeypatch.setattr(rundir.os, "replace", full)
    with pytest.raises(OSError, match="No space left"):
        write_atomically(tmp_path / "text", "new")
    assert list(tmp_path.iterdir()) == [tmp_path / "text"]
    assert (tmp_path / "text").read_text() == "old"


def test_a_lock_on_a_removed_file_is_none(tmp_path, monkeypatch):
    run = RunDir.at(tmp_path)
    run.create()
    os.close(run.lock())
    real = rundir.fcntl.flock

    def overtaken(handle, how):
        real(handle, how)
        Path(run.lock_file).unlink()

    with monkeypatch.context() as patch:
        patch.setattr(rundir.fcntl, "flock", overtaken)
        with pytest.raises(WrongInput, match="in use by a living job"):
            run.lock()
    os.close(run.lock())
