"""The Jobs of ps, workers and evaluator: names, environment, policies, what may change while they run."""

from __future__ import annotations

import json
import re

import pytest
import yaml
from chart_cases import CASES, objects
from chart_renders import Object, environment, one, pods
from chart_renders import objects as render
from helm_program import needs_helm

pytestmark = needs_helm

TOLERATED = ("node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable")


def job(found: list[Object], role: str) -> Object:
    return one(found, "Job", f"digits-{role}")["spec"]


def config(found: list[Object]) -> dict[str, str]:
    return one(found, "ConfigMap", "digits")["data"]


@pytest.mark.parametrize("case", [case for case in CASES if case != "tfjob"])
def test_the_host_lists_name_the_pods(case):
    found = objects(case)
    data, cluster = config(found), json.loads(config(found)["cluster"])
    for role in ("ps", "worker"):
        spec = job(found, role)
        assert spec["completionMode"] == "Indexed"
        assert spec["parallelism"] == spec["completions"]
        subdomain = spec["template"]["spec"]["subdomain"]
        service = one(found, "Service", subdomain)["spec"]
        assert service["clusterIP"] == "None"
        assert service.get("publishNotReadyAddresses", False) is False
        assert service["selector"].items() <= spec["template"]["metadata"]["labels"].items()
        (port,) = {host.rpartition(":")[2] for host in data[f"{role}.hostList"].split(",")}
        hosts = [f"digits-{role}-{index}.{subdomain}:{port}" for index in range(spec["completions"])]
        assert data[f"{role}.hostList"].split(",") == hosts
        assert cluster[role] == hosts
        ports = [p["containerPort"] for p in spec["template"]["spec"]["containers"][0]["ports"]]
        assert int(port) in ports
    assert data["workers"] == str(job(found, "worker")["completions"])


@pytest.mark.parametrize("case", [case for case in CASES if case != "tfjob"])
def test_the_service_of_ps_0_chooses_ps_0(case):
    found = objects(case)
    service = one(found, "Service", "digits")["spec"]
    labels = job(found, "ps")["template"]["metadata"]["labels"]
    chosen = dict(service["selector"])
    assert chosen.pop("batch.kubernetes.io/job-completion-index") == "0"
    assert chosen.items() <= labels.items()
    assert service["type"] == "ClusterIP"
    assert {port["name"] for port in service["ports"]} == {"data", "status"}


@pytest.mark.parametrize("case", CASES)
def test_every_environment_value_is_text(case):
    for name, pod in pods(objects(case)).items():
        for entry in environment(pod).values():
            assert isinstance(entry.get("value", ""), str), f"{name}: {entry}"


@pytest.mark.parametrize("case", [case for case in CASES if case != "tfjob"])
@pytest.mark.parametrize("role", ["ps", "worker"])
def test_the_replica_environment(case, role):
    found = objects(case)
    entries = environment(job(found, role)["template"])
    assert entries["JOB_NAME"]["value"] == role
    assert entries["POD_NAME"]["value"] == f"digits-{role}-$(JOB_COMPLETION_INDEX)"
    index = "metadata.annotations['batch.kubernetes.io/job-completion-index']"
    assert entries["JOB_COMPLETION_INDEX"]["valueFrom"]["fieldRef"]["fieldPath"] == index
    for name, key in (("PS_HOSTS", "ps.hostList"), ("WORKER_HOSTS", "worker.hostList"), ("TF_CLUSTER", "cluster")):
        assert entries[name]["valueFrom"]["configMapKeyRef"] == {"name": "digits", "key": key}
    order = list(entries)
    for user, used in (("POD_NAME", "JOB_COMPLETION_INDEX"), ("TF_CONFIG", "TF_CLUSTER")):
        assert order.index(used) < order.index(user), f"{used} is expanded only in what follows it"
    written = entries["TF_CONFIG"]["value"].replace("$(TF_CLUSTER)", config(found)["cluster"])
    told = json.loads(written.replace("$(JOB_COMPLETION_INDEX)", "1"))
    assert told == {"cluster": json.loads(config(found)["cluster"]), "task": {"type": role, "index": 1}}
    assert entries["HOME"]["value"] == "/tmp"


