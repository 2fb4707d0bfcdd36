"""Who is started, drained, started again, or missed: the launcher's upkeep with stand-ins for processes."""

from __future__ import annotations

from pathlib import Path

import pytest

from tfleet.backends.replicas import Replicas, replica_command
from tfleet.backends.upkeep import Upkeep, guests_in
from tfleet.spec.job import JobSpec
from tfleet.spec.rundir import RunDir

GUEST = {"role": "worker", "index": 64, "state": "working", "host": "elsewhere"}


class Child:
    def __init__(self, role, index):
        self.role, self.index, self.code, self.log = role, index, None, Path("/nowhere")

    def __str__(self):
        return f"{self.role} {self.index}"

    def terminate(self):
        self.code = 130

    def tell(self, sentence):
        pass

    def outcome(self):
        return f"code {self.code}"


class Children:
    def __init__(self, workers):
        self.all = [Child("ps", 0), *(Child("worker", index) for index in range(workers))]

    def of(self, role):
        return [child for child in self.all if child.role == role]

    def start(self, role, index, *_):
        self.all = [c for c in self.all if c.code is None or (c.role, c.index) != (role, index)]
        self.all.append(Child(role, index))


@pytest.fixture
def job(tmp_path):
    class Job:
        def __init__(self):
            spec = JobSpec.parse({"task": "mnist", "workers": 2, "ps": 1, "restarts": 0})
            self.children = Children(2)
            self.upkeep = Upkeep(self.children, Replicas(spec, RunDir.at(tmp_path), replica_command))

        def tend(self, wanted=2, asked=0, members=()):
            status = {"workers_wanted": wanted, "workers_asked": asked, "members": list(members)}
            self.upkeep.tend(status, 0.0)

        def end(self, index, code):
            next(c for c in self.children.of("worker") if c.index == index).code = code

        @property
        def living(self):
            return sorted(c.index for c in self.children.of("worker") if c.code is None)

    return Job()


def test_workers_are_added_and_drained_from_the_highest_on(job):
    job.tend(4, 1)
    assert job.living == [0, 1, 2, 3]
    job.tend(1, 2)
    assert job.living == [0]
    job.tend(3, 3)
    assert job.living == [0, 1, 2]


def test_a_worker_that_left_comes_back_when_the_number_is_asked_for_again(job):
    job.tend()
    job.end(1, 130)
    job.tend()
    assert job.living == [0]
    job.tend(2, 1)
    assert job.living == [0, 1]
    job.end(1, 130)
    job.tend(2, 1)
    assert job.living == [0]


@pytest.mark.parametrize("code", [0, 2, -9])
def test_a_worker_that_ended_otherwise_does_not(job, code):
    job.end(1, code)
    job.tend(2, 1)
    assert job.living == [0]


def test_guests_are_counted_while_they_are_here():
    assert guests_in({}) == 0
    assert guests_in({"members": [GUEST, {**GUEST, "state": "lost"}, {**GUEST, "host": ""}]}) == 1


def test_guests_keep_the_job_going(job):
    for index in (0, 1):
        job.end(index, -9)
    job.tend(members=[GUEST])
    assert job.upkeep.trouble() == ""
    job.tend(members=[{**GUEST, "state": "done"}])
    assert job.upkeep.trouble().startswith("no worker is left: worker 0 ")
