"""Names and labels: what Services, Jobs and pods take, and how objects of a job are told from others."""

from __future__ import annotations

import re

import pytest
from chart_cases import CASES, objects
from chart_renders import names, one, pods
from chart_renders import objects as render
from helm_program import needs_helm

pytestmark = needs_helm

SERVICE = re.compile(r"[a-z]([-a-z0-9]{0,61}[a-z0-9])?")
COMPONENTS = {"ps", "worker", "evaluator", "tensorboard", "serving", "tool", "test", "finisher"}


@pytest.mark.parametrize("case", CASES)
def test_every_name_is_one_for_a_service_and_begins_with_the_jobs(case):
    for each in objects(case):
        name = each["metadata"]["name"]
        assert SERVICE.fullmatch(name), name
        assert name == "digits" or name.startswith(("digits-", "work-digits"))


@pytest.mark.parametrize("case", CASES)
def test_labels(case):
    found = objects(case)
    for each in found:
        labels = each["metadata"]["labels"]
        assert labels["app.kubernetes.io/name"] == "tfleet"
        assert labels["app.kubernetes.io/instance"] == "digits"
        assert labels["app.kubernetes.io/managed-by"] == "Helm"
    for name, pod in pods([each for each in found if each["kind"] != "Pod"]).items():
        labels = pod["metadata"]["labels"]
        assert labels["app.kubernetes.io/name"] == "tfleet"
        assert labels["app.kubernetes.io/instance"] == "digits"
        assert labels["app.kubernetes.io/component"] in COMPONENTS, name
        assert "helm.sh/chart" not in labels, "a new version of the chart would change the template"
        assert not pod["metadata"].get("annotations"), "a checksum would change the template"


@pytest.mark.parametrize("case", CASES)
def test_no_two_services_choose_the_same_pods_but_those_of_ps_0(case):
    found = objects(case)
    labelled = {name: pod["metadata"]["labels"] for name, pod in pods(found).items()}
    for service in (each for each in found if each["kind"] == "Service"):
        wanted = dict(service["spec"]["selector"])
        wanted.pop("batch.kubernetes.io/job-completion-index", None)
        chosen = [name for name, labels in labelled.items() if wanted.items() <= labels.items()]
        assert len(chosen) == 1, f"{service['metadata']['name']} chooses {chosen}"


def test_the_objects_of_a_job():
    assert names(render()) == [
        "ConfigMap/digits",
        "Job/digits-ps",
        "Job/digits-worker",
        "NetworkPolicy/digits",
        "PersistentVolumeClaim/digits",
        "Pod/digits-test",
        "Secret/digits-token",
        "Service/digits",
        "Service/digits-ps",
        "Service/digits-worker",
        "ServiceAccount/digits",
    ]
    assert set(names(objects("everything"))) - set(names(render())) == {
        "ConfigMap/digits-task",
        "Deployment/digits-serving",
        "Deployment/digits-tensorboard",
        "Job/digits-evaluator",
        "Service/digits-serving",
        "Service/digits-tensorboard",
    }
    assert set(names(objects("workspace"))) - set(names(render())) == {
        "LimitRange/digits-limits",
        "ResourceQuota/digits-quota",
        "Role/digits-submitter",
        "RoleBinding/digits-submitter",
    }
    assert set(names(objects("finisher"))) - set(names(render())) == {
        "Job/digits-finisher",
        "Role/digits-finisher",
        "RoleBinding/digits-finisher",
        "ServiceAccount/digits-finisher",
    }


@pytest.mark.parametrize(
    ("values", "name"),
    [
        ({"nameOverride": "mnist"}, "digits-mnist"),
        ({"fullnameOverride": "mnist"}, "mnist"),
        ({"nameOverride": "a", "fullnameOverride": "mnist"}, "mnist"),
    ],
)
def test_another_name_is_everywhere(values, name):
    found = render(values)
    assert {each["metadata"]["name"] for each in found} == {
        each["metadata"]["name"].replace("digits", name) for each in render()
    }
    data = one(found, "ConfigMap", name)["data"]
    assert data["worker.hostList"].startswith(f"{name}-worker-0.{name}-worker:2222,")


@pytest.mark.parametrize("release", ["n", "true", "null", "on", "e1", "a" * 40])
def test_names_that_yaml_reads_as_something_else(release):
    found = render(release=release)
    assert f"{release}-worker" in [each["metadata"]["name"] for each in found]
    for each in found:
        assert isinstance(each["metadata"]["name"], str)
        assert each["metadata"]["labels"]["app.kubernetes.io/instance"] == release


def test_names_do_not_depend_on_each_other():
    """A release `a` with another `a-ps` in the same namespace: no Service of one chooses pods of the other."""
    for each in render(release="a"):
        if each["kind"] == "Service":
            assert each["spec"]["selector"]["app.kubernetes.io/instance"] == "a"
