"""What cannot work is refused in one sentence: by the command before anything is applied, or by the job at once."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from cluster import CHART, environment, tfleet
from finished import Finished
from namespaces import Namespace
from releases import Release
from waiting import wait_until

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
        ("", ("--set", HOST_PATH), ("Pod Security", "hostPath")),
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


WAITS = {
    "volume": (("storage.className=nowhere",), "volume claim"),
    "image": (("worker.image.tag=nowhere",), "tfleet-worker:nowhere"),
    "memory": (("worker.request.memory=900Gi", "worker.limit.memory=900Gi"), "more memory than any node has left"),
}


def test_the_command_says_what_pods_wait_for(
    images: None, make_namespace: Callable[[], Namespace], tmp_path: Path
) -> None:
    # Each waits for ever; all at once, as each takes the cluster some seconds to say why.
    started = []
    for name, (values, words) in WAITS.items():
        place = make_namespace()
        flags = [word for value in values for word in ("--set", value)]
        command = ["train", "mnist", "--on", "kubernetes", "--namespace", place.name, "--name", name, "--rm", *flags]
        said = tmp_path / name
        with said.open("w") as file:
            process = subprocess.Popen(
                [sys.executable, "-m", "tfleet", *command],
                stdin=subprocess.DEVNULL, stdout=file, stderr=file, env=environment(),
            )  # fmt: skip
        started.append((place, name, words, said, process))
    try:
        for _, _, words, said, process in started:
            wait_until(lambda said=said, words=words: words in said.read_text(), words)
            process.send_signal(signal.SIGINT)
        for place, name, _, said, process in started:
            assert process.wait(timeout=120) == 130, said.read_text()
            wait_until(
                lambda place=place, name=name: place.left() == [f"persistentvolumeclaim/{name}"],
                f"{name} to be uninstalled",
            )
    finally:
        for *_, process in started:
            process.kill()


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
    manifests = shared_namespace.helm("template", "digits", str(CHART), "--skip-tests", *files).good().out
    taken = shared_namespace.kubectl("apply", "--dry-run=server", "-f", "-", text=manifests).good()
    assert "Warning" not in taken.err, taken.err
    assert "job.batch/digits-worker" in taken.out
