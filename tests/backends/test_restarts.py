"""When replicas are started again, with a clock of the test's own and processes that are only pretended."""

from __future__ import annotations

from pathlib import Path

import pytest

from tfleet.backends.replicas import Replicas
from tfleet.backends.restarts import Restarts
from tfleet.backends.upkeep import Upkeep
from tfleet.spec.job import JobSpec
from tfleet.spec.rundir import RunDir


def test_the_first_restart_comes_at_once_and_each_later_one_waits_twice_as_long():
    restarts = Restarts(4)
    now = 100.0
    for wait in (0.0, 1.0, 2.0, 4.0):
        assert restarts.died("ps 1", now)
        assert restarts.planned("ps 1")
        if wait:
            assert restarts.due(now + wait - 0.001) == []
        assert restarts.due(now + wait) == ["ps 1"]
        assert restarts.due(now + wait) == []
        assert not restarts.pending
        now += 50.0
    assert not restarts.died("ps 1", now)
    assert restarts.count("ps 1") == 4
    assert not restarts.pending


def test_a_pause_has_an_end_and_who_was_well_for_a_minute_does_not_wait():
    restarts, now, waits = Restarts(1000), 0.0, []
    for life in [1.0] * 8 + [60.0, 1.0]:
        now += life
        assert restarts.died("ps 1", now)
        died = now
        while not restarts.due(now):
            now += 0.5
        waits.append(now - died)
    assert waits == [0.0, 1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0, 0.0, 1.0]
    assert restarts.count("ps 1") == 10


def test_each_replica_has_a_budget_of_its_own():
    restarts = Restarts(1)
    assert restarts.died("worker 0", 0.0)
    assert not restarts.died("worker 0", 0.0)
    assert restarts.died("worker 1", 0.0)
    restarts.cancel("worker 1")
    assert restarts.due(0.0) == ["worker 0"]


def test_without_budget_nothing_is_started_again():
    assert not Restarts(0).died("ps 0", 0.0)


class Process:
    """A pretended child process."""

    def __init__(self, role, index, command, env, log):
        self.role, self.index, self.command, self.env, self.log = role, index, command, env, log
        self.code = None
        self.told = []

    def __str__(self):
        return f"{self.role} {self.index}"

    def tell(self, sentence):
        self.told.append(sentence)

    def outcome(self):
        return f"ended with code {self.code}"

    def terminate(self):
        self.code = 130

    def kill(self, why):
        self.code = -9


class Processes:
    """The pretended children of a job."""

    def __init__(self):
        self.all = []
        self.started = []

    def start(self, role, index, command, env, log):
        child = Process(role, index, command, env, log)
        self.all = [c for c in self.all if c.code is None or (c.role, c.index) != (role, index)] + [child]
        self.started.append(str(child))
        return child

    def of(self, role):
        return [child for child in self.all if child.role == role]

    def get(self, name):
        return next(child for child in self.all if str(child) == name)


class Job:
    """Upkeep over pretended processes."""

    def __init__(self, folder: Path, **values):
        spec = JobSpec.parse({"task": "mnist", **values})
        self.replicas = Replicas(spec, RunDir.at(folder), lambda role, i, run, resume: (role, str(i), str(resume)))
        self.replicas.choose_ports()
        self.processes = Processes()
        for r in self.replicas.all(False):
            self.processes.start(r.role, r.index, r.command, r.env, folder / "log")
        self.processes.started.clear()
        self.upkeep = Upkeep(self.processes, self.replicas)
        self.now = 0.0
        self.status = {}

    def tend(self, seconds=0.0, **status):
        self.now += seconds
        self.status.update({"updated": self.now, **status})
        self.upkeep.tend(self.status, self.now)
        started, self.processes.started = self.processes.started, []
        return started

    def end(self, name, code):
        self.processes.get(name).code = code


@pytest.mark.parametrize("name", ["worker 1", "ps 1", "ps 0", "evaluator 0"])
@pytest.mark.parametrize("code", [1, -9, -11, 77])
def test_who_dies_is_started_again_in_place(tmp_path, name, code):
    job = Job(tmp_path, evaluation={"evaluator": True})
    job.end(name, code)
    assert job.tend() == [name]
    again = job.processes.get(name)
    assert again.code is None
    assert again.env["TFLEET_RESTARTS"] == "1"
    assert again.command == (*name.split(), "True")
    assert job.upkeep.trouble() == ""
    assert job.tend(10.0) == []


@pytest.mark.parametrize("code", [0, 2, 130])
def test_who_meant_to_end_is_not_started_again(tmp_path, code):
    job = Job(tmp_path)
    job.end("worker 1", code)
    assert job.tend() == []
    assert job.upkeep.trouble() == ""  # there is another worker


def test_a_job_whose_ps_has_no_restarts_left_cannot_go_on(tmp_path):
    job = Job(tmp_path, restarts=1)
    job.end("ps 1", -9)
    assert job.tend() == ["ps 1"]
    job.end("ps 1", -9)
    assert job.tend(1.0) == []
    assert job.upkeep.trouble().startswith("ps 1 ended with code -9 after 1 restart")
    assert "--resume" in job.upkeep.trouble()


