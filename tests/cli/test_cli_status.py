"""What `tfleet status`, `logs` and `stop` tell, from run directories as real jobs leave them."""

import json
import re

import pytest
from fake_jobs import FakeJob, done, member, status

from tfleet.api.places import LocalPlace
from tfleet.cli.main import run
from tfleet.cli.status import rows
from tfleet.spec.errors import ExitCode
from tfleet.spec.job import JobSpec
from tfleet.spec.rundir import RunDir


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    here = RunDir.at("old")
    here.create()
    here.job_file.write_text(JobSpec.parse({"task": "mnist"}).dump())
    return here


def test_rows_of_a_living_job(folder):
    commit = {"number": 3, "step": 1000, "time": 1_700_000_000.0}
    found = dict(rows(LocalPlace(folder), status("training", 1204, last_commit=commit), True, 1_700_000_012.0))
    assert found == {
        "job": "mnist",
        "phase": "training",
        "strategy": "async",
        "step": "1,204 of 2,000 (60 %), epoch 2",
        "speed": "172 steps/s, 8.0 s so far, 4.6 s left",
        "training": "loss 0.2311 · accuracy 0.9312",
        "commit": "3 at step 1,000, 12 s ago",
        "ledger": "1,204 batches acknowledged, 2 leased",
        "run": "old",
    }


def test_rows_of_a_finished_job(folder):
    found = dict(rows(LocalPlace(folder), done(notes=["fell back to commit 3"]), False, 0.0))
    assert found["held out"] == "accuracy 0.9310 · loss 0.2412 (step 2,000)"
    assert found["export"] == "old/export/1"
    assert found["note"] == "fell back to commit 3"
    assert "next" not in found


def test_rows_of_a_job_that_has_told_nothing(folder):
    assert dict(rows(LocalPlace(folder), {}, True, 0.0)) == {"phase": "starting", "run": "old"}


def test_rows_of_a_job_that_died_in_training(folder):
    found = dict(rows(LocalPlace(folder), status("training", 5), False, 0.0))
    assert found["phase"] == "not running any more: its last word was 'training'"


def test_status_of_a_dead_job_says_so_and_how_to_go_on(folder, capsys):
    folder.status_file.write_text(json.dumps(status("training", 5, members=[member("worker", 0, "lost")])))
    assert run(["status", "old"]) == 0
    out = " ".join(capsys.readouterr().out.split())
    assert "phase failed" in out
    assert "next go on with 'tfleet train --resume --run-dir old'" in out
    assert "● worker 0 lost" in out


