"""Silence, by a clock of the test: workers, other ps, everybody; and the status that tells of it."""

import json

import pytest
from simulated_fleet import Fleet
from simulated_worker import Counting

from tfleet.server.watch import Standstill
from tfleet.wire.frames import Kind, pack_json

TASK = Counting(items=50, batch=4)


def beat(fleet, workers):
    """Sends a heartbeat for each worker, as their second threads do."""
    for worker in workers:
        fleet.client("beat", member=worker.member)


def pass_time(fleet, seconds, beating=()):
    """Lets time pass while nothing but heartbeats and pings happens."""
    for _ in range(int(seconds)):
        fleet.loop.advance(1.0)
        beat(fleet, beating)
        while fleet.step(only_reads=True):
            pass


def training(fleet):
    fleet.start_all()
    fleet.run(until=lambda: fleet.job.step >= 5 and all(worker.sequence for worker in fleet.workers))
    return fleet.workers


def test_a_silent_worker_is_dropped_and_named_and_its_batch_given_to_another(tmp_path):
    with Fleet(tmp_path, TASK, watch=True, ps=2, workers=2, steps=0, peer_timeout=20) as fleet:
        good, silent = training(fleet)
        silent.stopped = good.stopped = True
        pass_time(fleet, 19, [good])
        assert len(fleet.job.members.living) == 2
        pass_time(fleet, 3, [good])
        assert [m.number for m in fleet.job.members.living.values()] == [good.member]
        why = f"worker {silent.index} is dropped: silent for more than 20 s, since 1970-01-01 00:16:40 UTC"
        assert fleet.job.notes[-1] == why
        status = fleet.job.status()
        row = next(row for row in status["members"] if row["index"] == silent.index)
        assert (row["state"], row["heard"]) == ("lost", pytest.approx(1000, abs=1))
        (fenced,) = status["fenced"]
        assert (fenced["role"], fenced["index"], fenced["why"]) == ("worker", silent.index, why)
        assert fenced["time"] == pytest.approx(1021, abs=2)
        assert (status["counts"]["fenced"], status["counts"]["given_back"]) == (1, 1)
        good.stopped = False
        step = fleet.job.step
        fleet.run(until=lambda: fleet.job.step >= step + 20)
        assert (fleet.job.ledger.counts()["leased"], fleet.job.ledger.counts()["returned"]) == (1, 0)


def test_a_dropped_worker_that_wakes_is_told_and_can_come_back(tmp_path):
    with Fleet(tmp_path, TASK, watch=True, ps=1, workers=1, steps=40, peer_timeout=20) as fleet:
        (worker,) = training(fleet)
        worker.stopped = True
        pass_time(fleet, 22)
        assert not fleet.job.members.living
        assert fleet.client("beat", member=worker.member)[1]["known"] is False
        why = fleet.client("outcome", member=worker.member, generation=1)[1]["why"]
        assert why == "worker 0 is dropped: silent for more than 20 s, since 1970-01-01 00:16:40 UTC"
        assert fleet.client("outcome", member=worker.member, generation=2)[1]["why"] == ""
        assert fleet.client("outcome")[1] == {"phase": "training", "why": ""}
        former, worker.stopped = worker.member, False
        fleet.run()
        assert (fleet.job.phase, fleet.job.step, worker.ended) == ("done", 40, "over")
        assert worker.member > former


def test_nobody_was_silent_while_ps_0_itself_stood_still(tmp_path):
    with Fleet(tmp_path, TASK, watch=True, ps=2, workers=2, steps=0, peer_timeout=20, join_timeout=60) as fleet:
        workers = training(fleet)
        for worker in workers:
            worker.stopped = True
        fleet.loop.time += 300.0  # as when the whole machine is suspended
        pass_time(fleet, 15, workers[:1])
        assert (len(fleet.job.members.living), fleet.job.generation, fleet.job.ending.over) == (2, 1, None)
        pass_time(fleet, 8, workers[:1])
        assert [m.number for m in fleet.job.members.living.values()] == [workers[0].member]


def test_a_standstill_is_what_goes_beyond_a_late_look():
    standstill = Standstill(100.0, every=0.25)
    assert standstill.lost(100.25) == standstill.lost(101.4) == 0.0
    assert standstill.lost(131.65) == 30.0
    assert standstill.lost(131.9) == 0.0


def test_workers_that_wait_for_a_ps_are_not_silent(tmp_path):
    with Fleet(tmp_path, TASK, watch=True, ps=2, workers=2, steps=10, late_ps=True) as fleet:
        fleet.start_all()
        pass_time_running(fleet, 300)
        assert len(fleet.job.members.living) == 2
        fleet.join_ps()
        while not fleet.job.links.complete:
            fleet.step(only_reads=True)
        fleet.loop.advance(3.0)  # the workers have not said a word since, and the ps has not answered a ping
        assert (len(fleet.job.members.living), fleet.job.ending.over) == (2, None)
        fleet.run()
        assert (fleet.job.phase, fleet.job.notes) == ("done", [])


