"""charts/tfleet-nfs on the real cluster, with a client in user space: the kernel of test machines has none."""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable

import pytest
from cluster import ROOT, Cluster, run
from namespaces import Namespace
from nfs_client import Nfs, library
from waiting import wait_until

CHART = ROOT / "charts" / "tfleet-nfs"
IMAGE = "docker.io/library/tfleet-nfs:0.1.0"
LEASE = 5


@pytest.fixture(scope="module")
def client() -> None:
    """libnfs, Debian's package libnfs13."""
    try:
        library()
    except OSError:
        if os.environ.get("CI"):
            raise
        pytest.skip("libnfs is not installed: apt-get install libnfs13")


@pytest.fixture(scope="module")
def image(cluster: Cluster) -> None:
    """The server's image on every node."""
    cluster.script("build-image", IMAGE, str(ROOT / "images" / "nfs" / "Dockerfile"), str(ROOT), seconds=900)
    cluster.script("load-image", IMAGE)


def install(namespace: Namespace, release: str, *settings: str) -> None:
    """Installs or upgrades a server, and waits until it is ready."""
    given = [part for setting in (f"leaseSeconds={LEASE}", *settings) for part in ("--set", setting)]
    namespace.helm("upgrade", "--install", release, str(CHART), *given).good()
    wait_until(lambda: ready(namespace, release), f"{release} to be ready")


def ready(namespace: Namespace, release: str) -> bool:
    """Whether the pod of the newest revision answers."""
    (server,) = namespace.items("statefulsets", "-l", f"app.kubernetes.io/instance={release}")
    status = server["status"]
    return (
        status.get("observedGeneration") == server["metadata"]["generation"]
        and status.get("updateRevision") == status.get("currentRevision")
        and status.get("readyReplicas") == 1
    )


def pod(namespace: Namespace, release: str) -> dict[str, str]:
    """Address and uid of the server's pod."""
    (found,) = namespace.items("pods", "-l", f"app.kubernetes.io/instance={release}")
    return {"address": found["status"]["podIP"], "uid": found["metadata"]["uid"]}


def written(mounted: Nfs, path: str, data: bytes) -> None:
    """Writes when the time is over in which old clients may claim what they held."""

    def attempt() -> bool:
        try:
            mounted.write(path, data)
        except OSError as error:
            if "NFS4ERR_GRACE" not in str(error):
                raise
            return False
        return True

    wait_until(attempt, f"{path} to be written")


def test_files_on_a_claim_outlive_the_pod_and_belong_to_who_wrote_them(
    client: None, image: None, make_namespace: Callable[..., Namespace]
) -> None:
    namespace = make_namespace(restricted=False)
    install(namespace, "nfs", "storage.size=1Gi")
    before = pod(namespace, "nfs")
    commit = secrets.token_bytes(300_000)
    with Nfs(before["address"], "/export") as mounted:
        mounted.mkdir("/digits")
        written(mounted, "/digits/commit.new", commit)
        mounted.rename("/digits/commit.new", "/digits/commit")
        assert mounted.read("/digits/commit") == commit
    for stranger in (0, 2000):
        with Nfs(before["address"], "/export", uid=stranger, gid=stranger) as mounted:
            with pytest.raises(OSError, match="NFS4ERR_ACCESS"):
                mounted.write("/mine", b"")
            with pytest.raises(OSError, match="NFS4ERR_ACCESS"):
                mounted.read("/digits/commit")
    owners = namespace.kubectl("exec", "nfs-0", "--", "stat", "-c", "%u:%g", "/data/export/digits/commit").good().out
    assert owners.strip() == "1000:1000"

    namespace.kubectl("delete", "pod", "nfs-0").good()
    wait_until(lambda: ready(namespace, "nfs"), "the server to be ready again")
    after = pod(namespace, "nfs")
    assert after["uid"] != before["uid"]
    with Nfs(after["address"], "/export") as mounted:
        # Reading waits for the same reason as writing: an open file is what a client may claim again.
        written(mounted, "/digits/next.new", b"next")
        assert mounted.read("/digits/commit") == commit
        mounted.rename("/digits/next.new", "/digits/commit")
        assert mounted.read("/digits/commit") == b"next"

    namespace.uninstall()
    assert namespace.left("endpoints") == ["persistentvolumeclaim/nfs"]


def test_only_named_clients_mount(client: None, image: None, make_namespace: Callable[..., Namespace]) -> None:
    namespace = make_namespace(restricted=False)
    install(namespace, "shut", "storage.kind=emptyDir", "export.clients={203.0.113.0/24}", "export.squash=all_squash")
    with pytest.raises(OSError, match="NFS4ERR_NOENT"):
        Nfs(pod(namespace, "shut")["address"], "/export")
    install(namespace, "shut", "storage.kind=emptyDir", "export.clients={198.18.0.0/16}", "export.squash=all_squash")
    with Nfs(pod(namespace, "shut")["address"], "/export", uid=2000, gid=2000) as mounted:
        written(mounted, "/anybody", b"becomes the user")
    owner = namespace.kubectl("exec", "shut-0", "--", "stat", "-c", "%u", "/data/export/anybody").good().out
    assert owner.strip() == "1000"
    namespace.uninstall()


def test_a_baseline_namespace_refuses_the_server(image: None, make_namespace: Callable[..., Namespace]) -> None:
    namespace = make_namespace(restricted=False)
    label = "pod-security.kubernetes.io/enforce=baseline"
    run("kubectl", "label", "namespace", namespace.name, label).good()
    namespace.helm("install", "nfs", str(CHART), "--set", "storage.kind=emptyDir").good()

    def refused() -> list[str]:
        events = namespace.items("events", "--field-selector", "reason=FailedCreate")
        return [event["message"] for event in events if "DAC_READ_SEARCH" in event["message"]]

    wait_until(refused, "the event that says why there is no pod")
    assert not namespace.items("pods")
    namespace.uninstall()
