"""One storage for all: which objects each kind makes, and that every pod mounts the same."""

from __future__ import annotations

import pytest
from chart_cases import CASES, VALUES, objects
from chart_renders import Object, names, one, pods
from chart_renders import objects as render
from helm_program import needs_helm

pytestmark = needs_helm


def storage_of(pod: Object, path: str) -> Object:
    (main, *_) = pod["spec"]["containers"]
    (name,) = [mount["name"] for mount in main["volumeMounts"] if mount["mountPath"] == path]
    (volume,) = [volume for volume in pod["spec"]["volumes"] if volume["name"] == name]
    return {key: value for key, value in volume.items() if key != "name"}


def test_training_evaluation_tensorboard_and_serving_share_one_storage():
    found = pods(objects("everything"))
    for name in ("Job/digits-ps", "Job/digits-worker", "Job/digits-evaluator", "Deployment/digits-tensorboard"):
        assert storage_of(found[name], "/mnt/tfleet")["persistentVolumeClaim"]["claimName"] == "digits", name
    claims = [
        volume["persistentVolumeClaim"]["claimName"]
        for volume in found["Deployment/digits-serving"]["spec"]["volumes"]
        if "persistentVolumeClaim" in volume
    ]
    assert "digits" in claims


@pytest.mark.parametrize("case", ["default", "everything", "kind", "gke", "openshift"])
def test_a_new_claim_is_kept(case):
    claim = one(objects(case), "PersistentVolumeClaim", "digits")
    assert claim["metadata"]["annotations"]["helm.sh/resource-policy"] == "keep"


@pytest.mark.parametrize(
    ("case", "source", "path"),
    [("nfs", "nfs", "/mnt/tfleet"), ("host-path", "hostPath", "/mnt/tfleet"), ("azure", None, "/azure/tfleet")],
)
def test_a_volume_of_the_cluster_is_bound_to_the_claim_and_to_no_other(case, source, path):
    found = objects(case)
    volume, claim = one(found, "PersistentVolume", "work-digits"), one(found, "PersistentVolumeClaim", "digits")
    assert volume["spec"]["persistentVolumeReclaimPolicy"] == "Retain"
    assert source is None or source in volume["spec"]
    assert claim["spec"]["volumeName"] == "work-digits"
    assert claim["spec"]["storageClassName"] == volume["spec"].get("storageClassName", "") == ""
    assert volume["spec"]["claimRef"]["name"] == "digits"
    assert volume["spec"]["claimRef"]["namespace"] == "work"
    assert claim["spec"]["accessModes"] == volume["spec"]["accessModes"]
    assert storage_of(pods(found)["Job/digits-worker"], path) == {"persistentVolumeClaim": {"claimName": "digits"}}


@pytest.mark.parametrize(("case", "path"), [("nfs-csi", "/mnt/tfleet"), ("azure-csi", "/azure/runs")])
def test_csi_needs_no_right_over_the_cluster(case, path):
    found = objects(case)
    assert not [name for name in names(found) if name.startswith("PersistentVolume")]
    assert "csi" in storage_of(pods(found)["Job/digits-worker"], path)


def test_an_existing_claim():
    found = objects("finisher")
    assert not [name for name in names(found) if name.startswith("PersistentVolume")]
    volumes = pods(found)["Job/digits-worker"]["spec"]["volumes"]
    assert {"claimName": "results"} in [volume.get("persistentVolumeClaim") for volume in volumes]


def test_a_new_claim():
    claim = one(objects("everything"), "PersistentVolumeClaim", "digits")["spec"]
    assert claim["resources"]["requests"]["storage"] == "5Gi"
    assert claim["storageClassName"] == "shared"
    assert claim["accessModes"] == ["ReadWriteMany"]
    assert "storageClassName" not in one(objects("default"), "PersistentVolumeClaim", "digits")["spec"]


def test_the_azure_values_of_the_original():
    found = objects("azure-original")
    (secret,) = [
        each for each in found if each["kind"] == "Secret" and "azurestorageaccountname" in {**each.get("data", {})}
    ]
    given = VALUES["azure-original"]["storage"]
    assert secret["data"] == {
        "azurestorageaccountname": given["accountbase64"],
        "azurestorageaccountkey": given["keybase64"],
    }
    worker = pods(found)["Job/digits-worker"]
    assert storage_of(worker, "/azure/runs")
    assert worker["spec"]["containers"][0]["args"] == ["--run-dir", "/azure/runs/train"]


@pytest.mark.parametrize("case", CASES)
def test_one_user_and_group_for_all(case):
    expected = {"uid": 1000, "gid": 1000} if case not in ("openshift", "user-left-out") else {}
    for name, pod in pods(objects(case)).items():
        context = pod["spec"]["securityContext"]
        assert context.get("runAsUser") == expected.get("uid"), name
        assert context.get("runAsGroup") == expected.get("gid"), name
        assert context.get("fsGroup") == expected.get("gid"), name


def test_another_user_and_group():
    for name, pod in pods(render({"user": {"uid": 2000, "gid": 3000}})).items():
        context = pod["spec"]["securityContext"]
        assert (context["runAsUser"], context["runAsGroup"], context["fsGroup"]) == (2000, 3000, 3000), name
