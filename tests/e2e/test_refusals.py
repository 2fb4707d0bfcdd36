"""What cannot work is refused in one sentence: by the command before anything is applied, or by the job at once."""

from __future__ import annotations

from pathlib import Path

import pytest
from cluster import CHART, Finished, tfleet
from namespaces import Namespace
from releases import Release

pytestmark = pytest.mark.processes
QUOTA = "{apiVersion: v1, kind: ResourceQuota, metadata: {name: small}, spec: {hard: {pods: '3'}}}"
LIMITS = """
apiVersion: v1
kind: LimitRange
metadata: {name: small}
spec: {limits: [{type: Container, max: {memory: 1Gi}}]}
"""
HOST_PATH = "worker.volumes[0].name=etc,worker.volumes[0].hostPath.path=/etc"


def train(namespace: Namespace, *arguments: str) -> Finished:
    return tfleet("train", "mnist", "--on", "kubernetes", "--namespace", namespace.name, *arguments)


def one_sentence(refused: Finished, *words: str) -> None:
    said = refused.err.strip()
    assert refused.code == 2, (refused.code, said)
    assert len(said.splitlines()) == 1, said
    for word in words:
        assert word in said, said
    assert "Traceback" not in said


@pytest.mark.parametrize(
    ("manifest", "arguments", "words"),
    [
        (QUOTA, (), ("quota", "pods")),
        (LIMITS, (), ("memory", "1Gi")),
        ("", ("--set", HOST_PATH), ("PodSecurity", "hostPath")),
    ],
    ids=["quota", "limits", "pod security"],
)
def test_the_command_refuses_before_it_installs(
    namespace: Namespace, manifest: str, arguments: tuple[str, ...], words: tuple[str, ...]
) -> None:
    if manifest:
        namespace.apply(manifest)
    before = namespace.left()
    one_sentence(train(namespace, *arguments), *words)
    assert namespace.left() == before
    assert not namespace.helm("list", "--all", "--short").good().out


def test_the_command_says_which_class_is_missing(namespace: Namespace) -> None:
    one_sentence(train(namespace, "--set", "storage.className=nowhere"), "nowhere")
    assert namespace.left() == []


def test_unknown_task_fails_the_job_at_once(images: None, namespace: Namespace) -> None:
    release = Release(namespace, "wrong").install("job.task=nowhere.at_all:task")
    jobs = release.wait_over()
    assert "Failed" in jobs["worker"]
    assert jobs["ps"] & {"Complete", "Failed"}
    ends = release.ends("worker")
    refused = [end for end in ends if end["code"] == 2]
    assert refused, ends
    assert all("nowhere.at_all" in end["reason"] for end in refused), ends
    job = namespace.kubectl("get", "job", "wrong-worker", "-o", "json").good().json()
    failed = next(c for c in job["status"]["conditions"] if c["type"] == "Failed")
    assert failed["reason"] == "PodFailurePolicy"
    assert job["status"].get("failed", 0) <= 2, "exit 2 is never retried"


PRESETS = sorted((CHART / "ci").glob("*.yaml"))


def test_there_are_presets() -> None:
    assert {path.stem.removeprefix("values-") for path in PRESETS} >= {"kind", "minikube", "gke", "azure", "openshift"}


@pytest.mark.parametrize("preset", [None, *PRESETS], ids=lambda path: path.stem if path else "defaults")
def test_the_api_server_takes_every_object(shared_namespace: Namespace, preset: Path | None) -> None:
    files = ["-f", str(preset)] if preset else []
    manifests = shared_namespace.helm("template", "digits", str(CHART), *files).good().out
    taken = shared_namespace.kubectl("apply", "--dry-run=server", "-f", "-", text=manifests).good()
    assert "Warning" not in taken.err, taken.err
    assert "job.batch/digits-worker" in taken.out
