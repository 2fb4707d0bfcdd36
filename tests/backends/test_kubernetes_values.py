"""The chart's values from files, --set and the job."""

import pytest

from tfleet.backends.kubernetes.values import chart_values, given_values, hidden, job_values
from tfleet.spec.errors import WrongInput
from tfleet.spec.job import JobSpec


@pytest.mark.parametrize(
    ("settings", "values"),
    [
        (["worker.number=4"], {"worker": {"number": 4}}),
        (["a.b=1,a.c=two"], {"a": {"b": 1, "c": "two"}}),
        (["a=true", "b=null", "c=007", "d=1.5"], {"a": True, "b": None, "c": "007", "d": "1.5"}),
        (["a={x,2}", "b={}"], {"a": ["x", 2], "b": []}),
        (["a[1].b=x"], {"a": [None, {"b": "x"}]}),
        (["a[0].b=x", "a[0].c=y"], {"a": [{"b": "x", "c": "y"}]}),
        ([r"a\.b=x\,y"], {"a.b": "x,y"}),
        (["a=x=y"], {"a": "x=y"}),
    ],
)
def test_settings_mean_what_they_mean_to_helm(settings, values):
    assert given_values([], settings) == values


@pytest.mark.parametrize("setting", ["worker", "=3", "a[0]=x,a.b=y"])
def test_a_malformed_setting_is_refused(setting):
    with pytest.raises(WrongInput, match="--set"):
        given_values([], [setting])


def test_later_files_and_settings_override(tmp_path):
    (tmp_path / "a.yaml").write_text("worker: {number: 2, gpuCount: 1}\n")
    (tmp_path / "b.yaml").write_text("worker: {number: 3}\n")
    (tmp_path / "empty.yaml").write_text("")
    files = [str(tmp_path / name) for name in ("a.yaml", "b.yaml", "empty.yaml")]
    assert given_values(files, ["worker.port=1"]) == {"worker": {"number": 3, "gpuCount": 1, "port": 1}}


@pytest.mark.parametrize(
    ("text", "sentence"), [(None, "cannot be read"), ("a: [", "is not YAML"), ("- a", "a mapping")]
)
def test_a_values_file_that_cannot_be_used(tmp_path, text, sentence):
    if text is not None:
        (tmp_path / "v.yaml").write_text(text)
    with pytest.raises(WrongInput, match=sentence):
        given_values([str(tmp_path / "v.yaml")], [])


def test_what_values_say_of_the_job():
    values = {"worker": {"number": 4}, "ps": {"number": 1}, "job": {"task": "mnist", "steps": 5}, "deadline": 60}
    assert job_values(values) == {"task": "mnist", "steps": 5, "workers": 4, "ps": 1, "deadline": 60}
    with pytest.raises(WrongInput, match=r"worker.number=4 and job.workers=3; give only one"):
        job_values({"worker": {"number": 4}, "job": {"workers": 3}})


def test_only_what_differs_from_a_default_is_told_to_the_chart():
    spec = JobSpec.parse({"task": "mnist", "workers": 3, "seed": 7})
    assert chart_values(spec, {"storage": {"size": "1Gi"}}, "", False, None) == {
        "storage": {"size": "1Gi"},
        "worker": {"number": 3},
        "ps": {"number": 2},
        "job": {"task": "mnist", "seed": 7},
    }


def test_all_that_a_job_can_add():
    spec = JobSpec.parse({"task": "a.py:task", "deadline": 90})
    values = chart_values(spec, {"ps": {"port": 1}}, "/mnt/tfleet/x", True, ("a.py", "1"))
    assert values["ps"] == {"port": 1, "number": 2}
    assert (values["runDir"], values["resume"], values["deadline"]) == ("/mnt/tfleet/x", True, 90)
    assert values["taskFile"] == {"name": "a.py", "content": "1"}
    assert values["job"] == {"task": "a.py:task"}


def test_hidden():
    assert hidden({"storage": {"keybase64": "x", "accountbase64": ""}, "l": [{"keybase64": "y"}]}) == {
        "storage": {"keybase64": "(hidden)", "accountbase64": ""},
        "l": [{"keybase64": "(hidden)"}],
    }
