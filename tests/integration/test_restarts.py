"""Replicas that die, hang, come and go while a real job trains: it ends right, and nothing is left."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from typing import Any

import pytest
from jobs import LiveJob, nothing_left, parameters, pid_of, tfleet, wait_until

pytestmark = [pytest.mark.processes, pytest.mark.tf]

Live = Callable[..., LiveJob]
EACH = ("--checkpoint-every-steps", "100", "--summary-every", "0")


def members(job: LiveJob) -> dict[int, dict[str, Any]]:
    return {m["index"]: m for m in job.run.status()["members"] if m["role"] == "worker"}


def working(job: LiveJob) -> set[int]:
    return {index for index, member in members(job).items() if member["state"] == "working"}


def test_killed_worker_is_started_again_and_every_sample_counts_once(live: Live) -> None:
    job = live("mnist", "--steps", "0", "--summary-every", "0")
    job.wait_for_step(200)
    job.kill("worker", 1)
    wait_until(lambda: members(job)[1]["restarts"] == 1 and 1 in working(job))
    assert tfleet("stop", str(job.run.path)).code == 0
    code, out = job.finish()
    status = job.run.status()
    assert code == 0, out
    assert status["ledger"]["acknowledged"] == status["step"]
    assert status["ledger"]["partial_updates"] <= 1
    assert status["rollbacks"] == 0
    assert "restart 1 of 3" in job.run.log("worker", 1).read_text()
    nothing_left(job.run.path)


@pytest.mark.parametrize("index", [0, 1])
def test_killed_ps_is_started_again_and_all_go_back_to_the_last_commit(live: Live, index: int) -> None:
    job = live("mnist", "--steps", "3000", *EACH)
    job.wait_for_step(300)
    job.kill("ps", index)
    code, out = job.finish()
    status = job.run.status()
    assert code == 0, out
    assert status["step"] == status["ledger"]["acknowledged"] == 3000
    assert status["rollbacks"] == 1
    assert status["generation"] == 2
    assert status["evaluation"]["metrics"]["accuracy"] >= 0.9
    assert "goes on from commit" in out
    nothing_left(job.run.path)


def test_ps_killed_again_and_again_spends_its_budget(live: Live) -> None:
    job = live("mnist", "--steps", "0", "--restarts", "1", *EACH)
    job.wait_for_step(200)
    job.kill("ps", 1)
    wait_until(lambda: job.run.status()["generation"] == 2 and job.run.status()["phase"] == "training")
    job.kill("ps", 1)
    code, out = job.finish()
    assert code == 1
    assert "ps 1 was killed (SIGKILL): perhaps out of memory after 1 restart" in out
    assert "--resume" in out
    nothing_left(job.run.path)
    assert parameters(job.run.path).size == 79510


def test_hanging_ps_is_given_up_killed_and_replaced(live: Live) -> None:
    job = live("mnist", "--steps", "0", "--peer-timeout", "2", *EACH)
    job.wait_for_step(200)
    job.kill("ps", 1, signal.SIGSTOP)
    wait_until(lambda: job.run.status()["rollbacks"] == 1 and job.run.status()["phase"] == "training")
    status = job.run.status()
    assert any("ps 1 is lost: silent for more than 2 s" in note for note in status["notes"])
    assert [row["restarts"] for row in status["ps"]] == [0, 1]
    assert tfleet("stop", str(job.run.path)).code == 0
    code, out = job.finish()
    assert code == 0, out
    nothing_left(job.run.path)


def test_scaled_up_and_down_while_it_trains(live: Live) -> None:
    job = live("mnist", "--steps", "0", "--workers", "2", "--summary-every", "0")
    job.wait_for_step(100)
    for wanted in (3, 1, 2):
        assert tfleet("scale", str(job.run.path), "--workers", str(wanted)).code == 0
        wait_until(lambda wanted=wanted: working(job) == set(range(wanted)))
    for wrong in ("0", "65"):
        done = tfleet("scale", str(job.run.path), "--workers", wrong)
        assert done.code == 2
        assert "may have 1 to 64" in done.err
    assert tfleet("stop", str(job.run.path)).code == 0
    code, out = job.finish()
    status = job.run.status()
    assert code == 0, out
    assert status["ledger"]["acknowledged"] == status["step"]
    assert status["ledger"]["partial_updates"] == 0
    assert status["rollbacks"] == 0
    assert not any(member["restarts"] for member in members(job).values())
    done = tfleet("scale", str(job.run.path), "--workers", "3")
    assert done.code == 2
    assert "is not running" in done.err
    nothing_left(job.run.path)


@pytest.mark.parametrize("strategy", ["async", "sync"])
def test_sigterm_to_every_process_commits_and_can_be_resumed(live: Live, strategy: str) -> None:
    job = live("mnist", "--steps", "0", "--strategy", strategy, "--summary-every", "0")
    job.wait_for_step(200)
    pids = [pid_of(job.run.path, role, index) for role in ("worker", "ps") for index in (1, 0)]
    for pid in pids:
        os.kill(pid, signal.SIGTERM)
    code, out = job.finish()
    status = job.run.status()
    assert code == 130, out
    assert status["phase"] == "interrupted"
    assert status["last_commit"]["step"] == status["step"] >= 200
    nothing_left(job.run.path)
    more = str(status["step"] + 100)
    assert tfleet("train", "--resume", "--run-dir", str(job.run.path), "--steps", more).code == 0