def test_the_environment_of_the_pod_runtime():
    found = objects("everything")
    for role in ("ps", "worker", "evaluator"):
        pod = job(found, role)["template"]
        (main,) = pod["spec"]["containers"]
        entries = environment(pod)
        assert main["name"] == "main"
        assert main["command"] == ["python", "-m", "tfleet.backends.pod"]
        assert main["args"] == ["--run-dir", "/mnt/tfleet/digits", "--resume"]
        assert entries["TFLEET_RENDEZVOUS"]["value"] == "digits:2222"
        assert entries["TFLEET_POD_IP"]["valueFrom"]["fieldRef"]["fieldPath"] == "status.podIP"
        mounts = {mount["mountPath"]: mount["name"] for mount in main["volumeMounts"]}
        volumes = {volume["name"]: volume for volume in pod["spec"]["volumes"]}
        for variable in ("TFLEET_TOKEN_FILE", "TFLEET_JOB_FILE"):
            assert entries[variable]["value"].rpartition("/")[0] in mounts
        assert entries["TFLEET_TOKEN_FILE"]["value"] == "/etc/tfleet/token/token"
        assert entries["TFLEET_JOB_FILE"]["value"] == "/etc/tfleet/job/job.yaml"
        assert volumes[mounts["/etc/tfleet/token"]]["secret"]["secretName"] == "digits-token"
        assert volumes[mounts["/etc/tfleet/job"]]["configMap"]["name"] == "digits"
        assert volumes[mounts["/mnt/tfleet"]]["persistentVolumeClaim"]["claimName"] == "digits"
        assert volumes[mounts["/mnt/scratch"]]["emptyDir"]["sizeLimit"] == "1Gi"
        assert "emptyDir" in volumes[mounts["/tmp"]]
        assert "/etc/tfleet/task" in mounts
        assert mounts["/data"] == "data"
        assert pod["spec"]["terminationGracePeriodSeconds"] == 30
    assert environment(job(found, "worker")["template"])["OMP_NUM_THREADS"]["value"] == "1"
    assert "OMP_NUM_THREADS" not in environment(job(found, "ps")["template"])
    assert "--resume" not in str(objects("default"))


def test_the_policies_of_the_worker_job():
    spec = job(objects("default"), "worker")
    assert spec["template"]["spec"]["restartPolicy"] == "Never"
    assert spec["backoffLimitPerIndex"] == 3
    assert spec["maxFailedIndexes"] == 0
    fail, ignore = spec["podFailurePolicy"]["rules"]
    assert fail["action"] == "FailJob"
    assert fail["onExitCodes"] == {"containerName": "main", "operator": "In", "values": [1, 2, 128]}
    assert ignore["action"] == "Ignore"
    assert ignore["onPodConditions"] == [{"type": "DisruptionTarget", "status": "True"}]
    assert spec["successPolicy"] == {"rules": [{"succeededCount": 1}]}


@pytest.mark.parametrize("role", ["ps", "evaluator"])
def test_the_policies_of_the_other_jobs(role):
    spec = job(objects("everything"), role)
    assert spec["template"]["spec"]["restartPolicy"] == "OnFailure"
    assert spec["backoffLimit"] == 6
    assert spec["podReplacementPolicy"] == "TerminatingOrFailed"
    assert not {"podFailurePolicy", "successPolicy", "backoffLimitPerIndex"} & set(spec)


def test_the_result_of_a_script_is_that_of_all_workers_or_of_worker_0():
    assert "successPolicy" not in job(objects("own-command"), "worker")
    assert job(objects("finisher"), "worker")["successPolicy"] == {"rules": [{"succeededIndexes": "0"}]}
    fail, _ = job(objects("own-command"), "worker")["podFailurePolicy"]["rules"]
    assert fail["onExitCodes"]["values"] == [2, 128], "what 1 means is the script's affair"
    for case in ("own-command", "finisher"):
        for role in ("ps", "worker"):
            (main,) = job(objects(case), role)["template"]["spec"]["containers"]
            assert main["command"] == ["python", "train.py"]
            assert main["image"] == "registry.example/digits:1"
            assert not main.get("args")


