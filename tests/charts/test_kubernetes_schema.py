"""Every rendered object fits the schemas of Kubernetes, without a field that Kubernetes does not know."""

from __future__ import annotations

import copy
import json
from functools import cache

import kubernetes_validate
import pytest
from chart_cases import CASES, objects
from chart_renders import Object, one
from helm_program import needs_helm

pytestmark = needs_helm

# The oldest version that the chart takes, and the one that the cluster tests run.
VERSIONS = ("1.31", "1.34")


def ours(case: str) -> list[Object]:
    """The objects of a case but those of operators: the pods of TFJobs are checked below, the rest where they are."""
    operators = ("TFJob", "Certificate", "ServiceMonitor", "PrometheusRule")
    return [found for found in objects(case) if found["kind"] not in operators]


@cache
def fits(found: str, version: str) -> None:
    """Fails unless the object fits; most are the same in many cases."""
    assert kubernetes_validate.validate(json.loads(found), version, strict=True) == version


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("case", CASES)
def test_every_object_fits(case, version):
    for found in ours(case):
        fits(json.dumps(found), version)


@pytest.mark.parametrize("version", VERSIONS)
def test_the_pods_of_a_tfjob_fit(version):
    (tfjob,) = [found for found in objects("tfjob") if found["kind"] == "TFJob"]
    assert tfjob["apiVersion"] == "kubeflow.org/v1"
    for replicas in tfjob["spec"]["tfReplicaSpecs"].values():
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "pod"}, "spec": replicas["template"]["spec"]}
        assert kubernetes_validate.validate(pod, version, strict=True) == version


@pytest.mark.parametrize("version", VERSIONS)
def test_an_unknown_field_and_a_wrong_type_are_found(version):
    job = copy.deepcopy(one(objects("default"), "Job", "digits-worker"))
    job["spec"]["template"]["spec"]["nodeSelectr"] = {}
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(job, version, strict=True)
    del job["spec"]["template"]["spec"]["nodeSelectr"]
    job["spec"]["completions"] = "2"
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(job, version, strict=True)
