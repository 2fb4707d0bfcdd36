"""A run directory that pods share: whose it is, and what ps 0 makes of it."""

import json
import os
import tempfile
from pathlib import Path

import pytest

from tfleet.backends.pod_run import LAST_WORD, PodRun, last_word
from tfleet.spec.errors import WrongInput
from tfleet.spec.job import JobSpec
from tfleet.spec.rundir import RunDir

SPEC = JobSpec(task="mnist")
MINE, OTHER = b"a" * 64, b"b" * 64


@pytest.fixture
def run(tmp_path):
    return RunDir.at(tmp_path / "run")


def begun(run, token=MINE, spec=SPEC, resume=False):
    shared = PodRun(run, token)
    shared.check()
    return shared.adopt(spec, resume)


def test_a_new_job_takes_an_empty_folder(run):
    assert begun(run) is False
    assert PodRun(run, MINE).ours
    assert JobSpec.load(run.job_file) == SPEC


def test_the_token_cannot_be_read_from_the_folder(run):
    begun(run)
    assert all(MINE not in path.read_bytes() for path in run.path.rglob("*") if path.is_file())


def test_a_ps_0_that_was_started_again_goes_on_with_the_job_as_it_was_submitted(run):
    begun(run)
    run.status_file.write_text('{"phase": "training"}')
    assert begun(run, spec=SPEC.model_copy(update={"workers": 4})) is True
    assert JobSpec.load(run.job_file).workers == 2
    assert run.status()["phase"] == "training"


def test_an_earlier_job_is_not_overwritten(run):
    begun(run, OTHER)
    before = run.job_file.read_bytes()
    with pytest.raises(WrongInput, match=r"holds an earlier job; go on with it with resume=true .*or choose another"):
        begun(run)
    assert run.job_file.read_bytes() == before
    assert PodRun(run, OTHER).ours


def test_an_earlier_job_is_gone_on_with_when_asked_for_and_its_end_is_forgotten(run):
    begun(run, OTHER)
    run.status_file.write_text('{"phase": "failed", "exit_code": 1}')
    assert PodRun(run, MINE).over() is None
    assert begun(run, resume=True) is True
    assert run.status() == {}
    assert PodRun(run, MINE).ours


def test_there_must_be_something_to_resume(run):
    with pytest.raises(WrongInput, match="no job to resume in"):
        begun(run, resume=True)


@pytest.mark.parametrize(
    ("before", "now", "batches"),
    [
        ({"workers": 3, "strategy": "sync"}, None, 3),
        ({"workers": 3, "strategy": "sync", "replicas_to_aggregate": 2}, None, 2),
        ({"workers": 3, "strategy": "sync"}, {"workers": 5, "strategy": "sync"}, 3),
        ({"workers": 3}, {"workers": 5, "strategy": "sync"}, 5),
        ({"workers": 3}, None, 1),
    ],
)
def test_the_batches_of_a_step_stay_what_they_were(run, before, now, batches):
    begun(run, spec=JobSpec(task="mnist", **before))
    if now:
        begun(run, OTHER, JobSpec(task="mnist", **now), resume=True)
    assert JobSpec.load(run.job_file).aggregate == batches


@pytest.mark.parametrize(
    ("status", "code"),
    [
        ({}, None),
        ({"phase": "training"}, None),
        ({"phase": "done", "exit_code": 0}, 0),
        ({"phase": "failed", "exit_code": 2}, 2),
        ({"phase": "failed"}, 1),
    ],
)
def test_whether_the_job_is_over(run, status, code):
    begun(run)
    if status:
        run.status_file.write_text(json.dumps(status))
    assert PodRun(run, MINE).over() == code
    assert PodRun(run, OTHER).over() is None


@pytest.fixture
def foreign(tmp_path):
    """A folder that this process may read only; root, who may write everywhere, is somebody else for a while."""
    root = os.geteuid() == 0
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o555)
        if root:
            os.seteuid(65534)
        yield Path(folder)
        if root:
            os.seteuid(0)
        Path(folder).chmod(0o700)


def test_a_volume_of_somebody_else(foreign):
    with pytest.raises(WrongInput, match=r"Permission denied by user \d+, group \d+; mount a volume .* user.uid"):
        PodRun(RunDir.at(foreign / "run"), MINE).check()


def test_a_volume_that_is_a_file(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(WrongInput, match=r"cannot be written: .* by user \d+, group \d+; mount a volume that they may"):
        PodRun(RunDir.at(tmp_path / "file/run"), MINE).check()


def test_the_last_word_fits_what_kubernetes_keeps(tmp_path):
    log = tmp_path / "termination-log"
    last_word(log, {"phase": "done"})
    assert not log.exists()
    log.touch()
    last_word(log, {"phase": "failed", "exit_code": 1, "reason": "x" * 9000, "members": ["left out"]})
    assert json.loads(log.read_text()) == {"phase": "failed", "exit_code": 1, "reason": "x" * 1000}
    assert log.stat().st_size <= LAST_WORD
