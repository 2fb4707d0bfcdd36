"""A job that is refused leaves the run directory as it was; one that has committed keeps everything."""

from __future__ import annotations

from pathlib import Path

import pytest

from tfleet.backends.trace import Trace
from tfleet.checkpoint import names
from tfleet.spec.rundir import RunDir


def content(folder: Path) -> dict[str, bytes | None]:
    return {str(p.relative_to(folder)): p.read_bytes() if p.is_file() else None for p in folder.rglob("*")}


def begin(run: RunDir) -> Trace:
    """What a launcher and its replicas do until the task is refused."""
    trace = Trace(run, run.create(), [run.log("ps", 0)])
    run.make_token()
    run.job_file.write_text("new")
    run.status_file.write_text("new")
    run.log("ps", 0).write_text("new")
    run.metrics.touch()
    (run.checkpoints / names.generation(9)).touch()
    return trace


def test_a_new_folder_is_removed(tmp_path):
    begin(RunDir.at(tmp_path / "runs" / "new")).remove()
    assert content(tmp_path) == {}


def test_what_was_there_stays(tmp_path):
    run = RunDir.at(tmp_path / "run")
    run.logs.mkdir(parents=True)
    run.log("ps", 0).write_text("of a script")
    (run.path / "mine").write_text("mine")
    trace = begin(run)
    (run.summaries / "mine").write_text("mine")
    trace.remove()
    assert set(content(run.path)) == {"logs", "logs/ps-0.log", "mine", "summaries", "summaries/mine"}


def test_a_resumed_run_has_its_job_and_status_again(tmp_path):
    run = RunDir.at(tmp_path)
    begin(run)
    before = content(tmp_path)
    trace = Trace(run, run.create(), [run.log("ps", 0)])
    run.job_file.write_text("changed")
    run.status_file.unlink()
    trace.remove()
    assert content(tmp_path) == before


@pytest.mark.parametrize("resumed", [False, True])
def test_a_job_that_has_committed_keeps_everything(tmp_path, resumed):
    run = RunDir.at(tmp_path)
    if resumed:
        begin(run)
        (run.checkpoints / names.manifest(names.Key(1, 0))).touch()
    trace = begin(run)
    (run.checkpoints / names.manifest(names.Key(1, 1))).touch()
    before = content(tmp_path)
    trace.remove()
    assert content(tmp_path) == before
