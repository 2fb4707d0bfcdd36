"""Two releases in one namespace lose a process, a worker pod and a ps pod; every sample counts once all the same."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from namespaces import Namespace
from releases import Release
from tasks_on_claim import COUNTED, ends_with_every_sample_counted_once
from waiting import wait_until

pytestmark = [pytest.mark.tf, pytest.mark.processes]
Pair = tuple[Release, Release]


@pytest.fixture(scope="module")
def pair(images: None, shared_namespace: Namespace) -> Pair:
    """Two jobs that train side by side for a minute: one will lose workers, the other ps."""
    releases = Release(shared_namespace, "workers-die"), Release(shared_namespace, "ps-die")
    for release in releases:
        release.install(*COUNTED, "worker.number=2")
    for release in releases:
        release.wait_for_step(1)
    return releases


def joined(release: Release) -> list[int]:
    """Indices of the workers that are members now."""
    members = release.status().get("members", [])
    return [m["index"] for m in members if m["role"] == "worker" and m["state"] in ("joined", "working")]


def test_two_releases_do_not_mix(pair: Pair) -> None:
    for release in pair:
        wait_until(lambda release=release: joined(release) == [0, 1], f"two workers of {release.name}")
        hosts = release.namespace.kubectl("get", "configmap", release.name, "-o", "jsonpath={.data}").good().json()
        assert hosts["worker.hostList"].startswith(f"{release.name}-worker-0.{release.name}-worker:")
        assert len(hosts["ps.hostList"].split(",")) == 2
    assert pair[0].token != pair[1].token


def test_a_killed_process_comes_back_in_its_pod(pair: Pair) -> None:
    release = pair[0]
    before = release.pod("worker", 1)["metadata"]["uid"]
    release.kill_process("worker", 1)

    def back() -> bool:
        rows = {m["index"]: m for m in release.status().get("members", []) if m["role"] == "worker"}
        return rows.get(1, {}).get("restarts") == 1 and rows[1]["steps"] > 0

    wait_until(back, "worker 1 to train again")
    assert release.pod("worker", 1)["metadata"]["uid"] == before


def test_deleted_pods_come_back(pair: Pair) -> None:
    # Both at once: most of the time is Kubernetes' own wait before it makes a pod again.
    workers_die, ps_die = pair
    generation = ps_die.status()["generation"]
    worker, ps = workers_die.delete_pod("worker", 0), ps_die.delete_pod("ps", 1)
    returned: dict[str, Callable[[], bool]] = {
        "the worker's pod": lambda: (
            workers_die.pod("worker", 0)["metadata"]["uid"] != worker and joined(workers_die) == [0, 1]
        ),
        "the pod of the ps": lambda: (
            ps_die.pod("ps", 1)["metadata"]["uid"] != ps and ps_die.status().get("generation", 0) > generation
        ),
    }
    for what, look in returned.items():
        wait_until(look, f"{what} to come back")
    before = ps_die.status()["step"]
    ps_die.wait_for_step(before + 20)
    assert workers_die.status()["rollbacks"] == 0


def test_the_pod_of_ps_0_comes_back(pair: Pair) -> None:
    release = pair[1]
    generation = release.status()["generation"]
    release.delete_pod("ps", 0)
    wait_until(lambda: release.status().get("generation", 0) > generation, "ps 0 to begin a new generation")
    release.wait_for_step(release.status()["step"] + 20)


def test_both_jobs_end_with_every_sample_counted_once(pair: Pair) -> None:
    for release in pair:
        ends_with_every_sample_counted_once(release)
    assert pair[0].final_status()["rollbacks"] == 0
    assert pair[1].final_status()["rollbacks"] >= 1
