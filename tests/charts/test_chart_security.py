"""What the pods may do, and where secrets are."""

from __future__ import annotations

import base64

import pytest
from chart_cases import CASES, objects
from chart_renders import _template, attempt, one, pods
from chart_renders import objects as render
from helm_program import needs_helm
from pod_security import violations

pytestmark = needs_helm


@pytest.mark.parametrize("case", CASES)
def test_a_restricted_namespace_admits_every_pod(case):
    found = pods(objects(case))
    assert found
    assert {name: violations(pod) for name, pod in found.items()} == {name: [] for name in found}


@pytest.mark.parametrize("case", CASES)
def test_no_pod_has_an_account_token_but_the_finisher(case):
    for name, pod in pods(objects(case)).items():
        assert pod["spec"]["automountServiceAccountToken"] is name.endswith("-finisher"), name
        assert pod["spec"]["enableServiceLinks"] is False, name


@pytest.mark.parametrize("case", CASES)
def test_containers_write_to_volumes_only(case):
    for name, pod in pods(objects(case)).items():
        for container in pod["spec"]["containers"]:
            assert container["securityContext"]["readOnlyRootFilesystem"] is True, name


@pytest.mark.parametrize("case", CASES)
def test_what_is_secret_is_in_secrets_only(case):
    found = objects(case)
    kept = [value for each in found if each["kind"] == "Secret" for value in each["data"].values()]
    assert len(kept) == (3 if case == "azure-original" else 1)
    others = str([each for each in found if each["kind"] != "Secret"])
    for value in kept:
        assert value not in others
        assert base64.b64decode(value).decode() not in others


@pytest.mark.parametrize("case", CASES)
def test_no_environment_is_read_from_a_secret(case):
    for pod in pods(objects(case)).values():
        for container in pod["spec"]["containers"]:
            assert not any("secretRef" in source for source in container.get("envFrom", []))
            assert not any("secretKeyRef" in entry.get("valueFrom", {}) for entry in container.get("env", []))


def test_the_token_is_random():
    def token() -> str:
        found = objects("default")
        secret = one(found, "Secret", "digits-token")
        return str({**secret.get("data", {}), **secret.get("stringData", {})}["token"])

    first = token()
    _template.cache_clear()
    assert attempt({}, "digits").returncode == 0
    assert token() != first


def test_a_token_of_ones_own_is_used_and_none_is_made():
    found = render({"token": {"existingSecret": "mine"}})
    assert not [each for each in found if each["kind"] == "Secret"]
    worker = one(found, "Job", "digits-worker")["spec"]["template"]["spec"]
    assert "mine" in [volume["secret"]["secretName"] for volume in worker["volumes"] if "secret" in volume]


def test_the_accounts_rights_are_the_finishers_and_the_submitters_only():
    assert not [each for each in objects("default") if each["kind"] in ("Role", "RoleBinding")]
    role = one(objects("finisher"), "Role", "digits-finisher")
    rules = [(rule["apiGroups"], rule["resources"], rule["resourceNames"], rule["verbs"]) for rule in role["rules"]]
    for groups, resources, _, verbs in rules:
        assert groups == ["batch"]
        assert resources == ["jobs"]
        assert set(verbs) <= {"get", "patch"}
    assert {name for _, _, named, verbs in rules if "get" in verbs for name in named} == {"digits-ps", "digits-worker"}
    assert {name for _, _, named, verbs in rules if "patch" in verbs for name in named} == {"digits-ps"}
    assert one(objects("workspace"), "Role", "digits-submitter")["rules"]


@pytest.mark.parametrize("case", CASES)
def test_no_rights_over_the_cluster(case):
    assert not [each for each in objects(case) if each["kind"].startswith("Cluster")]


def test_only_the_jobs_pods_reach_its_data_ports():
    found = objects("default")
    policy = one(found, "NetworkPolicy", "digits")["spec"]
    assert "Ingress" in policy["policyTypes"]
    pod = one(found, "Job", "digits-worker")["spec"]["template"]["metadata"]["labels"]
    assert policy["podSelector"]["matchLabels"].items() <= pod.items()
    open_to_all = [rule for rule in policy["ingress"] if not rule.get("from")]
    data = {2222, "ps", "worker", "data"}
    for rule in open_to_all:
        assert rule.get("ports"), "a rule without ports and peers opens every port to everybody"
        assert not data & {port["port"] for port in rule["ports"]}
    among = [
        peer
        for rule in policy["ingress"]
        if not rule.get("ports") or data & {port["port"] for port in rule["ports"]}
        for peer in rule["from"]
    ]
    assert among
    for peer in among:
        assert peer["podSelector"]["matchLabels"]["app.kubernetes.io/instance"] == "digits"
        (roles,) = peer["podSelector"]["matchExpressions"]
        assert roles == {
            "key": "app.kubernetes.io/component",
            "operator": "In",
            "values": ["ps", "worker", "evaluator"],
        }
        assert "namespaceSelector" not in peer
        assert "ipBlock" not in peer


def test_who_may_ask_for_the_status():
    (rule,) = open_rules({})
    assert rule == {"ports": [{"port": 8080, "protocol": "TCP"}]}
    api_server = {"ipBlock": {"cidr": "10.0.0.0/28"}}
    (rule,) = open_rules({"networkPolicy": {"statusFrom": [api_server]}})
    assert api_server in rule["from"]
    tester = {"app.kubernetes.io/name": "tfleet", "app.kubernetes.io/component": "test"}
    tester["app.kubernetes.io/instance"] = "digits"
    assert {"podSelector": {"matchLabels": tester}} in rule["from"], "helm test asks from within"
    assert open_rules({"job": {"status_port": 0}}) == []


def open_rules(values):
    """What the policy lets in beside the job's own pods."""
    _, *others = one(render(values), "NetworkPolicy", "digits")["spec"]["ingress"]
    return others


def test_tensorboard_and_serving_can_be_reached():
    values = {"tensorboard": {"enabled": True}, "serving": {"enabled": True}}
    ports = [sorted(port["port"] for port in rule["ports"]) for rule in open_rules(values)]
    assert ports == [[8080], [6006], [8500, 8501]]


def test_the_network_policy_can_be_left_out():
    assert not [each for each in render({"networkPolicy": {"enabled": False}}) if each["kind"] == "NetworkPolicy"]
