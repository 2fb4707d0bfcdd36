"""Scripts for TensorFlow's own runtime in place of tfleet's replicas: by host lists, and by TF_CONFIG."""

from __future__ import annotations

import json

import pytest
from namespaces import Namespace
from releases import Release
from tasks_on_claim import SCRIPTS

pytestmark = [pytest.mark.tf, pytest.mark.processes]
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
    }
    return json.dumps(values)


@pytest.fixture(scope="module")
def scripts(images: None, shared_namespace: Namespace) -> Namespace:
    files = [f"--from-file={SCRIPTS / name}" for name in ("graph_hosts.py", "graph_tf_config.py")]
    shared_namespace.kubectl("create", "configmap", "scripts", *files).good()
    return shared_namespace


@pytest.mark.parametrize(
    ("script", "argument", "said"),
    [("graph_hosts.py", "200", "of 2 ended with loss"), ("graph_tf_config.py", "50", "saw 100 of 100")],
)
def test_script_trains_and_the_finisher_ends_its_ps(
    scripts: Namespace, tmp_path_factory: pytest.TempPathFactory, script: str, argument: str, said: str
) -> None:
    values = tmp_path_factory.mktemp("values") / "values.json"
    values.write_text(own(script, argument))
    release = Release(scripts, script.removesuffix(".py").replace("_", "-")).install("-f", str(values))
    jobs = release.wait_over()
    assert "Complete" in jobs["worker"]
    assert "Complete" in jobs["ps"]
    logs = [scripts.kubectl("logs", pod["metadata"]["name"]).good().out for pod in release.pods("worker")]
    assert len(logs) == 2
    assert any(said in log for log in logs), logs
    claims = release.namespace.items("pvc", "-l", release.select())
    assert not claims
    release.uninstall()
