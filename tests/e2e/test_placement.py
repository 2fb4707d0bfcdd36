"""`ps_placement: colocated` on two nodes: each worker is on the node of the ps of its index, a replaced one too."""

from __future__ import annotations

import pytest
from namespaces import Namespace
from releases import Release, index_of, node_of
from tasks_on_claim import PACED, UNTIL_STOPPED
from waiting import wait_until

pytestmark = [pytest.mark.tf, pytest.mark.processes]

REPLICAS = 3


@pytest.fixture(scope="module")
def release(images: None, shared_namespace: Namespace) -> Release:
    numbers = (f"worker.number={REPLICAS}", f"ps.number={REPLICAS}")
    made = Release(shared_namespace, "beside")
    made.install(*PACED, UNTIL_STOPPED, *numbers, "job.ps_placement=colocated")
    made.wait_for_step(10)
    return made


def nodes(release: Release, role: str) -> dict[int, str]:
    """The node of each running pod of a role, by index."""
    return {index_of(pod): node_of(pod) for pod in release.pods(role, running=True)}


def test_each_worker_is_beside_its_ps(release: Release) -> None:
    wait_until(lambda: len(nodes(release, "worker")) == REPLICAS, "every worker to run")
    ps = nodes(release, "ps")
    assert set(ps) == set(range(REPLICAS))
    assert len(set(ps.values())) == 2, f"the ps are not spread, so that this test shows nothing: {ps}"
    assert nodes(release, "worker") == ps


def test_so_is_one_that_is_replaced(release: Release) -> None:
    index, ps = REPLICAS - 1, nodes(release, "ps")
    gone = release.delete_pod("worker", index)

    def replaced() -> bool:
        found = [pod for pod in release.pods("worker", running=True) if index_of(pod) == index]
        return bool(found) and found[0]["metadata"]["uid"] != gone

    wait_until(replaced, "another pod of the deleted worker", 120)
    assert nodes(release, "worker")[index] == ps[index]


@pytest.mark.parametrize("value", [f"worker.number={REPLICAS + 1}", f"ps.number={REPLICAS + 1}"])
def test_it_cannot_be_scaled(release: Release, value: str) -> None:
    refused = release.upgrade(value)
    assert refused.code != 0
    assert "job.ps_placement=colocated puts one ps beside each worker" in refused.err


def test_it_stops_when_asked_and_completes(release: Release) -> None:
    release.end("stop", "the test has seen enough")
    jobs = release.wait_over()
    assert all("Complete" in conditions for conditions in jobs.values()), jobs
    status = release.final_status()
    assert status["step"] == status["ledger"]["acknowledged"]
