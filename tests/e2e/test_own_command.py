"""Scripts for TensorFlow's own runtime in place of tfleet's replicas: by host lists, and by TF_CONFIG."""

from __future__ import annotations

import json

import pytest
from namespaces import Namespace
from releases import Release
from tasks_on_claim import SCRIPTS

pytestmark = [pytest.mark.tf, pytest.mark.processes]
SAID = {"graph_hosts.py": ("200", "of 2 ended with loss"), "graph_tf_config.py": ("50", "saw 100 of 100")}
"""Each script, its argument, and what a worker says at its end."""
MOUNT = {"name": "script", "mountPath": "/script"}


def own(script: str, argument: str) -> str:
    """Values for a script in both roles; its ps never ends, so the finisher ends it."""
    command = ["python", f"/script/{script}", argument]
    worker = {"number": 2, "command": command}
    server = {
        "number": 2,
        "command": command,
        "image": {"repository": "tfleet-worker"},
        "limit": {"memory": "2Gi"},
    }
    values = {
        "worker": worker,
        "ps": server,
        "volumes": [{"name": "script", "configMap": {"name": "scripts"}}],
        "volumeMounts": [MOUNT],
        "finisher": {"enabled": True},
        "storage": {"kind": "emptyDir"},
    }
    return json.dumps(values)


@pytest.fixture(scope="module")
def releases(images: None, shared_namespace: Namespace, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Release]:
    """Both scripts at the same time: their ps take all of the 30 s that Kubernetes gives a pod that is to end."""
    files = [f"--from-file={SCRIPTS / script}" for script in SAID]
    shared_namespace.kubectl("create", "configmap", "scripts", *files).good()
    installed = {}
    for script, (argument, _) in SAID.items():
        values = tmp_path_factory.mktemp("values") / "values.json"
        values.write_text(own(script, argument))
        name = script.removesuffix(".py").replace("_", "-")
        installed[script] = Release(shared_namespace, name).install("-f", str(values))
    return installed


@pytest.mark.parametrize("script", list(SAID))
def test_script_trains_and_the_finisher_ends_its_ps(releases: dict[str, Release], script: str) -> None:
    release = releases[script]
    jobs = release.wait_over()
    assert set(jobs) == {"ps", "worker", "finisher"}
    assert all("Complete" in conditions for conditions in jobs.values()), jobs
    logs = [release.namespace.kubectl("logs", pod["metadata"]["name"]).good().out for pod in release.pods("worker")]
    assert len(logs) == 2
    assert any(SAID[script][1] in log for log in logs), logs
    assert not release.namespace.items("pvc"), "a script of one's own needs no storage"