def test_a_job_goes_on_while_the_least_number_of_workers_lives(tmp_path):
    job = Job(tmp_path, workers=3, restarts=0, elastic={"min": 2})
    job.end("worker 2", 1)
    assert job.tend() == []
    assert job.upkeep.trouble() == ""
    assert [news.split(", its log")[0] for news in job.upkeep.news] == [
        "worker 2 is given up: worker 2 ended with code 1"
    ]
    job.end("worker 0", 1)
    job.tend()
    assert job.upkeep.trouble().startswith("fewer than 2 workers are left: worker 0 ended with code 1")
    job.end("worker 1", 1)
    job.tend()
    assert job.upkeep.trouble().startswith("no worker is left")


def test_a_worker_that_will_be_started_again_counts_as_living(tmp_path):
    job = Job(tmp_path, workers=1)
    for expected in (["worker 0"], [], []):
        job.end("worker 0", 1)
        assert job.tend() == expected
        assert job.upkeep.trouble() == ""
        assert job.upkeep.pending is not bool(expected)
    assert job.tend(1.0) == ["worker 0"]


def test_scaling_up_and_down(tmp_path):
    job = Job(tmp_path, workers=2)
    assert job.tend(workers_wanted=4) == ["worker 2", "worker 3"]
    hosts = job.processes.get("worker 3").env["WORKER_HOSTS"].split(",")
    assert len(set(hosts)) == 4
    assert job.tend(workers_wanted=1) == []
    assert [c.code for c in job.processes.of("worker")] == [None, 130, 130, 130]
    assert job.tend(60.0) == []  # they are not taken for dead
    assert job.upkeep.trouble() == ""
    assert job.tend(workers_wanted=2) == ["worker 1"]
    assert job.processes.get("worker 1").code is None


def test_scaling_up_waits_for_a_worker_that_is_still_leaving(tmp_path):
    job = Job(tmp_path, workers=2)
    leaving = job.processes.get("worker 1")
    leaving.terminate = lambda: None
    job.tend(workers_wanted=1)
    assert job.tend(workers_wanted=2) == []
    leaving.code = 130
    assert job.tend() == ["worker 1"]


def test_a_dead_worker_that_is_not_wanted_any_more_stays_away(tmp_path):
    job = Job(tmp_path, workers=2)
    job.end("worker 1", 1)
    job.tend()
    job.end("worker 1", 1)
    job.tend()
    assert job.upkeep.pending
    job.tend(workers_wanted=1)
    assert not job.upkeep.pending
    assert job.tend(60.0) == []


def test_tcp_workers_that_are_added_get_ports_of_their_own(tmp_path):
    job = Job(tmp_path, tcp=True, workers=1)
    job.tend(workers_wanted=2)
    hosts = job.processes.get("worker 1").env["WORKER_HOSTS"].split(",")
    assert len(set(hosts)) == 2
    assert all(host.rpartition(":")[2].isdigit() for host in hosts)


def test_a_ps_that_hangs_is_killed_and_started_again(tmp_path):
    job = Job(tmp_path, peer_timeout=6.0)
    rows = [{"index": 0, "state": "joined"}, {"index": 1, "state": "missing"}]
    hung = job.processes.get("ps 1")
    job.tend(1.0, ps=[rows[0], {"index": 1, "state": "joined"}])
    for _ in range(12):
        job.tend(1.0, ps=rows)
        assert hung.code is None
    for _ in range(3):
        job.tend(1.0)
    assert hung.code == -9
    assert job.processes.get("ps 1").code is None
    assert job.tend(5.0) == []  # the new one gets its time


def test_ps_0_that_does_not_tell_anything_is_killed_and_started_again(tmp_path):
    job = Job(tmp_path, peer_timeout=6.0)
    first = job.processes.get("ps 0")
    for _ in range(30):
        job.tend(1.0)
    assert first.code is None
    for _ in range(14):
        job.tend(1.0, updated=30.0)
    assert first.code == -9
    assert job.processes.get("ps 0") is not first


def test_who_is_only_slow_to_start_is_not_killed_again_and_again(tmp_path):
    job = Job(tmp_path, peer_timeout=2.0)
    rows = [{"index": 0, "state": "joined"}, {"index": 1, "state": "missing"}]
    slow = job.processes.get("ps 1")
    for _ in range(60):
        job.tend(1.0, ps=rows)
    assert slow.code is None
    for _ in range(3):
        job.tend(1.0, ps=rows)
    assert slow.code == -9


def test_nobody_hung_while_the_launcher_itself_stood_still(tmp_path):
    job = Job(tmp_path, peer_timeout=6.0)
    first = job.processes.get("ps 0")
    job.tend(1.0, updated=0.5)
    job.tend(1.0, updated=1.0)
    for _ in range(2):
        job.tend(300.0, updated=1.0)  # as when the whole machine is suspended
    assert first.code is None
    for _ in range(14):
        job.tend(1.0, updated=1.0)
    assert first.code == -9
