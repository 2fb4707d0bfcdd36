"""The Kubernetes backend plans by the real helm and the real chart; no cluster is asked."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml
from helm_program import needs_helm_on_path

from tfleet.backends.kubernetes import chart, objects
from tfleet.backends.kubernetes.backend import VOLUME_DEFAULT, KubernetesBackend
from tfleet.backends.kubernetes.handle import Handle
from tfleet.spec.errors import JobFailed, WrongInput
from tfleet.spec.job import JobSpec
from tfleet.testing.backends import BackendConformance

AT = Handle("a-context", "a-namespace", "digits")


def plan(values=None, resume=False, run_dir=VOLUME_DEFAULT, task_file=None, **job):
    return KubernetesBackend(AT, values, task_file).plan(JobSpec.parse({"task": "mnist", **job}), run_dir, resume)


def config(found):
    return next(o for o in objects.parse(found.manifest) if o["kind"] == "ConfigMap")["data"]


@needs_helm_on_path
class TestKubernetesBackendConforms(BackendConformance):
    inapplicable = ({"tcp": True}, {"shared_memory": "never"}, {"listen": "10.0.0.5"})

    def backend(self):
        return KubernetesBackend(AT)

    def run_dir(self, tmp_path):
        return Path("/mnt/tfleet/run")

    def started(self, plan):
        return plan.replicas, config(plan)["job.yaml"]


@needs_helm_on_path
def test_the_chart_makes_the_same_job_of_the_spec():
    asked = {"steps": 700, "workers": 3, "evaluation": {"every_steps": 50}, "params": {"hidden_units": "7"}}
    found = plan(**asked, status_port=8080)
    assert JobSpec.parse(yaml.safe_load(config(found)["job.yaml"])) == found.spec


@needs_helm_on_path
def test_the_replicas_run_what_the_pods_run():
    found = plan(workers=1, ps=1, evaluation={"evaluator": True}, resume=True)
    assert [(r.role, r.index) for r in found.replicas] == [("ps", 0), ("worker", 0), ("evaluator", 0)]
    assert found.replicas[0].command == (
        *("python", "-m", "tfleet.backends.pod", "--run-dir", "/mnt/tfleet/digits", "--resume"),
    )
    assert found.run_dir == Path("/mnt/tfleet/digits")
    assert found.handle == "k8s://a-context/a-namespace/digits"


@needs_helm_on_path
def test_no_secret_is_in_a_plan():
    azure = {"kind": "azureFile", "sharename": "share", "accountbase64": "YWNjb3VudA==", "keybase64": "c2VjcmV0a2V5"}
    found = plan({"storage": azure})
    for shown in (found.text(), json.dumps(found.to_json())):
        assert "c2VjcmV0a2V5" not in shown
        assert "YWNjb3VudA==" not in shown
    assert found.values["storage"]["keybase64"] == "c2VjcmV0a2V5"


@needs_helm_on_path
def test_the_text_of_a_plan_is_a_manifest():
    found = plan()
    assert objects.parse(found.text()) == objects.parse(found.manifest)


@needs_helm_on_path
def test_a_task_file_is_shipped():
    found = plan(task="flowers.py:task", task_file=("flowers.py", "task = 1\n"))
    shipped = [o["data"] for o in objects.parse(found.manifest) if o["metadata"]["name"] == "digits-task"]
    assert shipped == [{"flowers.py": "task = 1\n"}]
    assert yaml.safe_load(config(found)["job.yaml"])["task"] == "/etc/tfleet/task/flowers.py:task"


@needs_helm_on_path
def test_the_batches_of_a_sync_step_do_not_follow_the_workers():
    assert yaml.safe_load(config(plan(strategy="sync", workers=5))["job.yaml"])["replicas_to_aggregate"] == 5


@needs_helm_on_path
def test_the_charts_refusal_is_one_sentence():
    with pytest.raises(WrongInput, match=r"^worker.limit.memory=125Mi .*768Mi[^\n]*$"):
        plan({"worker": {"limit": {"memory": "125Mi"}}})
    with pytest.raises(WrongInput, match=r"^the chart refuses the values: .*'limits'.*--set$"):
        plan({"worker": {"limits": {}}})


@needs_helm_on_path
def test_a_tfjob_is_the_same_job():
    backend = KubernetesBackend(AT)
    printed = backend.tfjob(backend.plan(JobSpec(task="mnist", workers=3)))
    made = objects.parse(printed)
    assert not any(thing["kind"] == "Secret" for thing in made)
    assert "| kubectl -n a-namespace create secret generic digits-token --from-file=token=/dev/stdin" in printed
    job = next(o for o in made if o["kind"] == "TFJob")
    assert job["spec"]["tfReplicaSpecs"]["Worker"]["replicas"] == 3
    assert not [o for o in made if o["kind"] == "Job"]


def test_fields_of_one_machine_are_refused():
    with pytest.raises(WrongInput, match="--tcp does nothing on kubernetes"):
        plan(tcp=True)
    with pytest.raises(WrongInput, match=r"pods get theirs from a Secret; .* give --set tls.secretName=NAME"):
        plan(tls_cert="/c", tls_key="/k", tls_ca="/a")
    with pytest.raises(WrongInput, match=r"shared_memory=never: .*--shared-memory does nothing on kubernetes"):
        plan(shared_memory="never")


@needs_helm_on_path
def test_certificates_come_from_a_secret_that_must_be_there_or_from_cert_manager():
    given = {"tls": {"secretName": "certificates"}}
    found = plan(given)
    assert "tls_server_name: digits" in config(found)["job.yaml"]
    assert ("Secret", "certificates") in objects.needed(objects.parse(found.manifest))
    issued = {"tls": {"certManager": {"enabled": True, "issuerRef": {"name": "company"}}}}
    names = {name for kind, name in objects.needed(objects.parse(plan(issued).manifest)) if kind == "Secret"}
    assert not [name for name in names if name.endswith("-tls")]


def test_a_task_file_that_is_too_large_or_not_the_tasks_is_refused():
    with pytest.raises(WrongInput, match=r"has 2,000,000 bytes, but at most 900,000"):
        plan(task="a.py:task", task_file=("a.py", "#" * 2_000_000))
    with pytest.raises(WrongInput, match=r"the task is b.py:task; name an object of the file, such as 'a.py:task'"):
        plan(task="b.py:task", task_file=("a.py", ""))


@pytest.mark.parametrize("name", ["2024run", "a.b", "A", "x" * 46, "end-"])
def test_names_that_services_refuse_are_refused(name):
    with pytest.raises(WrongInput, match=r"will not do for a release.*such as"):
        KubernetesBackend(Handle("c", "n", name)).plan(JobSpec(task="mnist"))


def test_without_helm_it_is_told_how_to_get_it(monkeypatch):
    monkeypatch.setenv("PATH", "")
    with pytest.raises(WrongInput, match=r"helm is not installed.*https://helm.sh"):
        plan()


def test_the_chart_is_found_in_a_checkout_and_in_a_wheel(tmp_path):
    assert (chart.chart_path() / "Chart.yaml").is_file()
    package = tmp_path / "site/lib/tfleet"
    with pytest.raises(JobFailed, match="install tfleet again"):
        chart.chart_path(package=package)
    (package / "charts/tfleet").mkdir(parents=True)
    (package / "charts/tfleet/Chart.yaml").touch()
    assert chart.chart_path(package=package) == package / "charts/tfleet"
