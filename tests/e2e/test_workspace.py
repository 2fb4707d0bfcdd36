"""A workspace for others: limits, a quota, and a role with which somebody who is no administrator trains."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml
from cluster import STATE, tfleet
from namespaces import Namespace
from releases import Release

pytestmark = [pytest.mark.tf, pytest.mark.processes]


def test_role_is_enough_to_train_within_limits_and_quota(images: None, namespace: Namespace, tmp_path: Path) -> None:
    namespace.kubectl("create", "serviceaccount", "student").good()
    student = {"kind": "ServiceAccount", "name": "student", "namespace": namespace.name}
    workspace = {"limitRange": True, "quota": True, "role": True, "subjects": [student]}
    values = tmp_path / "values.json"
    values.write_text(json.dumps({"workspace": workspace}))
    # The administrator's own job brings the workspace; it is over soon.
    team = Release(namespace, "team")
    team.install("-f", str(values), "job.steps=50", "worker.number=1", "ps.number=1")

    config = yaml.safe_load((STATE / "kubeconfig").read_text())
    token = namespace.kubectl("create", "token", "student").good().out.strip()
    config["users"][0]["user"] = {"token": token}
    config["contexts"][0]["context"]["namespace"] = namespace.name
    own = tmp_path / "kubeconfig"
    own.write_text(yaml.safe_dump(config))

    command = ("train", "mnist", "--on", "kubernetes", "--steps", "100", "--ps", "1")
    trained = tfleet(*command, "--workers", "1", "--name", "mine", KUBECONFIG=str(own)).good()
    assert "export/1" in trained.out, trained.out
    pod = Release(namespace, "mine").pods("worker")[0]
    assert pod["spec"]["containers"][0]["resources"]["limits"]["cpu"] == "600m"

    refused = tfleet(*command, "--workers", "30", "--name", "many", KUBECONFIG=str(own))
    assert refused.code == 2, refused.out + refused.err
    assert "quota" in refused.err