@pytest.mark.parametrize("case", CASES)
def test_a_lost_node_is_noticed_soon(case):
    found = objects(case)
    for name, pod in pods([each for each in found if each["kind"] == "Job"]).items():
        if name.endswith("-finisher"):
            continue
        tolerated = {each["key"]: each for each in pod["spec"]["tolerations"] if each.get("key") in TOLERATED}
        assert set(tolerated) == set(TOLERATED), name
        for each in tolerated.values():
            assert (each["operator"], each["effect"], each["tolerationSeconds"]) == ("Exists", "NoExecute", 15)


def test_a_pod_template_does_not_change_with_the_number_of_workers():
    few, many = (render({"worker": {"number": number}}) for number in (1, 50))
    for role in ("ps", "worker"):
        first, second = (job(found, role)["template"] for found in (few, many))
        assert yaml.safe_dump(first) == yaml.safe_dump(second)
    assert one(few, "Job", "digits-worker")["metadata"] == one(many, "Job", "digits-worker")["metadata"]
    changed = {key for key in job(few, "worker") if job(few, "worker")[key] != job(many, "worker")[key]}
    assert changed == {"parallelism", "completions"}
    assert job(few, "ps") == job(many, "ps")


def test_the_guard_of_upgrades_sees_what_jobs_cannot_take():
    def guard(values: Object) -> str:
        annotations = one(render(values), "Job", "digits-worker")["metadata"]["annotations"]
        return str(annotations["tfleet.dev/template"])

    assert guard({}) == guard({"worker": {"number": 5}})
    assert guard({}) == guard({"tensorboard": {"enabled": True}})
    for values in (
        {"ps": {"number": 3}},
        {"worker": {"image": {"tag": "2"}}},
        {"worker": {"env": [{"name": "A", "value": "b"}]}},
    ):
        assert guard(values) != guard({}), values


def test_the_deadline_is_the_coordinators_with_the_jobs_as_a_backstop():
    found = objects("everything")
    for role in ("ps", "worker", "evaluator"):
        assert job(found, role)["activeDeadlineSeconds"] == 3720
        assert job(found, role)["ttlSecondsAfterFinished"] == 86400
        assert "activeDeadlineSeconds" not in job(objects("default"), "ps")
        assert "ttlSecondsAfterFinished" not in job(objects("default"), "ps")


@pytest.mark.parametrize("case", CASES)
def test_every_container_has_an_image_and_bounds_of_memory(case):
    for name, pod in pods(objects(case)).items():
        for container in pod["spec"]["containers"]:
            assert re.fullmatch(r"[a-z0-9][-a-z0-9._/:]*[:@][-a-zA-Z0-9._:]+", container["image"]), name
            assert container["imagePullPolicy"] in ("IfNotPresent", "Never", "Always"), name
            assert {"cpu", "memory"} <= set(container["resources"]["requests"]), name
            assert "memory" in container["resources"]["limits"], name


def test_the_evaluator_is_a_worker_but_for_what_is_given():
    asked = {"evaluation": {"evaluator": True}}
    worker = {"image": {"repository": "mine", "tag": "5"}, "limit": {"cpu": "2"}, "nodeSelector": {"pool": "a"}}
    plain = pods(render({"job": asked, "worker": worker}))
    (main,), (its,) = (plain[f"Job/digits-{role}"]["spec"]["containers"] for role in ("worker", "evaluator"))
    assert its["image"] == "mine:5"
    assert its["resources"] == main["resources"]
    assert plain["Job/digits-evaluator"]["spec"]["nodeSelector"] == {"pool": "a"}
    own = {"image": {"tag": "6"}, "limit": {"memory": "3Gi"}, "env": [{"name": "A", "value": "b"}]}
    changed = pods(render({"job": asked, "worker": worker, "evaluator": own}))
    (its,) = changed["Job/digits-evaluator"]["spec"]["containers"]
    assert its["image"] == "mine:6"
    assert its["resources"]["limits"] == {"cpu": "2", "memory": "3Gi"}
    assert environment(changed["Job/digits-evaluator"])["A"]["value"] == "b"
    assert changed["Job/digits-worker"] == plain["Job/digits-worker"]


