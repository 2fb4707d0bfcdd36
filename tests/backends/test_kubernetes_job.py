"""A job on Kubernetes as it is watched, over a server that stands for the API server."""

import base64
import contextlib
from pathlib import Path

import pytest
import yaml
from certificates import NAME, files, tls
from fake_api_server import forbidden
from kubernetes_objects import container, job, pod, terminated, waiting
from wire_peers import TOKEN, served

from tfleet.backends.kubernetes import helm
from tfleet.backends.kubernetes.cluster import Cluster
from tfleet.backends.kubernetes.handle import Handle
from tfleet.backends.kubernetes.job import KubernetesJob, open_job
from tfleet.spec.errors import ExitCode, JobFailed, WrongInput
from tfleet.spec.job import JobSpec

NS = "/api/v1/namespaces/ns"
JOBS = "/apis/batch/v1/namespaces/ns/jobs"
STATUS = f"{NS}/services/j:status/proxy/status"
HANDLE = "k8s://fake/ns/j"


class Clock:
    def __init__(self):
        self.now = 0.0

    def __call__(self):
        self.now += 10.0
        return self.now


def task_job(role, *conditions, **changes):
    made = job(role, *conditions, **changes)
    made["spec"]["template"]["spec"] = {
        "containers": [
            {
                "name": "main",
                "command": ["python", "-m", "tfleet.backends.pod"],
                "args": ["--run-dir", "/mnt/tfleet/j"],
                "volumeMounts": [{"name": "t", "mountPath": "/etc/tfleet/token"}],
            }
        ],
        "volumes": [{"name": "t", "secret": {"secretName": "own-token"}}],
    }
    return made


@pytest.fixture
def cluster(api):
    """A job that trains: its Jobs, pods, Secret and service; ps 0 answers with a status."""
    running = {"containerStatuses": [container(running={"startedAt": "now"})]}
    api.answers |= {
        ("GET", JOBS): {"items": [task_job("ps"), task_job("worker")]},
        ("GET", f"{NS}/pods"): {"items": [pod("ps", 0, **running), pod("worker", 0, **running)]},
        ("GET", f"{NS}/events"): {"items": []},
        ("GET", f"{NS}/secrets/own-token"): {"data": {"token": base64.b64encode(b"ab" * 32).decode()}},
        ("GET", f"{NS}/configmaps/j"): {"data": {"job.yaml": yaml.safe_dump({"task": "mnist", "workers": 2})}},
        ("GET", STATUS): {"phase": "training", "step": 5},
    }
    return api


@pytest.fixture
def found(cluster):
    watched = KubernetesJob(Handle.parse(HANDLE), Cluster("fake"), clock=Clock())
    yield watched
    watched.close()


def test_status_comes_from_ps_0_with_the_token_of_the_pods(cluster, found):
    assert found.status() == {"phase": "training", "step": 5, "waiting": ""}
    assert found.poll() is None
    assert cluster.asked("GET", STATUS)[0]["headers"]["X-Tfleet-Token"] == "ab" * 32
    assert cluster.asked("GET", JOBS)[0]["query"] == {"labelSelector": "app.kubernetes.io/instance=j"}
    assert (found.handle, found.run_dir, found.fullname) == (HANDLE, "/mnt/tfleet/j", "j")


def test_the_last_status_is_kept_while_ps_0_is_away(cluster, found):
    found.status()
    cluster.answers["GET", STATUS] = (503, {"kind": "Status", "message": "no endpoints available"})
    cluster.answers["GET", f"{NS}/pods"] = {"items": [pod("ps", 0, "Pending", **waiting("ImagePullBackOff"))]}
    assert found.status()["step"] == 5
    assert found.status()["waiting"].startswith("ps 0 waits for its image tfleet-worker:0.1.0")
    cluster.answers["GET", STATUS] = {"phase": "training", "step": 6}
    cluster.answers["GET", f"{NS}/pods"] = {"items": [pod("ps", 0)]}
    assert found.status() == {"phase": "training", "step": 6, "waiting": ""}


def test_a_cluster_that_is_away_for_a_while_is_told_and_forgiven(cluster, found):
    found.status()
    cluster.answers["GET", JOBS] = (500, {"message": "etcd leader changed"})
    assert "etcd leader changed" in found.status()["waiting"]
    assert found.poll() is None
    cluster.answers["GET", JOBS] = {"items": [task_job("worker", "Complete")]}
    assert found.poll() == ExitCode.DONE


