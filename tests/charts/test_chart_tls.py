"""TLS between pods: the Secret of all, where it is mounted, and what cert-manager is asked for."""

from __future__ import annotations

import pytest
import yaml
from chart_cases import CASES, objects
from chart_renders import objects as render
from chart_renders import one, pods
from helm_program import needs_helm

from tfleet.spec.job import TLS_FILES, JobSpec

pytestmark = needs_helm

MOUNT = {"name": "tfleet-tls", "mountPath": "/etc/tfleet/tls", "readOnly": True}
FILES = ["tls.crt", "tls.key", "ca.crt"]


@pytest.mark.parametrize(("case", "secret"), [("tls", "certificates"), ("cert-manager", "digits-tls")])
def test_every_replica_has_the_certificate_and_nobody_else(case, secret):
    roles = ("-ps", "-worker", "-evaluator")
    found = {name: pod for name, pod in pods(objects(case)).items() if name.endswith(roles)}
    assert len(found) == (3 if case == "tls" else 2)
    for name, pod in found.items():
        (container,) = pod["spec"]["containers"]
        assert MOUNT in container["volumeMounts"], name
        (volume,) = [volume for volume in pod["spec"]["volumes"] if volume["name"] == "tfleet-tls"]
        assert volume["secret"]["secretName"] == secret
        assert [item["path"] for item in volume["secret"]["items"]] == FILES
    everything = {"tensorboard": {"enabled": True}, "serving": {"enabled": True}, "tls": {"secretName": "x"}}
    for name, pod in pods(render(everything)).items():
        mounted = any(volume["name"] == "tfleet-tls" for volume in pod["spec"]["volumes"])
        assert mounted == name.endswith(("-ps", "-worker")), name


@pytest.mark.parametrize(("case", "name"), [("tls", "digits"), ("cert-manager", "training.example")])
def test_the_job_file_names_the_mounted_files_and_the_name_in_the_certificate(case, name):
    spec = JobSpec.parse(yaml.safe_load(one(objects(case), "ConfigMap", "digits")["data"]["job.yaml"]))
    mounted = {f"/etc/tfleet/tls/{file}" for file in FILES}
    assert {getattr(spec, field) for field in TLS_FILES} == mounted
    assert spec.tls_server_name == name


def test_cert_manager_is_asked_for_a_certificate_that_does_for_both_sides():
    certificate = one(objects("cert-manager"), "Certificate", "digits-tls")
    assert certificate["apiVersion"] == "cert-manager.io/v1"
    spec = certificate["spec"]
    assert spec["secretName"] == "digits-tls"
    assert spec["dnsNames"] == ["training.example", "digits", "digits.work", "digits.work.svc"]
    assert {"server auth", "client auth"} <= set(spec["usages"])
    assert spec["issuerRef"] == {"name": "company", "kind": "ClusterIssuer", "group": "cert-manager.io"}


def test_the_secret_of_cert_manager_may_have_another_name():
    values = {"tls": {"secretName": "mine", "certManager": {"enabled": True, "issuerRef": {"name": "company"}}}}
    found = render(values)
    assert one(found, "Certificate", "digits-tls")["spec"]["secretName"] == "mine"
    assert one(found, "Certificate", "digits-tls")["spec"]["dnsNames"] == ["digits", "digits.work", "digits.work.svc"]


@pytest.mark.parametrize("case", [case for case in CASES if case not in ("tls", "cert-manager")])
def test_without_the_values_there_is_no_word_of_it(case):
    assert "tls" not in str([each for each in objects(case) if each["kind"] != "Secret"])
