"""`tfleet doctor --on kubernetes`: what each check says, over a server that stands for the API server."""

import pytest
from fake_api_server import forbidden

from tfleet.backends.kubernetes import doctor, helm
from tfleet.spec.errors import WrongInput

REVIEW = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"
CLASSES = "/apis/storage.k8s.io/v1/storageclasses"
DEFAULT = {"storageclass.kubernetes.io/is-default-class": "true"}


@pytest.fixture
def cluster(api, monkeypatch):
    monkeypatch.setattr(helm, "version", lambda: "v3.22.0")
    api.may_not = set()

    def review(request):
        asked = request["body"]["spec"]["resourceAttributes"]
        what = "/".join(filter(None, (asked["resource"], asked["subresource"])))
        return 201, {"status": {"allowed": f"{asked['verb']} {what}" not in api.may_not}}

    api.answers |= {
        ("POST", REVIEW): review,
        ("GET", "/api/v1/namespaces/ns"): {"metadata": {"name": "ns"}},
        ("GET", CLASSES): {"items": [{"metadata": {"name": "fast", "annotations": DEFAULT}}]},
    }
    return api


def examined(**where):
    return {f.name: f for f in reversed(doctor.examine(**where))}


def test_a_cluster_that_is_fit(cluster):
    found = examined()
    assert all(f.ok for f in found.values())
    assert found["context"].detail == "fake, namespace ns"
    assert found["storage class"].detail.startswith("fast")
    assert found["Kubernetes"].detail == "v1.34.4"


def test_missing_rights_are_listed(cluster):
    cluster.may_not = {"create jobs", "create services", "update secrets", "create pods/exec"}
    found = doctor.examine()
    missing = [f for f in found if f.name == "rights"]
    assert missing[0].required
    assert missing[0].detail == "you may not create jobs, services, nor update secrets in namespace ns"
    assert [(f.detail, f.required) for f in missing[1:]] == [("you may not create pods/exec", False)]
    assert "'tfleet copy' then does not work" in missing[1].advice


@pytest.mark.parametrize(
    ("classes", "ok", "advice"),
    [
        ({"items": []}, False, "storage.className"),
        ({"items": [{"metadata": {"name": "slow"}}]}, False, "storage.kind=claim"),
        (forbidden("no"), True, ""),
    ],
)
def test_storage_classes(cluster, classes, ok, advice):
    cluster.answers["GET", CLASSES] = classes
    found = examined()["storage class"]
    assert found.ok == ok
    assert advice in found.advice
    assert ok or not found.required


@pytest.mark.parametrize(("minor", "ok"), [("30", False), ("31+", True), ("40", True)])
def test_versions_of_kubernetes(minor, ok):
    assert doctor.kubernetes({"major": "1", "minor": minor, "gitVersion": "v1"}).ok == ok


@pytest.mark.parametrize(("version", "ok"), [("v3.13.9", False), ("v3.14.0", True), ("v4.0.1", True)])
def test_versions_of_helm(version, ok, monkeypatch):
    monkeypatch.setattr(helm, "version", lambda: version)
    assert doctor.helm_program().ok == ok


def test_what_is_missing_is_told_with_what_to_do(cluster, monkeypatch):
    def missing():
        raise WrongInput(helm.INSTALL_HINT)

    monkeypatch.setattr(helm, "version", missing)
    assert "install Helm 3" in examined()["helm"].advice
    assert not examined(context="other")["context"].ok
    del cluster.answers["GET", "/api/v1/namespaces/ns"]
    assert "kubectl create namespace ns" in examined()["namespace"].advice