def test_the_end_is_told_by_conditions_and_last_words(cluster, found):
    found.status()
    words = {"phase": "stopped", "exit_code": 0, "reason": "stopped by 'tfleet stop'", "step": 9}
    cluster.answers["GET", JOBS] = {"items": [task_job("worker", "SuccessCriteriaMet")]}
    cluster.answers["GET", f"{NS}/pods"] = {"items": [pod("ps", 0, "Succeeded", **terminated(words, 0))]}
    assert found.poll() == ExitCode.DONE
    assert found.status() == {**words, "waiting": ""}


def test_a_release_that_is_uninstalled_meanwhile(cluster, found):
    found.status()
    cluster.answers["GET", JOBS] = {"items": []}
    assert found.poll() == ExitCode.FAILED
    assert found.status()["reason"] == "the release was uninstalled"


def test_without_leave_for_the_proxy_a_port_is_forwarded(cluster, found):
    cluster.answers["GET", STATUS] = forbidden("cannot get services/proxy")
    found.status()
    found.status()
    assert len(cluster.asked("GET", STATUS)) == 1


def test_a_command_of_the_users_own_has_no_status_and_takes_no_orders(cluster, found):
    cluster.answers["GET", JOBS] = {"items": [job("ps"), job("worker")]}
    assert found.status()["phase"] == "running"
    assert cluster.asked("GET", STATUS) == []
    with pytest.raises(WrongInput, match=r"a command of your own.*remove it with 'helm uninstall j -n ns'"):
        found.end("stop", "")


def test_stopping_before_ps_0_runs_says_what_it_waits_for(cluster, found):
    cluster.answers["GET", f"{NS}/pods"] = {"items": [pod("ps", 0, "Pending", **waiting("ErrImageNeverPull"))]}
    with pytest.raises(JobFailed, match=r"ps 0 waits for its image.*helm uninstall j -n ns"):
        found.end("stop", "")


def test_stopping_what_is_over(cluster, found):
    cluster.answers["GET", JOBS] = {"items": [task_job("worker", "Failed")]}
    with pytest.raises(WrongInput, match="is not running; 'tfleet status k8s://fake/ns/j' tells how it ended"):
        found.end("stop", "")


def test_scaling_goes_through_helm(found, monkeypatch):
    asked = []
    monkeypatch.setattr(helm, "release", lambda at: {"chart": "tfleet-0.1.0"})
    monkeypatch.setattr(helm, "upgrade", lambda chart, at, values: asked.append((str(at), values)))
    found.scale(5)
    assert asked == [(HANDLE, {"worker": {"number": 5}})]
    with pytest.raises(WrongInput, match=r"100 workers are asked for, but this job may have 1 to 64"):
        found.scale(100)
    monkeypatch.setattr(helm, "release", lambda at: {"chart": "tfleet-0.0.9"})
    with pytest.raises(WrongInput, match=r"installed with the chart tfleet-0.0.9.*with the tfleet of that version"):
        found.scale(4)


def test_a_job_with_a_ps_beside_each_worker_is_not_scaled(cluster, found, monkeypatch):
    monkeypatch.setattr(helm, "upgrade", lambda *_: pytest.fail("helm was asked"))
    job = {"task": "mnist", "workers": 3, "ps_placement": "colocated"}
    cluster.answers["GET", f"{NS}/configmaps/j"] = {"data": {"job.yaml": yaml.safe_dump(job)}}
    with pytest.raises(WrongInput, match=r"a ps beside each of its 3 workers.*--resume"):
        found.scale(4)


def test_a_job_that_is_ending_is_not_scaled(cluster, found):
    cluster.answers["GET", STATUS] = {"phase": "finalising", "ending": "stop"}
    with pytest.raises(WrongInput, match="is ending"):
        found.scale(3)


def test_the_resolved_job_is_the_config_maps(found):
    found.poll()
    assert found.spec() == JobSpec(task="mnist", workers=2)


def test_a_job_to_be_removed_is_uninstalled_once(cluster, monkeypatch):
    removed = []
    monkeypatch.setattr(helm, "uninstall", lambda at, wait: removed.append((str(at), wait)))
    started = KubernetesJob(Handle.parse(HANDLE), Cluster("fake"), remove=True)
    assert not started.outlives
    started.close()
    started.close()
    assert removed == [(HANDLE, True)]


