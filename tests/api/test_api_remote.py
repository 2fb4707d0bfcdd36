"""From what a user asks of a cluster to a plan, with the real helm and chart and no cluster."""

import pytest
from helm_program import needs_helm_on_path

from tfleet.api.places import KubernetesPlace, LocalPlace, place_at
from tfleet.api.remote import Target, new_name, plan_remote, ship_task
from tfleet.api.request import TIME_PLACEHOLDER, Request
from tfleet.spec.errors import WrongInput
from tfleet.spec.job import JobSpec

WHERE = {"context": "c", "namespace": "n"}


def planned(request, when=TIME_PLACEHOLDER, **target):
    return plan_remote(request, Target(**WHERE, **target), when)[0]


@needs_helm_on_path
def test_the_release_is_called_by_the_task_and_the_time():
    assert planned(Request(task="mnist"), "20260131-235959").handle == "k8s://c/n/mnist-20260131-235959"
    assert planned(Request(task="mnist")).handle == "k8s://c/n/mnist-time"
    assert planned(Request(task="mnist"), name="digits").handle == "k8s://c/n/digits"


def test_long_and_odd_names_of_tasks():
    assert new_name("path/to/My_Very_Long_Name_Of_A_Task_Module.py:task", "20260131-235959") == (
        "my-very-long-name-of-a-task-m-20260131-235959"
    )
    assert new_name("3d.model:task", "x") == "model-x"


@needs_helm_on_path
def test_flags_override_values_and_values_override_defaults(tmp_path):
    (tmp_path / "v.yaml").write_text("worker: {number: 4, gpuCount: 1}\njob: {steps: 10, seed: 3}\n")
    plan = planned(Request(task="mnist", given={"steps": "70"}), values=(str(tmp_path / "v.yaml"),))
    assert (plan.spec.workers, plan.spec.steps, plan.spec.seed) == (4, 70, 3)
    assert plan.values["worker"] == {"number": 4, "gpuCount": 1}
    assert plan.values["job"] == {"task": "mnist", "steps": 70, "seed": 3}


@needs_helm_on_path
def test_values_of_the_charts_of_2018_may_say_what_flags_do_not():
    plan = planned(Request(task="mnist"), settings=("hyperparams.batchsize=30,hyperparams.trainsteps=400",))
    assert "batch_size: 30" in plan.manifest
    assert "steps: 400" in plan.manifest


@needs_helm_on_path
def test_a_task_that_is_a_file_here_is_shipped(tmp_path, monkeypatch):
    (tmp_path / "flowers.py").write_text("task = 1\n")
    monkeypatch.chdir(tmp_path)
    for request, target in (
        (Request(task="flowers.py:task"), {}),
        (Request(task="flowers.py:task"), {"task_file": str(tmp_path / "flowers.py")}),
    ):
        plan = planned(request, **target)
        assert plan.values["taskFile"] == {"name": "flowers.py", "content": "task = 1\n"}
        assert plan.spec.task == "flowers.py:task"


def ship(task, file=""):
    return ship_task(JobSpec(task=task), file)[1]


def test_a_task_of_the_image_or_the_volume_is_not_shipped():
    assert ship("mnist") is None
    assert ship("my.package:task") is None
    assert ship("/mnt/tfleet/code/flowers.py:task") is None


@pytest.mark.parametrize(
    ("task", "file", "sentence"),
    [
        ("nowhere.py:task", "", "nowhere.py .*does not exist"),
        ("mnst", "", "did you mean 'mnist'"),
        ("a.py:task", "b.py", r"b.py is shipped as b.py, but the task is 'a.py:task'; .* such as 'b.py:task'"),
        ("mnist", "b.py", "but the task is 'mnist'"),
        ("a.py:task", "x/a.py", "cannot be read: No such file"),
    ],
)
def test_a_task_that_cannot_be_shipped(task, file, sentence, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(WrongInput, match=sentence):
        ship(task, file)


def test_a_file_whose_name_a_config_map_refuses(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my task.py").write_text("")
    with pytest.raises(WrongInput, match="cannot be shipped under this name; rename it"):
        ship("my task.py:task")


@pytest.mark.parametrize(
    ("request_", "target", "sentence"),
    [
        (Request(task="mnist", resume=True), {}, "give the name of its release with --name"),
        (
            Request(task="mnist", run_dir="runs/x"),
            {},
            r"--run-dir runs/x is not absolute: .* such as /mnt/tfleet/my-run",
        ),
        (Request(task="mnist", given={"data_dir": "data"}), {}, "--data-dir data is not absolute"),
        (Request(), {}, "no task was given"),
        (Request(task="mnist"), {"name": "No"}, "will not do for a release"),
        (
            Request(task="a.py:t"),
            {"settings": ("taskFile.name=a.py",), "task_file": "a.py"},
            "--task-file does nothing",
        ),
    ],
)
def test_what_is_refused_before_anything_is_rendered(request_, target, sentence):
    with pytest.raises(WrongInput, match=sentence):
        planned(request_, **target)


def test_places_say_where_things_are(tmp_path):
    place = place_at("k8s://c/n/digits", "/mnt/tfleet/digits")
    assert isinstance(place, KubernetesPlace)
    assert place.run == "/mnt/tfleet/digits on the volume"
    assert place.inside("/mnt/tfleet/digits/export/1") == place.inside("export/1")
    assert place.identity() == {"handle": "k8s://c/n/digits", "run_dir": "/mnt/tfleet/digits"}
    assert place.where_to_look("worker 1 died") == "read 'tfleet logs k8s://c/n/digits worker 1'"
    assert [line.split()[1] for line, _ in place.next_commands({"evaluation": {}})] == ["copy", "logs", "uninstall"]
    assert "--context c --namespace n --name digits" in place.how_to_resume()
    removed = place_at("k8s://c/n/digits", "/mnt/tfleet/digits", removed=True)
    assert removed.next_commands({}) == []
    assert removed.where_to_look("worker 1 died") == ""
    assert isinstance(place_at(str(tmp_path)), LocalPlace)
