"""job.yaml in the ConfigMap: a JobSpec, made from `job`, the original's hyperparams, and the numbers of replicas."""

from __future__ import annotations

import pytest
import yaml
from chart_cases import CASES, objects
from chart_renders import Object, one, pods
from chart_renders import objects as render
from helm_program import needs_helm

from tfleet.spec.job import JobSpec

pytestmark = needs_helm


def job_file(found: list[Object], release: str = "digits") -> JobSpec:
    return JobSpec.parse(yaml.safe_load(one(found, "ConfigMap", release)["data"]["job.yaml"]))


@pytest.mark.parametrize("case", CASES)
def test_it_is_a_job_spec_with_the_numbers_of_replicas(case):
    found = objects(case)
    spec = job_file(found)
    hosts = one(found, "ConfigMap", "digits")["data"]
    assert spec.workers == len(hosts["worker.hostList"].split(","))
    assert spec.ps == len(hosts["ps.hostList"].split(","))
    assert spec.task
    assert spec.status_port == 8080


def test_the_default_is_mnist_with_the_defaults_of_a_job():
    assert job_file(objects("default")) == JobSpec(task="mnist", workers=2, ps=2, status_port=8080)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"batchsize": 50}, {"batch_size": 50}),
        ({"learningrate": 0.01}, {"learning_rate": 0.01}),
        ({"learningrate": 1e-7}, {"learning_rate": 1e-7}),
        ({"trainsteps": 300}, {"steps": 300}),
        ({"trainsteps": 2_000_000}, {"steps": 2_000_000}),
        ({"trainsteps": 0}, {"steps": 0}),
        ({"datadir": "/data/mnist"}, {"data_dir": "/data/mnist"}),
        ({"hiddenunits": 20}, {"params": {"hidden_units": "20"}}),
        ({"hiddenunits": 1_000_000}, {"params": {"hidden_units": "1000000"}}),
    ],
)
def test_the_hyperparams_of_the_original(given, expected):
    spec = job_file(render({"hyperparams": given}))
    whole = {"task": "mnist", "workers": 2, "ps": 2, "status_port": 8080, **expected}
    assert spec == JobSpec.parse(whole)


def test_the_logdir_of_the_original_is_the_run_directory():
    for values in ({"hyperparams": {"logdir": "/mnt/tfleet/mine"}}, {"runDir": "/mnt/tfleet/mine"}):
        (main,) = one(render(values), "Job", "digits-worker")["spec"]["template"]["spec"]["containers"]
        assert main["args"][:2] == ["--run-dir", "/mnt/tfleet/mine"]


@pytest.mark.parametrize(
    "job",
    [
        {"batch_size": 1_000_000},
        {"seed": 2**31 - 1},
        {"learning_rate": 1e-9},
        {"strategy": "sync", "replicas_to_aggregate": 3},
        {"epochs": 2, "xla": "never", "threads": 4, "join_timeout": 30.5, "restarts": 0},
        {"evaluation": {"every_steps": 100, "keep_best": "accuracy", "stop_min_delta": 0.001}},
        {"checkpoint": {"every_seconds": 0, "every_steps": 10_000_000, "keep": 1}},
        {"params": {"hidden_units": "100", "note": "yes", "deep": True, "rate": 0.5, "many": 12345678}},
        {"task": "package.module:object", "data_dir": "/mnt/tfleet/data"},
        {"task": "mnist: 'quoted' \"twice\" #", "data_dir": "on"},
    ],
    ids=str,
)
def test_every_field_arrives_as_it_was_given(job):
    expected = {"task": "mnist", "workers": 2, "ps": 2, "status_port": 8080, **job}
    assert job_file(render({"job": job})) == JobSpec.parse(expected)


def test_every_field_of_a_job_is_taken():
    whole = JobSpec(task="mnist").model_dump(mode="json") | {"status_port": 8080}
    assert job_file(render({"job": whole})) == JobSpec(task="mnist", status_port=8080)


def test_a_status_port_of_ones_own():
    found = render({"job": {"status_port": 9090}})
    assert job_file(found).status_port == 9090
    ports = {port["name"]: port for port in one(found, "Service", "digits")["spec"]["ports"]}
    assert (ports["status"]["port"], ports["status"].get("targetPort", 9090)) == (9090, 9090)


def test_a_task_file_is_mounted_where_the_task_is_looked_for():
    values = {"job": {"task": "digits.py:task"}, "taskFile": {"name": "digits.py", "content": "task = 'ä'\n\n# end\n"}}
    found = render(values)
    assert job_file(found).task == "/etc/tfleet/task/digits.py:task"
    held = [each["data"]["digits.py"] for each in found if "digits.py" in each.get("data", {})]
    assert held == ["task = 'ä'\n\n# end\n"]
    spec = one(found, "Job", "digits-worker")["spec"]["template"]["spec"]
    assert "/etc/tfleet/task" in [mount["mountPath"] for mount in spec["containers"][0]["volumeMounts"]]


def test_the_tfjob_has_the_same_pods_under_the_names_of_its_operator():
    (tfjob,) = [found for found in objects("tfjob") if found["kind"] == "TFJob"]
    replicas = tfjob["spec"]["tfReplicaSpecs"]
    assert {role: replicas[role]["replicas"] for role in replicas} == {"PS": 2, "Worker": 2}
    assert not [found for found in objects("tfjob") if found["kind"] == "Job"]
    for pod in pods(objects("tfjob")).values():
        assert next(container["name"] for container in pod["spec"]["containers"]) in ("tensorflow", "main")
