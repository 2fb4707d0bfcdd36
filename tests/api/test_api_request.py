"""What a user gave becomes one job and one folder."""

from pathlib import Path

import pytest

from tfleet.api.request import TIME_PLACEHOLDER, Request, slug
from tfleet.spec.errors import WrongInput
from tfleet.spec.job import JobSpec


@pytest.fixture(autouse=True)
def _in_a_new_folder(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)


def job_file(text):
    Path("job.yaml").write_text(text)
    return "job.yaml"


def earlier_run(**values):
    Path("old").mkdir()
    Path("old/job.yaml").write_text(JobSpec.parse({"task": "mnist", **values}).dump())
    return "old"


def test_given_values_override_the_job_file():
    file = job_file("task: mnist\nworkers: 3\nps: 5\nparams: {hidden_units: 7, model: cnn}\ncheckpoint: {keep: 9}\n")
    given = {"workers": "4", "checkpoint_every_steps": "50"}
    spec = Request(given=given, params={"hidden_units": "8"}, file=file).spec()
    assert (spec.task, spec.workers, spec.ps) == ("mnist", 4, 5)
    assert spec.params == {"hidden_units": "8", "model": "cnn"}
    assert (spec.checkpoint.keep, spec.checkpoint.every_steps) == (9, 50)


def test_epochs_override_the_steps_of_a_file_and_the_other_way_round():
    assert Request(given={"epochs": "3"}, file=job_file("task: mnist\nsteps: 70\n")).spec().epochs == 3
    spec = Request(given={"steps": "70"}, file=job_file("task: mnist\nepochs: 3\n")).spec()
    assert (spec.steps, spec.epochs) == (70, 0)


def test_epochs_0_leaves_the_steps_of_a_file():
    assert Request(given={"epochs": "0"}, file=job_file("task: mnist\nsteps: 70\n")).spec().steps == 70


def test_steps_and_epochs_given_together_are_refused():
    with pytest.raises(WrongInput, match="both given: give only one"):
        Request(task="mnist", given={"epochs": "3", "steps": "70"}).spec()


def test_defaults_of_a_built_in_task_are_resolved():
    spec = Request(task="mnist").spec()
    assert (spec.steps, spec.batch_size) == (2000, 20)
    assert Request(task="mnist", given={"steps": "0"}).spec().steps == 0
    assert Request(task="mnist", given={"epochs": "2"}).spec().steps == -1


def test_no_task_is_refused():
    with pytest.raises(WrongInput, match="no task was given; name one"):
        Request().spec()


def test_paths_are_made_absolute(tmp_path):
    given = {"data_dir": "data", "tls_cert": "c", "tls_key": "~/k", "tls_ca": "/a"}
    spec = Request(task="flowers.py:task", given=given).spec()
    assert (spec.tls_cert, spec.tls_key, spec.tls_ca) == (f"{tmp_path}/c", str(Path("~/k").expanduser()), "/a")
    assert spec.task == f"{tmp_path}/flowers.py:task"
    assert spec.data_dir == f"{tmp_path}/data"


def test_resume_takes_the_job_of_the_run():
    run = earlier_run(steps=500, workers=3, params={"hidden_units": 5})
    spec = Request(run_dir=run, resume=True, given={"ps": "1"}).spec()
    assert (spec.task, spec.steps, spec.workers, spec.ps) == ("mnist", 500, 3, 1)
    assert spec.params == {"hidden_units": "5"}
    assert Request(run_dir=run, resume=True, given={"epochs": "2"}).spec().steps == -1


def test_resume_with_other_workers_keeps_the_batches_of_a_sync_step():
    run = earlier_run(strategy="sync", workers=3)
    assert Request(run_dir=run, resume=True, given={"workers": "5"}).spec().aggregate == 3
    given = {"workers": "5", "replicas_to_aggregate": "4"}
    assert Request(run_dir=run, resume=True, given=given).spec().aggregate == 4


def test_a_job_of_rounds_takes_no_steps_of_the_task_and_can_be_resumed_for_more():
    spec = Request(task="mnist", given={"strategy": "average", "rounds": "3"}).spec()
    assert (spec.steps, spec.batch_size) == (-1, 20)
    run = earlier_run(**spec.model_dump(include={"strategy", "rounds", "steps", "batch_size"}))
    assert Request(run_dir=run, resume=True, given={"rounds": "5", "workers": "3"}).spec().rounds == 5
    with pytest.raises(WrongInput, match="steps=50 does nothing with strategy average"):
        Request(run_dir=run, resume=True, given={"steps": "50"}).spec()


def test_resume_needs_a_run():
    with pytest.raises(WrongInput, match="by --run-dir"):
        Request(resume=True).spec()
    with pytest.raises(WrongInput, match="not a run directory"):
        Request(resume=True, run_dir="nowhere").spec()


def test_new_folder_is_named_after_task_and_time(tmp_path):
    request = Request(task="mnist")
    spec = request.spec()
    assert request.folder(spec, "20260131-235959") == tmp_path / "runs/mnist-20260131-235959"
    assert request.folder(spec, TIME_PLACEHOLDER) == request.folder(spec, TIME_PLACEHOLDER)
    (tmp_path / "runs/mnist-20260131-235959").mkdir(parents=True)
    assert request.folder(spec, "20260131-235959") == tmp_path / "runs/mnist-20260131-235959-2"
    assert Request(task="mnist", run_dir="here").folder(spec, "x") == tmp_path / "here"


@pytest.mark.parametrize(
    ("task", "name"),
    [
        ("mnist", "mnist"),
        ("examples/my flowers.py:task", "my-flowers"),
        ("pkg.module:object", "module"),
        ("..:x", "job"),
    ],
)
def test_slug(task, name):
    assert slug(task) == name
