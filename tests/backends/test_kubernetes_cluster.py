"""The API server as one class, over real HTTP."""

import base64
import os
import sys
import tempfile

import pytest
from fake_api_server import forbidden

from tfleet.backends.kubernetes.cluster import Cluster, Unreachable
from tfleet.spec.errors import WrongInput

PODS = "/api/v1/namespaces/ns/pods"


@pytest.fixture
def cluster(api):
    with Cluster("fake") as found:
        yield found


def test_objects_and_lists(api, cluster):
    api.answers |= {("GET", PODS): {"items": [{"a": 1}]}, ("GET", f"{PODS}/x"): {"kind": "Pod"}}
    assert cluster.items(PODS, labelSelector="a=b") == [{"a": 1}]
    assert cluster.get(f"{PODS}/x") == {"kind": "Pod"}
    assert cluster.get(f"{PODS}/y") is None
    assert api.asked("GET", PODS)[0]["query"] == {"labelSelector": "a=b"}
    assert api.asked("GET", PODS)[0]["headers"]["Authorization"] == "Bearer secret"


def test_what_is_sent(api, cluster):
    api.answers["POST", PODS] = (201, {})
    answer = cluster.request("POST", PODS, {"kind": "Pod"}, {"dryRun": "All"}, {"X-Tfleet-Token": "t"})
    sent = api.asked("POST", PODS)[0]
    assert answer.ok
    assert (sent["body"], sent["query"], sent["headers"]["X-Tfleet-Token"]) == ({"kind": "Pod"}, {"dryRun": "All"}, "t")


@pytest.mark.parametrize(
    ("answer", "kind", "sentence"),
    [
        (forbidden('User "u" cannot list pods'), WrongInput, 'not allow it: User "u" cannot list pods; ask its admin'),
        ((401, {"message": "Unauthorized"}), WrongInput, "does not know who you are: Unauthorized; log in to it again"),
        ((503, "no backend"), Unreachable, "the API server failed: no backend; try again"),
        ((422, {"message": "wrong"}), WrongInput, "the cluster refuses it: wrong"),
    ],
)
def test_refusals(api, cluster, answer, kind, sentence):
    api.answers["GET", PODS] = answer
    with pytest.raises(kind, match=sentence):
        cluster.items(PODS)


def test_a_forbidden_question_is_asked_once(api, cluster):
    api.answers["GET", PODS] = forbidden("no")
    with pytest.raises(WrongInput):
        cluster.items(PODS)
    assert len(api.asked("GET", PODS)) == 1


def test_lines_come_one_by_one(api, cluster):
    api.answers["GET", f"{PODS}/x/log"] = (200, "one\ntwo\n\nthree")
    assert list(cluster.lines(f"{PODS}/x/log", container="main")) == ["one", "two", "", "three"]


def test_lines_that_are_refused(api, cluster):
    api.answers["GET", f"{PODS}/x/log"] = (400, {"message": "container is waiting to start"})
    with pytest.raises(WrongInput, match="waiting to start"):
        list(cluster.lines(f"{PODS}/x/log"))


def test_a_cluster_that_does_not_answer(tmp_path, monkeypatch):
    config = tmp_path / "config"
    config.write_text(
        "current-context: c\ncontexts: [{name: c, context: {cluster: c, user: u}}]\n"
        "clusters: [{name: c, cluster: {server: 'http://127.0.0.1:1'}}]\nusers: [{name: u, user: {}}]\n"
    )
    monkeypatch.setenv("KUBECONFIG", str(config))
    with Cluster("c") as cluster, pytest.raises(Unreachable, match="the cluster of context 'c' does not answer"):
        cluster.get("/version")
    with Cluster("d") as cluster, pytest.raises(WrongInput, match="the context 'd' of the kubeconfig cannot be used"):
        cluster.get("/version")


def test_without_kr8s_the_install_command_is_told(monkeypatch):
    monkeypatch.setitem(sys.modules, "kr8s", None)
    with Cluster("c") as cluster, pytest.raises(WrongInput, match=r"pip install 'tfleet\[kubernetes\]'"):
        cluster.get("/version")


def test_keys_of_the_kubeconfig_are_not_left_in_temporary_files(api, tmp_path, monkeypatch):
    import json

    config = tmp_path / "kubeconfig"
    values = json.loads(config.read_text())
    key = base64.b64encode(b"-----not read without a certificate-----").decode()
    values["users"][0]["user"]["client-key-data"] = key
    config.write_text(json.dumps(values))
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    with Cluster("fake") as cluster:
        cluster.get("/version")
    assert os.listdir(folder) == []