def test_opening_what_is_not_there_names_the_nearest(cluster):
    def jobs(request):
        ours = {"app.kubernetes.io/instance=j": [task_job("worker")], "app.kubernetes.io/name=tfleet": [task_job("ps")]}
        return {"items": ours.get(request["query"]["labelSelector"], [])}

    cluster.answers["GET", JOBS] = jobs
    open_job(HANDLE).close()
    with pytest.raises(
        WrongInput, match=r"no job jj \(did you mean 'j'\?\) in namespace ns of context fake; there are: j$"
    ):
        open_job("k8s://fake/ns/jj")


def logs(cluster, found, *arguments, **named):
    for role in ("ps", "worker"):
        path = f"{NS}/pods/j-{role}-0-abcde/log"
        cluster.answers["GET", path] = (200, f"{role} says\n 10 %\r100 %\n")
    return list(found.logs(*arguments, **named))


def test_logs_have_the_replicas_name_before_them(cluster, found):
    assert logs(cluster, found) == ["ps-0 | ps says", "ps-0 | 100 %", "worker-0 | worker says", "worker-0 | 100 %"]
    assert logs(cluster, found, "worker") == ["worker-0 | worker says", "worker-0 | 100 %"]
    with pytest.raises(WrongInput, match=r"no log of worker 7; there are: ps-0, worker-0"):
        found.logs("worker", 7)


def test_followed_logs_end_with_the_job_and_take_in_new_pods(cluster, found, monkeypatch):
    monkeypatch.setattr("tfleet.backends.kubernetes.logs.PATIENCE", 0.05)
    looks = []

    def jobs(_):
        looks.append(1)
        return {"items": [task_job("worker", *(["Complete"] if len(looks) > 6 else []))]}

    def pods(_):
        running = {"containerStatuses": [container(running={"startedAt": "now"})]}
        late = [pod("worker", 0, **running)] if len(looks) > 3 else []
        return {"items": [pod("ps", 0, **running), *late]}

    cluster.answers["GET", JOBS], cluster.answers["GET", f"{NS}/pods"] = jobs, pods
    assert sorted(logs(cluster, found, follow=True)) == [
        "ps-0 | 100 %",
        "ps-0 | ps says",
        "worker-0 | 100 %",
        "worker-0 | worker says",
    ]


def mounted(cluster, data, server_name=NAME):
    """Gives the job a Secret for TLS, mounted by its pods, and a service."""
    worker = task_job("worker")
    spec = worker["spec"]["template"]["spec"]
    spec["containers"][0]["volumeMounts"].append({"name": "tls", "mountPath": "/etc/tfleet/tls"})
    spec["volumes"].append({"name": "tls", "secret": {"secretName": "certificates"}})
    fields = {"tls_cert": "/c", "tls_key": "/k", "tls_ca": "/a", "tls_server_name": server_name}
    cluster.answers |= {
        ("GET", JOBS): {"items": [task_job("ps"), worker]},
        ("GET", f"{NS}/secrets/own-token"): {"data": {"token": base64.b64encode(TOKEN).decode()}},
        ("GET", f"{NS}/secrets/certificates"): {"data": data},
        ("GET", f"{NS}/services/j"): {"spec": {"ports": [{"name": "data", "port": 2222}]}},
        ("GET", f"{NS}/configmaps/j"): {"data": {"job.yaml": yaml.safe_dump({"task": "mnist", **fields})}},
    }


def secret():
    given = files(NAME)
    names = {"tls.crt": "tls_cert", "tls.key": "tls_key", "ca.crt": "tls_ca"}
    return {key: base64.b64encode(Path(given[field]).read_bytes()).decode() for key, field in names.items()}


def test_ps_0_is_asked_by_tls_with_the_certificate_of_the_pods(cluster, found, monkeypatch):
    mounted(cluster, secret())
    with served("tls", tls=tls(NAME)) as (where, handler, _):
        forward = contextlib.contextmanager(lambda *_: (yield where.port))
        monkeypatch.setattr(found.cluster, "forward", forward)
        found.poll()
        found.call("echo")
        assert len(handler.frames) == 1


def test_a_secret_for_tls_without_all_its_files_is_told(cluster, found, monkeypatch):
    mounted(cluster, {key: value for key, value in secret().items() if key != "ca.crt"})
    monkeypatch.setattr(found.cluster, "forward", contextlib.contextmanager(lambda *_: (yield 1)))
    found.poll()
    with pytest.raises(WrongInput, match=r"the Secret certificates of .* has no ca.crt; make it anew with all three"):
        found.call("echo")
