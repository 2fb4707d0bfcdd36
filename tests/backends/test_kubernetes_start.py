"""What is asked of the cluster before anything is installed, and what a failed install leaves."""

import dataclasses
import shutil

import pytest
from fake_api_server import forbidden

from tfleet.backends.kubernetes import helm
from tfleet.backends.kubernetes.backend import KubernetesBackend
from tfleet.backends.kubernetes.handle import Handle
from tfleet.backends.kubernetes.start import not_admitted, path_of
from tfleet.spec.errors import JobFailed, WrongInput
from tfleet.spec.job import JobSpec

pytestmark = pytest.mark.skipif(shutil.which("helm") is None, reason="helm is not in PATH; it renders the chart")

AT = Handle("fake", "ns", "j")
NS = "/api/v1/namespaces/ns"


@pytest.fixture
def installed(monkeypatch):
    """Stands for helm's installing and removing; lists what was done."""
    done = []
    monkeypatch.setattr(helm, "release", lambda at: None)
    monkeypatch.setattr(helm, "install", lambda chart, at, values: done.append("install"))
    monkeypatch.setattr(helm, "uninstall", lambda at, wait=False: done.append("uninstall"))
    return done


@pytest.fixture
def cluster(api):
    """A cluster that takes everything."""
    api.answers["GET", NS] = {"metadata": {"name": "ns"}}
    kinds = ("configmaps", "secrets", "services", "serviceaccounts", "persistentvolumeclaims", "pods")
    for path in (
        *(f"{NS}/{kind}" for kind in kinds),
        "/apis/batch/v1/namespaces/ns/jobs",
        "/apis/networking.k8s.io/v1/namespaces/ns/networkpolicies",
    ):
        api.answers["POST", path] = lambda request: (201, request["body"])
    return api


def start(**values):
    backend = KubernetesBackend(AT, values)
    return backend.start(backend.plan(JobSpec(task="mnist")))


def test_every_object_and_a_pod_of_each_template_is_tried_and_nothing_made(cluster, installed):
    start().close()
    posts = [r for r in cluster.requests if r["method"] == "POST"]
    assert {r["query"]["dryRun"] for r in posts} == {"All"}
    tried = [r["body"]["kind"] for r in posts]
    assert {"ConfigMap", "Secret", "Service", "Job", "PersistentVolumeClaim", "NetworkPolicy"} <= set(tried)
    assert tried.count("Pod") == 2
    assert all("serviceAccountName" not in r["body"]["spec"] for r in posts if r["body"]["kind"] == "Pod")
    assert installed == ["install"]


def refused(match):
    return pytest.raises(WrongInput, match=match)


def test_a_missing_namespace(cluster, installed):
    del cluster.answers["GET", NS]
    cluster.answers["GET", "/api/v1/namespaces"] = {"items": [{"metadata": {"name": "nsx"}}]}
    with refused(r"no namespace ns \(did you mean 'nsx'\?\) .* or make it with 'kubectl create namespace ns'"):
        start()
    assert installed == []


def test_a_namespace_that_may_not_be_looked_at_is_no_hindrance(cluster, installed):
    cluster.answers["GET", NS] = forbidden("cannot get namespaces")
    start().close()
    assert installed == ["install"]


def test_a_release_that_is_there(cluster, installed, monkeypatch):
    monkeypatch.setattr(helm, "release", lambda at: {"name": "j"})
    with refused("the release j is there already in namespace ns; choose another name with --name"):
        start()


def test_missing_rights(cluster, installed):
    path = "/apis/batch/v1/namespaces/ns/jobs"
    words = 'jobs.batch is forbidden: User "u" cannot create resource "jobs" in API group "batch" in the namespace "ns"'
    cluster.answers["POST", path] = forbidden(words)
    with refused("you may not create jobs in namespace ns; ask its administrator"):
        start()
    assert installed == []


def test_the_sum_of_all_pods_is_held_against_the_quota_with_the_limits_that_the_cluster_adds(cluster, installed):
    def defaulted(request):
        limits = request["body"]["spec"]["containers"][0]["resources"].setdefault("limits", {})
        limits["cpu"] = "600m"
        return 201, request["body"]

    cluster.answers["POST", f"{NS}/pods"] = defaulted
    cluster.answers["GET", f"{NS}/resourcequotas"] = {
        "items": [{"metadata": {"name": "team"}, "spec": {}, "status": {"hard": {"limits.cpu": "2"}, "used": {}}}]
    }
    with refused(
        r"namespace ns: the quota team leaves 2 of limits.cpu \(of 2\), but the job needs 2400m; ask for less"
    ):
        start()