def test_requests_are_never_above_limits():
    values = {"worker": {"limit": {"cpu": "100m", "memory": "768Mi"}, "request": {"cpu": 2, "memory": "1G"}}}
    (main,) = job(render(values), "worker")["template"]["spec"]["containers"]
    assert main["resources"] == {
        "limits": {"cpu": "100m", "memory": "768Mi"},
        "requests": {"cpu": "100m", "memory": "768Mi"},
    }


def test_gpus_and_limits_are_in_one_block():
    (main,) = job(objects("everything"), "worker")["template"]["spec"]["containers"]
    assert main["resources"]["limits"]["nvidia.com/gpu"] in (1, "1")
    assert main["resources"]["limits"]["memory"] == "2Gi"
    assert main["resources"]["requests"]["memory"] == "768Mi"
    (main,) = job(objects("default"), "ps")["template"]["spec"]["containers"]
    assert "nvidia.com/gpu" not in main["resources"].get("limits", {})
    assert "cpu" not in main["resources"].get("limits", {})


@pytest.mark.parametrize("role", ["ps", "worker"])
def test_a_role_is_spread_over_nodes_where_that_is_possible(role):
    template = job(objects("default"), role)["template"]
    (spread,) = template["spec"]["topologySpreadConstraints"]
    assert (spread["topologyKey"], spread["whenUnsatisfiable"]) == ("kubernetes.io/hostname", "ScheduleAnyway")
    assert spread["labelSelector"]["matchLabels"] == template["metadata"]["labels"]


def test_what_is_set_for_a_role_reaches_its_pods():
    worker = job(objects("everything"), "worker")["template"]["spec"]
    ps = job(objects("everything"), "ps")["template"]["spec"]
    assert worker["nodeSelector"] == {"pool": "gpu"}
    assert {"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"} in worker["tolerations"]
    assert worker["priorityClassName"] == "batch"
    assert worker["topologySpreadConstraints"][0]["maxSkew"] == 1
    assert "extra" in [volume["name"] for volume in worker["volumes"]]
    assert ps["affinity"]["podAntiAffinity"]
    assert not {"nodeSelector", "priorityClassName"} & set(ps)
    assert worker["imagePullSecrets"] == ps["imagePullSecrets"] == [{"name": "registry"}]


@pytest.mark.parametrize(
    ("values", "worker", "index"),
    [
        ({}, "Job/digits-worker", "batch.kubernetes.io/job-completion-index"),
        ({"format": "tfjob"}, "TFJob/digits/Worker", "training.kubeflow.org/replica-index"),
    ],
)
def test_a_colocated_worker_needs_the_node_of_the_ps_of_its_index(values, worker, index):
    found = pods(render({"job": {"ps_placement": "colocated", "evaluation": {"evaluator": True}}, **values}))
    (term,) = found[worker]["spec"]["affinity"]["podAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]
    assert term["topologyKey"] == "kubernetes.io/hostname"
    assert term["matchLabelKeys"] == [index]
    ps = worker.replace("worker", "ps").replace("Worker", "PS")
    assert term["labelSelector"]["matchLabels"] == found[ps]["metadata"]["labels"]
    assert not [name for name, pod in found.items() if "affinity" in pod["spec"] and name != worker]


def test_what_the_user_wants_of_the_nodes_stays_beside_the_placement():
    affinity = pods(objects("colocated"))["Job/digits-worker"]["spec"]["affinity"]
    user, ours = affinity["podAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]
    assert (user["topologyKey"], ours["topologyKey"]) == ("zone", "kubernetes.io/hostname")
    assert affinity["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]["nodeSelectorTerms"]


@pytest.mark.parametrize("values", [{}, {"job": {"ps_placement": "own"}}])
def test_a_ps_of_its_own_binds_no_worker(values):
    assert not any("affinity" in pod["spec"] for pod in pods(render(values)).values())
