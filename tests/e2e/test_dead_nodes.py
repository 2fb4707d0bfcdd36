"""A node loses power: with a worker of one job on it, and with a ps of another. These tests come last."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from cluster import Cluster
from namespaces import Namespace
from releases import Release, node_of
from tasks_on_claim import PACED
from waiting import wait_until

pytestmark = [pytest.mark.tf, pytest.mark.processes]
HOST = "kubernetes.io/hostname"
VICTIM = "node-2"
EPOCHS, BATCHES = 5, 90


def prefer(node: str) -> dict[str, Any]:
    """An affinity that prefers a node but takes another when it is dead."""
    term = {"matchExpressions": [{"key": HOST, "operator": "In", "values": [node]}]}
    rule = {"weight": 100, "preference": term}
    return {"nodeAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [rule]}}


@pytest.fixture(scope="module")
def jobs(
    images: None, cluster: Cluster, shared_namespace: Namespace, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Release, Release]]:
    """Two jobs in training: the first has one worker on the victim and its ps elsewhere, the second its ps on it."""
    folder = tmp_path_factory.mktemp("values")
    away = {"nodeSelector": {HOST: "node-1"}}
    values: dict[str, Any] = {
        "worker-there": {"ps": {"number": 1, **away}, "worker": {"number": 2}},
        "ps-there": {
            "ps": {"number": 1, "affinity": prefer(VICTIM), "topologySpreadConstraints": []},
            "worker": {"number": 1, **away},
        },
    }
    releases = []
    for name, chosen in values.items():
        (folder / f"{name}.json").write_text(json.dumps(chosen))
        release = Release(shared_namespace, name)
        release.install(
            "-f", str(folder / f"{name}.json"), *PACED, f"job.epochs={EPOCHS}", "job.checkpoint.every_steps=50"
        )
        releases.append(release)
    for release in releases:
        release.wait_for_step(20)
    there, ps_there = releases
    wait_until(
        lambda: sum(m["steps"] > 0 for m in there.status()["members"] if m["role"] == "worker") == 2, "both workers"
    )
    assert VICTIM in {node_of(pod) for pod in there.pods("worker", running=True)}
    assert node_of(ps_there.pod("ps")) == VICTIM
    yield there, ps_there
    cluster.heal()


@pytest.fixture(scope="module")
def after(jobs: tuple[Release, Release], cluster: Cluster) -> tuple[Release, Release]:
    """The same after the victim has lost power."""
    cluster.kill(VICTIM)
    return jobs


def test_ps_comes_back_on_another_node_and_training_goes_on(after: tuple[Release, Release]) -> None:
    release = after[1]
    wait_until(lambda: node_of(release.pod("ps")) != VICTIM, "the ps to run on another node")
    status = wait_until(release.status, "ps 0 to answer")
    assert status["generation"] >= 2
    release.wait_for_step(status["step"] + 20)


def test_job_goes_on_without_the_lost_worker_and_ends(after: tuple[Release, Release]) -> None:
    for release in after:
        conditions = release.wait_over(final=False)
        # While the node is dead its pod cannot be cleaned up, so that Complete need not come.
        assert conditions["worker"] & {"SuccessCriteriaMet", "Complete"}, conditions
        status = release.final_status()
        assert status["phase"] == "done"
        assert status["step"] == status["ledger"]["acknowledged"] == EPOCHS * BATCHES
        assert status["ledger"]["leased"] == status["ledger"]["returned"] == 0
    assert after[0].final_status()["rollbacks"] == 0
    assert after[1].final_status()["rollbacks"] >= 1


def test_when_the_node_is_back_every_job_completes(after: tuple[Release, Release], cluster: Cluster) -> None:
    cluster.heal()
    for release in after:
        conditions = release.wait_over()
        assert all("Complete" in found for found in conditions.values()), conditions
        assert not any(found & {"Failed", "FailureTarget"} for found in conditions.values())
