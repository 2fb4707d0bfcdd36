"""Storage of other kinds: a directory of the nodes, fast local scratch, a claim that exists, a task on the storage."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from cluster import STATE
from namespaces import Namespace
from releases import Release
from tasks_on_claim import SCRIPTS

pytestmark = [pytest.mark.tf, pytest.mark.processes]
CLAIM = """
apiVersion: v1
kind: PersistentVolumeClaim
metadata: {name: results}
spec: {accessModes: [ReadWriteMany], resources: {requests: {storage: 1Gi}}}
"""


@pytest.fixture
def directory() -> Iterator[Path]:
    """A directory that all nodes see, of the uid that the pods have."""
    path = STATE / "volumes" / "e2e-host-path"
    path.mkdir(mode=0o755)
    shutil.chown(path, 1000, 1000)
    yield path
    shutil.rmtree(path)


def test_directory_of_the_nodes_with_scratch(
    images: None, directory: Path, make_namespace: Callable[..., Namespace]
) -> None:
    namespace = make_namespace(restricted=False)
    release = Release(namespace, "on-host").install(
        "job.steps=200", "worker.number=1", "ps.number=1",
        "storage.kind=hostPath", f"storage.hostPath.path={directory}", "scratch.enabled=true", "scratch.sizeLimit=1Gi",
    )  # fmt: skip
    jobs = release.wait_over()
    assert "Complete" in jobs["worker"], jobs
    run = directory / "on-host"
    assert (run / "export" / "1" / "model.keras").is_file()
    assert run.stat().st_uid == 1000
    pod = release.pods("worker")[0]
    mounts = {mount["mountPath"] for mount in pod["spec"]["containers"][0]["volumeMounts"]}
    assert "/mnt/scratch" in mounts
    release.uninstall()


def test_storage_that_cannot_be_written_is_said_in_a_sentence(
    images: None, directory: Path, make_namespace: Callable[..., Namespace]
) -> None:
    shutil.chown(directory, 0, 0)
    namespace = make_namespace(restricted=False)
    release = Release(namespace, "read-only").install(
        "worker.number=1", "ps.number=1", "storage.kind=hostPath", f"storage.hostPath.path={directory}"
    )
    jobs = release.wait_over()
    assert "Failed" in jobs["worker"], jobs
    said = [end["reason"] for end in release.ends("worker") if end["code"] == 2]
    assert said
    assert all("1000" in reason for reason in said), said


def test_task_on_an_existing_claim(images: None, namespace: Namespace) -> None:
    namespace.apply(CLAIM)
    # As a user would: put the file on the storage first, here straight into the directory behind the claim.
    volume = Release(namespace, "results").volume
    shutil.copy(SCRIPTS / "paced_digits.py", volume / "my_task.py")
    release = Release(namespace, "mine").install(
        "job.task=/mnt/tfleet/my_task.py:task", "job.steps=60", "--set-string=job.params.pace=0.01",
        "storage.kind=claim", "storage.claim=results",
    )  # fmt: skip
    jobs = release.wait_over()
    assert "Complete" in jobs["worker"], jobs
    assert (volume / "mine" / "export" / "1" / "model.keras").is_file()