def test_status_as_json(folder, capsys):
    folder.status_file.write_text(json.dumps(done()))
    assert run(["status", "old", "-o", "json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"run_dir": str(folder.path), "alive": False, **done()}


def test_logs_of_one_replica_and_of_all(folder, capsys):
    folder.log("worker", 0).write_text("zero\n")
    folder.log("worker", 1).write_text("one\n")
    assert run(["logs", "old", "worker", "1"]) == 0
    assert [line.split()[-1] for line in capsys.readouterr().out.splitlines()] == ["one"]
    assert run(["logs", "old", "worker", "-o", "json"]) == 0
    found = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert found == [{"replica": "worker-0", "line": "zero"}, {"replica": "worker-1", "line": "one"}]
    assert run(["logs", "old", "--follow"]) == 0
    assert {line.split()[-1] for line in capsys.readouterr().out.splitlines()} == {"zero", "one"}


@pytest.fixture
def job(folder, monkeypatch):
    fake = FakeJob(folder.path, [status("training", 5), status("finalising", 6), status("stopped", 6)])
    monkeypatch.setattr("tfleet.backends.local.open_job", lambda handle: fake)
    monkeypatch.setattr("tfleet.api.follow.INTERVAL", 0.0)
    monkeypatch.setattr("tfleet.cli.status.INTERVAL", 0.0)
    return fake


def test_stop_waits_for_the_end(job, capsys):
    assert run(["stop", "old"]) == 0
    out = capsys.readouterr().out
    assert job.endings == [("stop", "stopped by 'tfleet stop'")]
    assert "step 6 reached: evaluating and exporting" in out
    assert "stopped   6 steps, 8.0 s of training" in out


def test_stop_without_waiting(job, capsys):
    assert run(["stop", "old", "--no-wait"]) == 0
    assert capsys.readouterr().out == "asked the job in old to end; it commits, evaluates and exports\n"
    assert run(["stop", "old", "--no-wait", "-o", "json"]) == 0
    assert json.loads(capsys.readouterr().out)["phase"] == "training"


def test_stop_of_a_job_that_fails_meanwhile(job, capsys):
    job.left, job.code = [status("failed", reason="the disk is full")], ExitCode.FAILED
    assert run(["stop", "old"]) == 1
    assert capsys.readouterr().err.splitlines()[-1].startswith("tfleet: the disk is full; read old/logs")


def test_rows_tell_who_was_lost_and_what_was_done_again(folder):
    told = status(
        "training",
        1204,
        ps=[{"index": 0, "state": "joined", "restarts": 1}, {"index": 1, "state": "missing", "restarts": 0}],
        members=[{**member("worker", 0, "working"), "restarts": 2}],
        rollbacks=2,
        steps_undone=1500,
    )
    assert dict(rows(LocalPlace(folder), told, True, 0.0))["replicas"] == (
        "waits for ps 1; started again: ps 0 1x, worker 0 2x; went back to a commit 2 times, 1,500 steps done again"
    )
    told["goodput"] = 0.4453
    assert dict(rows(LocalPlace(folder), told, True, 0.0))["replicas"].endswith(
        "1,500 steps done again (goodput 44.5 %)"
    )


def test_rows_tell_who_was_fenced_what_was_refused_and_who_is_slow(folder):
    counts = {"commits": 9, "failed_commits": 1, "fenced": 7, "given_back": 8, "late_pushes": 2}
    fenced = [
        {"role": "worker", "index": i % 2, "number": i, "generation": 1, "time": 1.7e9 + i, "why": "worker is dropped"}
        for i in range(7)
    ]
    text = "worker 1 is slowest: 2.1x the median step, most of it waiting for data"
    straggler = {"worker": 1, "ratio": 2.13, "part": "data", "text": text}
    told = status("training", 1204, counts=counts, fenced=fenced, straggler=straggler)
    told["ledger"]["partial_updates"] = 3
    found = dict(rows(LocalPlace(folder), told, True, 0.0))
    assert found["ledger"] == (
        "1,204 batches acknowledged, 2 leased, 3 partially applied, 8 given back by those who left, "
        "2 refused as too late, 1 commits that could not be made"
    )
    assert found["fenced"].startswith("7 members: worker 0 at 2023-11-14 22:13:22 UTC, worker 1 at ")
    assert found["fenced"].count("worker") == 5
    assert found["slowest"] == text


def test_status_follows_until_the_end_and_ends_nothing(job, capsys):
    assert run(["status", "old", "--follow"]) == 0
    out = capsys.readouterr().out
    assert "step 6 reached: evaluating and exporting" in out
    assert "phase stopped" in " ".join(out.split())
    assert job.endings == []


def test_followed_statuses_as_lines_of_json(folder, capsys, monkeypatch):
    told = [status("training", step, updated=1.7e9 + step) for step in (1, 1, 5)]
    fake = FakeJob(folder.path, [{}, *told, done()])
    monkeypatch.setattr("tfleet.backends.local.open_job", lambda handle: fake)
    monkeypatch.setattr("tfleet.cli.status.INTERVAL", 0.0)
    assert run(["status", "old", "--follow", "-o", "json"]) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [(line["phase"], line["step"]) for line in lines] == [
        ("training", 1),
        ("training", 5),
        ("done", 2000),  # some of its processes still live
        ("done", 2000),
    ]
    assert lines[-1]["alive"] is False


def test_scale(folder, capsys, monkeypatch):
    job = FakeJob(folder.path, [{}])
    monkeypatch.setattr("tfleet.backends.local.open_job", lambda handle: job)
    assert run(["scale", "old", "--workers", "4"]) == 0
    assert job.scaled == 4
    assert "goes on with 4 workers" in capsys.readouterr().out
    assert run(["scale", "old", "--workers", "1", "-o", "json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"run_dir": str(folder.path), "workers": 1}


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["old", "--workers", "3"], "the job in .*old is not running; its result is in .*status.json"),
        (["old", "--workers", "many"], "'--workers': input should be a valid integer"),
        (["old"], "missing option '--workers'"),
        (["nowhere", "--workers", "3"], "nowhere is not a run directory"),
    ],
)
def test_scale_of_what_cannot_be_scaled(folder, capsys, arguments, sentence):
    folder.status_file.write_text(json.dumps(done()))
    assert run(["scale", *arguments]) == 2
    err = capsys.readouterr().err
    assert re.search(sentence, err, re.IGNORECASE)
    assert len(err.splitlines()) == 1
