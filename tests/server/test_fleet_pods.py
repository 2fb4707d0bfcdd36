"""What supervisors in pods ask of ps 0: a commit before a ps leaves, workers given up, the deadline."""

import pytest
from simulated_fleet import Fleet
from simulated_worker import Counting

from tfleet.wire.frames import Kind, pack_json, unpack_json

TASK = Counting(items=50, batch=4, evaluates=True)
NEVER = {"every_seconds": 0, "every_steps": 0, "keep": 3}


def ask(fleet, name, **values):
    """Calls ps 0, and lets everything go on while the answer is awaited."""
    line = fleet.connect(0)
    line.send(Kind.CALL, pack_json({"call": name, **values}))
    fleet.run(until=lambda: line.ready)
    frame = line.take()
    return frame.kind.name, unpack_json(frame.meta)


@pytest.mark.parametrize("ps", [1, 3])
@pytest.mark.parametrize("strategy", ["async", "sync"])
@pytest.mark.parametrize("seed", range(3))
def test_a_commit_that_was_asked_for_holds_every_step_until_then(tmp_path, ps, strategy, seed):
    with Fleet(tmp_path, TASK, seed, ps=ps, workers=2, steps=0, strategy=strategy, checkpoint=NEVER) as fleet:
        fleet.start_all()
        fleet.run(until=lambda: fleet.job.step >= 5)
        step, told = fleet.job.step, []
        fleet.job.checkpointing.on_kept = lambda: told.append(fleet.job.status()["last_commit"]["step"])
        kind, answer = ask(fleet, "commit")
        assert kind == "RESULT"
        assert fleet.store.newest()[0].step == answer["step"] >= step
        assert told == [answer["step"]], "who is told may end ps 0 at once"
        fleet.run(until=lambda: fleet.job.step >= answer["step"] + 3)
        again = ask(fleet, "commit")[1]["step"]
        assert fleet.store.newest()[0].step == again >= answer["step"] + 3


def test_two_who_leave_at_once_are_both_answered(tmp_path):
    with Fleet(tmp_path, TASK, ps=2, workers=2, steps=0, checkpoint=NEVER) as fleet:
        fleet.start_all()
        fleet.run(until=lambda: fleet.job.step >= 5)
        lines = [fleet.connect(0) for _ in range(2)]
        for line in lines:
            line.send(Kind.CALL, pack_json({"call": "commit"}))
        fleet.run(until=lambda: all(line.ready for line in lines))
        assert all(unpack_json(line.take().meta)["step"] >= 5 for line in lines)


def test_before_the_first_step_there_is_nothing_to_commit(tmp_path):
    with Fleet(tmp_path, TASK, ps=1, workers=1, steps=0, checkpoint=NEVER) as fleet:
        assert fleet.client("commit")[0].name == "RESULT"


def test_the_job_goes_on_while_enough_workers_may_come(tmp_path):
    with Fleet(tmp_path, TASK, ps=1, workers=3, steps=12, elastic={"min": 2, "max": 8}) as fleet:
        fleet.start_all()
        fleet.run(until=lambda: fleet.job.step >= 2)
        for _ in range(2):
            assert fleet.client("spent", index=2, reason="worker 2 ended with code 9")[0].name == "RESULT"
        assert fleet.job.notes.count("worker 2 is given up: worker 2 ended with code 9") == 1
        fleet.run()
        assert fleet.job.ending.over["phase"] == "done"


@pytest.mark.parametrize(
    ("least", "given_up", "reason"),
    [
        (1, (0, 1), "no worker is left: worker 1 ended with signal 9; the last commit is kept, go on with --resume"),
        (2, (1,), "fewer than 2 workers are left: worker 1 ended with signal 9; the last commit is kept, go on with"),
    ],
)
def test_too_few_workers_end_the_job(tmp_path, least, given_up, reason):
    with Fleet(tmp_path, TASK, ps=1, workers=2, steps=0, elastic={"min": least, "max": 8}) as fleet:
        fleet.start_all()
        fleet.run(until=lambda: fleet.job.step >= 2)
        for index in given_up:
            fleet.client("spent", index=index, reason=f"worker {index} ended with signal 9")
        fleet.run()
        over = fleet.job.ending.over
        assert (over["phase"], over["exit_code"]) == ("failed", 1)
        assert over["reason"].startswith(reason)


def test_the_deadline(tmp_path):
    with Fleet(tmp_path, TASK, ps=1, workers=2, steps=0, watch=True, deadline=3.0, checkpoint=NEVER) as fleet:
        began = fleet.loop.time
        fleet.start_all()
        fleet.run(until=lambda: fleet.job.ending.over or fleet.loop.time > began + 60, limit=10**7)
        assert fleet.job.ending.over["exit_code"] == 1
        assert "not done within its deadline of 3 s" in fleet.job.ending.over["reason"]
