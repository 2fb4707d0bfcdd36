"""Workers 2 -> 4 -> 1 by `helm upgrade` while the job trains; upgrades that Jobs cannot take change nothing."""

from __future__ import annotations

from typing import Any

import pytest
from namespaces import Namespace
from releases import Release
from tasks_on_claim import PACED, UNTIL_STOPPED
from waiting import wait_until

pytestmark = [pytest.mark.tf, pytest.mark.processes]


@pytest.fixture(scope="module")
def release(images: None, shared_namespace: Namespace) -> Release:
    made = Release(shared_namespace, "elastic").install(*PACED, UNTIL_STOPPED, "worker.number=2", "ps.number=1")
    made.wait_for_step(10)
    return made


def working(release: Release) -> list[int]:
    members = release.status().get("members", [])
    return [
        m["index"] for m in members if m["role"] == "worker" and m["state"] in ("joined", "working") and m["steps"] > 0
    ]


def versions(release: Release) -> dict[str, Any]:
    """What changes with every change of an object."""
    found = release.namespace.items("configmaps,jobs,secrets,services", "-l", release.select())
    return {f"{o['kind']}/{o['metadata']['name']}": o["metadata"].get("generation", 0) for o in found} | {
        "data": release.namespace.kubectl("get", "configmap", release.name, "-o", "jsonpath={.data}").out,
        "revisions": release.namespace.helm("history", release.name, "-o", "json").good().json(),
    }


def test_two_become_four(release: Release) -> None:
    release.upgrade("worker.number=4").good()
    wait_until(lambda: working(release) == [0, 1, 2, 3], "four workers to train")


@pytest.mark.parametrize(
    ("value", "words"),
    [("ps.number=2", "ps.number"), ("worker.env[0].name=A,worker.env[0].value=b", "uninstall")],
)
def test_what_jobs_cannot_take_is_refused_and_changes_nothing(release: Release, value: str, words: str) -> None:
    before = versions(release)
    refused = release.upgrade(value)
    assert refused.code != 0
    assert words in refused.err
    assert len(refused.err) < 1000, refused.err
    assert versions(release) == before


def test_four_become_one(release: Release) -> None:
    release.upgrade("worker.number=1").good()
    wait_until(lambda: working(release) == [0], "one worker to train alone")
    wait_until(lambda: release.status().get("workers_wanted") == 1, "the job to want one worker")
    assert len(release.pods("worker", running=True)) == 1
    step = release.status()["step"]
    release.wait_for_step(step + 20)
    assert release.status()["rollbacks"] == 0


def test_it_stops_when_asked_and_completes(release: Release) -> None:
    release.end("stop", "the test has seen enough")
    jobs = release.wait_over()
    assert all("Complete" in conditions for conditions in jobs.values()), jobs
    status = release.final_status()
    assert status["phase"] == "stopped"
    assert status["step"] == status["ledger"]["acknowledged"]
