"""All pods of a job are deleted at once, the API server dies while two jobs train: every sample counts all the same."""

from __future__ import annotations

import json

import pytest
from cluster import Cluster
from namespaces import Namespace
from releases import Release
from tasks_on_claim import COUNTED, ends_with_every_sample_counted_once
from waiting import wait_until

pytestmark = [pytest.mark.tf, pytest.mark.processes]
Pair = tuple[Release, Release]


@pytest.fixture(scope="module")
def pair(images: None, shared_namespace: Namespace) -> Pair:
    """Two jobs that train side by side for a minute; the first will lose all its pods."""
    releases = Release(shared_namespace, "all-deleted"), Release(shared_namespace, "left-alone")
    for release in releases:
        release.install(
            *COUNTED,
            "job.checkpoint.every_seconds=600",
            "terminationGracePeriodSeconds=40",
        )
    for release in releases:
        release.wait_for_step(60)
    return releases


def test_pods_that_are_all_deleted_come_back_to_the_commit_that_they_left(pair: Pair) -> None:
    release = pair[0]
    before, pods = release.status(), {pod["metadata"]["uid"] for pod in release.pods(running=True)}
    assert len(pods) == 4
    release.namespace.kubectl("delete", "pods", "-l", release.select(), "--wait=false").good()
    status = wait_until(
        lambda: (
            (now := release.status()).get("generation", 0) > before["generation"] and now["phase"] == "training" and now
        ),
        "all pods to be back",
    )
    assert not pods & {pod["metadata"]["uid"] for pod in release.pods(running=True)}
    # Commits come each ten minutes: the one that it went on from was made for the pods that left.
    assert status["last_commit"]["step"] >= before["step"]
    release.wait_for_step(status["step"] + 20)


def test_jobs_go_on_while_the_api_server_is_away(pair: Pair, cluster: Cluster) -> None:
    # The other job may be at its end by now: it ends by itself all the same.
    folder, before = pair[0].run_dir, pair[0].final_status()["step"]
    start = cluster.crash_api_server()
    try:
        wait_until(lambda: json.loads((folder / "status.json").read_text())["step"] >= before + 40, "40 more steps")
        assert cluster.get("/readyz")[0] == 0
    finally:
        start()
    for node in cluster.nodes():
        wait_until(lambda node=node: cluster.ready(node), f"{node} to be ready")  # type: ignore[misc]


def test_both_jobs_end_with_every_sample_counted_once(pair: Pair) -> None:
    for release in pair:
        ends_with_every_sample_counted_once(release)
    assert pair[0].final_status()["rollbacks"] >= 1
    assert pair[1].final_status()["rollbacks"] == 0, "without an API server nothing changes for a job"