def pass_time_running(fleet, seconds):
    for _ in range(seconds):
        fleet.loop.advance(1.0)
        for _ in range(30):
            fleet.step()


def test_a_ps_that_never_comes_ends_the_job(tmp_path):
    with Fleet(tmp_path, TASK, watch=True, ps=3, workers=1, late_ps=True, join_timeout=60) as fleet:
        fleet.start_all()
        pass_time_running(fleet, 59)
        assert not fleet.job.ending.over
        pass_time_running(fleet, 3)
        assert fleet.job.ending.over["exit_code"] == 1
        assert fleet.job.ending.reason.startswith("ps 1, ps 2 did not join within 60 s")
        assert fleet.workers[0].ended.startswith("1: ps 1, ps 2 did not join")


@pytest.mark.parametrize("ever", [True, False])
def test_without_workers_the_job_is_given_up_after_the_join_timeout(tmp_path, ever):
    with Fleet(tmp_path, TASK, watch=True, ps=2, workers=1, steps=0, join_timeout=60) as fleet:
        fleet.settle()
        if ever:
            (worker,) = training(fleet)
            fleet.kill(worker)
            fleet.settle()
        pass_time(fleet, 59)
        assert not fleet.job.ending.over
        pass_time(fleet, 3)
        assert fleet.watch.abandoned
        assert fleet.job.ending.over["exit_code"] == 1
        assert "no worker was there for 60 s" in fleet.job.ending.reason
        assert fleet.loop.stopped or (not fleet.loop.advance(0.1) and fleet.loop.stopped)


def test_a_silent_ps_is_named_and_its_generation_is_over(tmp_path):
    with Fleet(tmp_path, TASK, watch=True, ps=2, workers=1, steps=0, peer_timeout=20) as fleet:
        (worker,) = training(fleet)
        worker.stopped = True
        pass_time(fleet, 60, [worker])
        assert not fleet.job.rolled_back  # it answers its pings
        fleet.loop.watched.pop(fleet.links[0])
        pass_time(fleet, 19, [worker])
        assert fleet.job.generation == 1
        pass_time(fleet, 6)
        assert fleet.job.generation == 2
        assert not fleet.job.ending.over
        silent = "ps 1 is lost: silent for more than 20 s, since 1970-01-01 00:17:39 UTC"
        assert f"{silent}; everybody goes back to the last commit" in fleet.job.notes


def test_the_status_tells_how_the_job_stands(tmp_path):
    with Fleet(tmp_path, TASK, watch=True, ps=2, workers=2, steps=30) as fleet:
        status = fleet.job.status()
        assert (status["phase"], status["step"], status["steps"], status["last_commit"]) == ("starting", 0, 30, None)
        assert (status["loss"], status["seconds_left"], status["members"], status["exit_code"]) == (
            None,
            None,
            [],
            None,
        )
        fleet.start_all()
        fleet.run(until=lambda: fleet.job.step == 15, tick=0.1)
        fleet.loop.advance(0.5)
        status = fleet.job.status()
        assert (status["phase"], status["step"], status["epoch"], status["loss"]) == ("training", 15, 1, 2.0)
        assert status["ledger"]["acknowledged"] == 15
        assert status["ledger"]["items"] == 50
        assert status["seconds_left"] == pytest.approx(15 / status["steps_per_second"], rel=0.05)
        assert status["elapsed"] == pytest.approx(fleet.loop.time - 1000, abs=0.001)
        assert 0 < status["training_elapsed"] <= status["elapsed"]
        assert status["last_commit"] == {
            "number": 0,
            "step": 0,
            **{k: status["last_commit"][k] for k in ("time", "seconds")},
        }
        assert [(row["role"], row["state"]) for row in status["members"]] == [("worker", "working")] * 2
        fleet.run()
        status = fleet.job.status()
        assert (status["phase"], status["exit_code"], status["reason"]) == ("done", 0, "")
        assert status["seconds_left"] is None
        assert status["export"]
        assert json.loads(json.dumps(status, allow_nan=False)) == status


def test_one_worker_writes_the_summaries_and_another_takes_over(tmp_path):
    with Fleet(tmp_path, TASK, ps=1, workers=2, steps=0) as fleet:
        training(fleet)

        def writers():
            return [w.index for w in fleet.workers if fleet.client("beat", member=w.member)[1]["summaries"]]

        first = min(fleet.workers, key=lambda worker: worker.member)
        assert writers() == [first.index]
        fleet.kill(first)
        fleet.settle_links(first)
        assert writers() == [1 - first.index]


def test_what_a_heartbeat_is_answered_can_always_be_packed(tmp_path):
    with Fleet(tmp_path, TASK, ps=1, workers=1, steps=0) as fleet:
        training(fleet)
        line = fleet.connect(0)
        line.send(Kind.CALL, b'{"call":"report","step":1,"commit":0,"metrics":{"loss":NaN}}')
        fleet.settle_reads(line)
        assert b"not JSON" in line.take().meta
        kind, _ = fleet.client("beat", member=1)
        assert kind is Kind.RESULT
        assert pack_json(fleet.job.status())