def test_a_kept_claim_is_adopted_and_not_counted(cluster, installed):
    path = f"{NS}/persistentvolumeclaims"
    cluster.answers["POST", path] = (409, {"kind": "Status", "reason": "AlreadyExists", "message": "exists"})
    notes = {"meta.helm.sh/release-name": "j", "meta.helm.sh/release-namespace": "ns"}
    cluster.answers["GET", f"{path}/j"] = {"metadata": {"name": "j", "annotations": notes}}
    cluster.answers["GET", f"{NS}/resourcequotas"] = {
        "items": [{"metadata": {"name": "t"}, "spec": {}, "status": {"hard": {"persistentvolumeclaims": "0"}}}]
    }
    start().close()
    assert installed == ["install"]


def test_somebody_elses_object_of_the_same_name(cluster, installed):
    path = f"{NS}/services"
    cluster.answers["POST", path] = (409, {"reason": "AlreadyExists", "message": "exists"})
    cluster.answers["GET", f"{path}/j-ps"] = {"metadata": {"name": "j-ps"}}
    with refused("the Service j-ps is there already in namespace ns and does not belong to release j; choose another"):
        start()


def test_a_claim_that_is_not_there(cluster, installed):
    cluster.answers["GET", f"{NS}/persistentvolumeclaims"] = {"items": [{"metadata": {"name": "data"}}]}
    with refused(r"need the PersistentVolumeClaim daat, which is not in namespace ns \(did you mean 'data'\?\)"):
        start(storage={"kind": "claim", "claim": "daat"})


def test_what_a_failed_install_left_is_removed_with_the_claim_it_made(cluster, installed, monkeypatch):
    def fail(*_):
        raise JobFailed("helm failed: boom")

    monkeypatch.setattr(helm, "install", fail)
    cluster.answers["DELETE", f"{NS}/persistentvolumeclaims/j"] = {}
    with pytest.raises(JobFailed, match="boom"):
        start()
    assert installed == ["uninstall"]
    assert len(cluster.asked("DELETE", f"{NS}/persistentvolumeclaims/j")) == 1


@pytest.mark.parametrize(
    ("message", "sentence"),
    [
        (
            'pods "x" is forbidden: exceeded quota: team, requested: limits.memory=2Gi, used: limits.memory=1Gi, '
            "limited: limits.memory=2Gi",
            "the quota team allows limits.memory=2Gi, limits.memory=1Gi is used, and the worker pod needs limits.mem",
        ),
        (
            'pods "x" is forbidden: failed quota: team: must specify limits.cpu for: main',
            "has a quota by which the worker pod must say limits.cpu for: main; set worker.limit",
        ),
        (
            'pods "x" is forbidden: violates PodSecurity "restricted:latest": hostPath volumes',
            'does not admit the worker pod: Pod Security "restricted:latest": hostPath volumes; use a storage.kind',
        ),
        (
            'pods "x" is forbidden: maximum memory usage per Container is 2Gi, but limit is 4Gi',
            "do not admit the worker pod: maximum memory usage per Container is 2Gi, but limit is 4Gi; change worker.l",
        ),
        ("Pod x is invalid: spec.y: wrong", "would refuse the worker pod: Pod x is invalid: spec.y: wrong; change it"),
    ],
)
def test_what_a_refusal_means(message, sentence):
    assert sentence in str(not_admitted("the worker pod", "ns", message))


@pytest.mark.parametrize(
    ("version", "kind", "path"),
    [
        ("v1", "Service", "/api/v1/namespaces/ns/services"),
        ("networking.k8s.io/v1", "NetworkPolicy", "/apis/networking.k8s.io/v1/namespaces/ns/networkpolicies"),
        ("v1", "PersistentVolume", "/api/v1/persistentvolumes"),
        ("storage.k8s.io/v1", "StorageClass", "/apis/storage.k8s.io/v1/namespaces/ns/storageclasses"),
    ],
)
def test_paths(version, kind, path):
    assert path_of({"apiVersion": version, "kind": kind, "metadata": {}}, "ns") == path


def test_a_plan_of_another_backend_is_a_defect(cluster):
    backend = KubernetesBackend(AT)
    other = backend.plan(JobSpec(task="mnist"))
    plain = {f.name: getattr(other, f.name) for f in dataclasses.fields(other)[:4]}
    from tfleet.backends.base import Plan

    with pytest.raises(TypeError):
        backend.start(Plan(**plain))
