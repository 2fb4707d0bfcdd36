"""The chart tfleet-nfs by itself: what it renders and what it refuses. tests/e2e/test_nfs.py runs it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml
from helm_program import HELM, needs_helm
from nfs_readme import CHART, readme, rows

GOLDEN = Path(__file__).parent / "golden"

EVERYTHING: dict[str, Any] = {
    "nameOverride": "files",
    "image": {"repository": "registry.example/tfleet-nfs", "tag": "1", "pullPolicy": "Always"},
    "imagePullSecrets": [{"name": "registry"}],
    "storage": {"kind": "hostPath", "hostPath": "/srv/tfleet"},
    "user": {"uid": 4000, "gid": 5000},
    "export": {"path": "/shared/tfleet", "clients": ["10.0.0.0/8", "192.168.1.7"], "squash": "all_squash"},
    "leaseSeconds": 10,
    "service": {"type": "LoadBalancer", "clusterIP": "10.96.0.77", "annotations": {"example.com/internal": "true"}},
    "limit": {"cpu": "1", "memory": "1Gi"},
    "request": {"cpu": "200m", "memory": ""},
    "seccomp": "RuntimeDefault",
    "nodeSelector": {"disk": "large"},
    "tolerations": [{"key": "storage", "operator": "Exists"}],
    "affinity": {"nodeAffinity": {}},
    "priorityClassName": "high",
}
CASES: dict[str, dict[str, Any]] = {
    "default": {},
    "claim": {"storage": {"kind": "claim", "claim": "there", "className": ""}},
    "empty-dir": {"storage": {"kind": "emptyDir"}},
    "everything": EVERYTHING,
}


def helm(*arguments: str, values: dict[str, Any] | None = None) -> subprocess.CompletedProcess[str]:
    command = [str(HELM), *arguments, "--values", "-"]
    return subprocess.run(command, input=json.dumps(values or {}), capture_output=True, text=True, timeout=60)


def template(values: dict[str, Any], release: str = "nfs", chart: Path = CHART) -> subprocess.CompletedProcess[str]:
    where = ("--namespace", "storage", "--kube-version", "1.34.0")
    return helm("template", release, str(chart), *where, values=values)


def objects(values: dict[str, Any]) -> list[dict[str, Any]]:
    done = template(values)
    assert done.returncode == 0, done.stderr
    return [found for found in yaml.safe_load_all(done.stdout) if found]


def one(found: list[dict[str, Any]], kind: str) -> dict[str, Any]:
    (only,) = [each for each in found if each["kind"] == kind]
    return only


@needs_helm
@pytest.mark.parametrize("case", CASES)
def test_the_manifests_are_the_golden_ones(case):
    path, done = GOLDEN / f"{case}.yaml", template(CASES[case])
    assert done.returncode == 0, done.stderr
    if os.environ.get("TFLEET_UPDATE_GOLDEN"):
        path.write_text(done.stdout, encoding="utf-8")
    assert done.stdout == path.read_text(encoding="utf-8")


@needs_helm
@pytest.mark.parametrize("case", CASES)
def test_lint_finds_nothing_and_every_object_fits_the_schema_of_kubernetes(case):
    done = helm("lint", "--strict", "--kube-version", "1.34.0", str(CHART), values=CASES[case])
    assert done.returncode == 0, done.stdout + done.stderr
    assert "[WARNING]" not in done.stdout
    assert "[INFO]" not in done.stdout
    for found in objects(CASES[case]):
        assert kubernetes_validate.validate(found, "1.34", strict=True) == "1.34"


@needs_helm
def test_the_server_has_the_one_capability_that_baseline_refuses_and_no_other_such():
    pod = one(objects({}), "StatefulSet")["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    context = container["securityContext"]
    baseline = {"CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID", "SETGID", "SETUID"}
    assert set(context["capabilities"]["add"]) - baseline == {"DAC_READ_SEARCH"}
    assert context["capabilities"]["drop"] == ["ALL"]
    assert context["readOnlyRootFilesystem"] is True
    assert context["allowPrivilegeEscalation"] is False
    assert pod["automountServiceAccountToken"] is False
    mounted = {mount["mountPath"] for mount in container["volumeMounts"]}
    assert mounted == {"/data", "/etc/tfleet-nfs", "/run", "/tmp"}


@needs_helm
def test_a_changed_configuration_makes_a_new_pod():
    before, after = (
        one(objects(values), "StatefulSet")["spec"]["template"]["metadata"]["annotations"]
        for values in ({}, {"export": {"clients": ["10.0.0.0/8"]}})
    )
    assert before != after


@needs_helm
def test_only_the_clients_that_are_named_may_mount():
    config = one(objects({"export": {"clients": ["10.0.0.0/8"]}}), "ConfigMap")["data"]["ganesha.conf"]
    before, after = config.split("CLIENT {", 1)
    assert "Access_Type = None;" in before
    assert "Clients = 10.0.0.0/8;" in after
    assert "Access_Type = RW;" in one(objects({}), "ConfigMap")["data"]["ganesha.conf"]


@needs_helm
def test_notes_give_the_values_for_the_chart_tfleet(tmp_path):
    # `helm template` leaves the notes out, so a copy of the chart puts them into an object.
    copy = shutil.copytree(CHART, tmp_path / "chart")
    held = 'data: {{ include "tfleet-nfs/templates/NOTES.txt" . | toJson }}\n'
    (copy / "templates" / "held.yaml").write_text(f"apiVersion: v1\nkind: Held\n{held}", encoding="utf-8")
    done = template({"export": {"path": "/shared"}, "user": {"uid": 4000}}, chart=copy)
    assert done.returncode == 0, done.stderr
    (notes,) = [found["data"] for found in yaml.safe_load_all(done.stdout) if found["kind"] == "Held"]
    for text in (
        "kubectl -n storage get service nfs -o jsonpath='{.spec.clusterIP}'",
        "--set storage.kind=nfs --set storage.nfs.server=$SERVER --set storage.nfs.path=/shared",
        "--set user.uid=4000 --set user.gid=1000",
    ):
        assert text in notes


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"unknown": 1}, "unknown"),
    ({"storage": {"kind": "nfs"}}, "storage"),
    ({"storage": {"size": "big"}}, "storage"),
    ({"storage": {"size": ""}}, "storage"),
    ({"storage": {"kind": "claim"}}, "set storage.claim"),
    ({"storage": {"kind": "hostPath"}}, "set storage.hostPath"),
    ({"storage": {"claim": "there"}}, "storage.kind is newClaim"),
    ({"storage": {"hostPath": "/srv"}}, "storage.kind is newClaim"),
    ({"storage": {"kind": "hostPath", "hostPath": "srv"}}, "hostPath"),
    ({"user": {"uid": 0}}, "uid"),
    ({"export": {"path": "/"}}, "path"),
    ({"export": {"path": "/a; b"}}, "path"),
    ({"export": {"clients": ["nodes.example"]}}, "clients"),
    ({"export": {"squash": "none"}}, "squash"),
    ({"leaseSeconds": 0}, "leaseSeconds"),
    ({"limit": {"memory": "1 GB"}}, "memory"),
    ({"seccomp": "none"}, "seccomp"),
    ({"image": {"pullPolicy": "Sometimes"}}, "pullPolicy"),
]


@needs_helm
@pytest.mark.parametrize(("values", "said"), WRONG, ids=[json.dumps(values) for values, _ in WRONG])
def test_a_wrong_value_is_refused_by_name(values, said):
    done = template(values)
    assert done.returncode != 0
    assert said in done.stderr


@needs_helm
@pytest.mark.parametrize("release", ["2024run", "a.b", "x" * 53])
def test_a_name_that_no_service_can_have_is_refused(release):
    done = template({}, release)
    assert done.returncode != 0
    assert release in done.stderr


def test_every_value_is_explained_and_the_readme_is_current():
    text = (CHART / "values.yaml").read_text(encoding="utf-8")
    unexplained = [name for name, _, comment in rows(yaml.compose(text), text.splitlines()) if not comment]
    assert not unexplained
    assert (CHART / "README.md").read_text(encoding="utf-8") == readme()


def test_the_schema_knows_every_value_and_no_other():
    schema = json.loads((CHART / "values.schema.json").read_text(encoding="utf-8"))
    values = yaml.safe_load((CHART / "values.yaml").read_text(encoding="utf-8"))
    assert set(schema["properties"]) == {*values, "global"}
    for name, section in values.items():
        part = schema["properties"][name]
        part = schema["definitions"][part["$ref"].rpartition("/")[2]] if "$ref" in part else part
        if isinstance(section, dict) and section:
            assert part["additionalProperties"] is False
            assert set(part["properties"]) == set(section)
