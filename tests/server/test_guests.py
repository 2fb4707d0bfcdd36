"""Workers that join by hand, in simulation: their numbers, how many there may be, and that they harm nobody."""

import pytest
from simulated_fleet import Fleet, die_ps
from simulated_worker import Counting

from tfleet import __version__
from tfleet.wire.frames import Kind

TASK = Counting(items=50, batch=4, evaluates=True)
EACH = {"every_seconds": 0, "every_steps": 4, "keep": 2}
FEW = {"min": 1, "max": 4}


def fleet_of(folder, **values):
    return Fleet(folder, TASK, **{"ps": 2, "workers": 2, "steps": 0, "elastic": FEW, "checkpoint": EACH, **values})


def join(fleet, name="a", **how):
    """Starts a guest, and waits until it takes part."""
    worker = fleet.start(-1, guest=name, **how)
    fleet.run(until=lambda: worker.ended or row(fleet, worker.index).get("state") == "working")
    return worker


def row(fleet, index):
    return next((row for row in fleet.job.status()["members"] if row["index"] == index), {})


def training(fleet):
    fleet.start_all()
    fleet.run(until=lambda: fleet.job.step >= 5)
    return fleet


def test_an_invitation_tells_where_the_run_is_and_whether_it_trains(tmp_path):
    with fleet_of(tmp_path) as fleet:
        told = {"version": __version__, "run_dir": str(tmp_path)}
        assert fleet.client("invitation") == (Kind.RESULT, {**told, "ready": False})
        training(fleet)
        assert fleet.client("invitation") == (Kind.RESULT, {**told, "ready": True})
        assert len(fleet.job.members.living) == 2


@pytest.mark.parametrize("strategy", ["async", "bounded", "sync", "average"])
def test_a_guest_works_and_is_told_when_the_job_is_over(tmp_path, strategy):
    own = {"local_steps": 3, "rounds": 400, "steps": -1} if strategy == "average" else {}
    with training(Fleet(tmp_path, TASK, ps=2, workers=2, strategy=strategy, elastic=FEW, **own)) as fleet:
        guest = join(fleet)
        assert guest.index == 4
        assert row(fleet, 4)["host"] == "elsewhere"
        assert row(fleet, 0)["host"] == ""
        fleet.run(until=lambda: row(fleet, 4)["steps"] >= 3)
        fleet.client("end", how="stop", reason="")
        fleet.run()
        assert {worker.ended for worker in fleet.workers} == {"over"}
        if strategy != "sync":  # else a step has several batches
            assert fleet.job.ledger.counts()["acknowledged"] == fleet.job.step


def test_guests_have_numbers_that_no_backend_starts(tmp_path):
    with training(fleet_of(tmp_path)) as fleet:
        first, second = join(fleet, "a"), join(fleet, "b")
        assert (first.index, second.index) == (4, 5)
        fleet.kill(first)
        fleet.run(until=lambda: len(fleet.job.guests.members) == 1)
        assert join(fleet, "c").index == 4


def test_a_drained_guest_gives_its_batch_back_and_leaves(tmp_path):
    with training(fleet_of(tmp_path)) as fleet:
        guest = join(fleet)
        fleet.drain(guest)
        fleet.run(until=lambda: guest.ended)
        assert guest.ended == "drained"
        assert row(fleet, 4)["state"] == "done"
        fleet.client("end", how="stop", reason="")
        fleet.run()
        assert fleet.job.ending.over["phase"] == "stopped"
        assert fleet.job.ledger.counts()["acknowledged"] == fleet.job.step


@pytest.mark.parametrize("index", [0, 1])
def test_a_guest_keeps_its_number_when_everybody_goes_back(tmp_path, index):
    with training(fleet_of(tmp_path)) as fleet:
        guests = [join(fleet, name) for name in "ab"]
        die_ps(fleet, index)
        fleet.run(until=lambda: fleet.job.generation == 2 and len(fleet.job.guests.members) == 2)
        fleet.run(until=lambda: all(row(fleet, i).get("state") == "working" for i in (4, 5)))
        assert [guest.index for guest in guests] == [4, 5]


def test_guests_and_others_together_are_no_more_than_elastic_max(tmp_path):
    with training(fleet_of(tmp_path)) as fleet:
        join(fleet, "a")
        kind, answer = fleet.client("scale", workers=4)
        assert (kind, answer["exit_code"]) == (Kind.ERROR, 2)
        assert "may have 1 to 4 (elastic.min, elastic.max), 1 of which joined by hand" in answer["message"]
        assert fleet.client("scale", workers=3)[0] is Kind.RESULT
        kind, answer = fleet.client("invitation")
        assert (kind, answer["exit_code"]) == (Kind.ERROR, 2)
        assert "the job has 4 workers, 1 of them joined by hand, and may have 4 (elastic.max)" in answer["message"]
        late = join(fleet, "b")
        assert late.ended.startswith("2: the job has 4 workers")
        assert len(fleet.job.guests.members) == 1


def test_a_guest_that_builds_something_else_leaves_and_harms_nobody(tmp_path):
    other = Counting(items=60, batch=4)
    with training(fleet_of(tmp_path, ps=1)) as fleet:
        fleet.task_of = lambda worker: other if worker.guest else TASK
        guest = join(fleet)
        assert guest.ended.startswith("2: worker 4 built another model or data")
        assert any("worker 4, which joined by hand, ends: worker 4 built another" in n for n in fleet.job.notes)
        step = fleet.job.step
        fleet.run(until=lambda: fleet.job.step > step + 5)
        assert not fleet.job.ending.over


@pytest.mark.parametrize("asked", ["stop", "interrupt"])
def test_a_job_that_ends_is_not_joined(tmp_path, asked):
    with training(fleet_of(tmp_path, ps=1)) as fleet:
        fleet.client("end", how=asked, reason="")
        kind, answer = fleet.client("invitation")
        assert (kind, answer["exit_code"]) == (Kind.ERROR, 2)
        assert "the job is ending; only a job that trains can be joined" in answer["message"]


def test_a_job_with_a_ps_beside_each_worker_is_not_joined(tmp_path):
    with training(fleet_of(tmp_path, ps_placement="colocated")) as fleet:
        kind, answer = fleet.client("invitation")
        assert (kind, answer["exit_code"]) == (Kind.ERROR, 2)
        assert "a ps beside each of its 2 workers" in answer["message"]


def test_the_job_goes_on_with_guests_alone(tmp_path):
    with training(fleet_of(tmp_path, ps=1)) as fleet:
        join(fleet)
        for index in (0, 1):
            fleet.client("spent", index=index, reason="it died")
        assert not fleet.job.ending.over


def test_a_job_that_may_be_joined_says_how_once(tmp_path):
    with fleet_of(tmp_path, listen="10.0.0.5") as fleet:
        training(fleet)
        die_ps(fleet, 1)
        fleet.run(until=lambda: fleet.job.generation == 2)
        notes = [note for note in fleet.job.notes if "tfleet join unix:@ps-0" in note]
        assert len(notes) == 1
        assert notes[0].endswith(f"with the token in {fleet.run_dir.token_file}")
