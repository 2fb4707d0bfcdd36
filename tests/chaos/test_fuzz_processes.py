"""Real ps under attack, in all ways at once: an honest worker is answered all the while, and memory stays bounded."""

import contextlib
import resource
import time
from pathlib import Path

import pytest
from arithmetic import TASKS
from attackers import Damaged, Handshakes, Huge, Slow
from numpy_jobs import NumpyJob, wait
from sizes import CONNECTIONS, FRAMES, SEED, keep

from tfleet.wire.address import Address
from tfleet.wire.auth import read_token
from tfleet.wire.server import SILENT_LIMIT, SILENT_SECONDS

pytestmark = pytest.mark.processes

DAMAGED = max(300, FRAMES // 100)
GAP = 30.0
"""Seconds without a step of the honest worker that count as a hang."""
MEMORY = 128 << 10
"""KiB by which the peak of a ps may grow, whatever is sent to it: four attackers here prove the token; each may
then have a meta of 16 MB and the text in it under way."""


def peak(process):
    """Returns the peak resident memory of a process, KiB."""
    lines = Path(f"/proc/{process.pid}/status").read_text().splitlines()
    return int(next(line.split()[1] for line in lines if line.startswith("VmHWM")))


def descriptors(process):
    return len(list(Path(f"/proc/{process.pid}/fd").iterdir()))


class Watched:
    """Notes the longest time without a step."""

    def __init__(self, job):
        self.job, self.step, self.since, self.longest = job, job.status("step"), time.monotonic(), 0.0

    def look(self):
        step, now = self.job.status("step"), time.monotonic()
        self.longest = max(self.longest, now - self.since)
        if step != self.step:
            self.step, self.since = step, now
        assert now - self.since < GAP, f"the honest worker hangs: {self.job.describe()}"


@pytest.fixture
def job(tmp_path):
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, max(soft, 2 * CONNECTIONS + 500)), hard))
    with NumpyJob(tmp_path, checkpoint={"every_seconds": 1}).start(workers=1) as made:
        made.trains(20)
        yield made
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def ends_well(job):
    """The job ends as if nobody had attacked it."""
    assert set(job.end().values()) == {0}
    newest, refused = job.reader.newest()
    assert (newest.step, refused) == (job.status("step"), [])
    job.check(newest)
    assert job.status("generation") == 1
    for index in job.ps:
        assert "Traceback" not in (job.run.path / f"ps-{index}.log").read_text()


def test_an_honest_worker_is_answered_whatever_others_send(job):
    token, plan = read_token(job.run.token_file), TASKS[job.task]().plan.to_json()
    before = [peak(process) for process in job.ps.values()]
    kinds = (Damaged, Damaged, Handshakes, Huge, Slow, Slow)
    attackers = [kind(job.hosts, token, f"{SEED} {number}", plan) for number, kind in enumerate(kinds)]
    for attacker in attackers:
        attacker.start()
    watched = Watched(job)
    while sum(attacker.count for attacker in attackers[:2]) < DAMAGED:
        watched.look()
        assert [attacker.error for attacker in attackers if attacker.error] == []
        time.sleep(0.05)
    for attacker in attackers:
        attacker.stopped.set()
    for attacker in attackers:
        attacker.join(60)
        assert attacker.error is None
    wait(lambda: all(descriptors(p) < 40 for p in job.ps.values()), "connections are closed")
    grown = [peak(process) - was for process, was in zip(job.ps.values(), before, strict=True)]
    assert max(grown) < MEMORY
    watched.look()
    ends_well(job)
    counts = {}
    for attacker in attackers:
        counts[type(attacker).__name__] = counts.get(type(attacker).__name__, 0) + attacker.count
    keep(
        "attacks",
        {**counts, "grown_kib": max(grown), "bound_kib": MEMORY, "longest_gap_seconds": round(watched.longest, 2)},
    )


def test_connections_that_say_nothing_are_closed_and_cost_nothing(job):
    before, most = [peak(process) for process in job.ps.values()], 0
    watched, silent = Watched(job), []
    addresses = [Address.parse(host) for host in job.hosts]
    with contextlib.ExitStack() as stack:
        for number in range(CONNECTIONS):
            silent.append(stack.enter_context(addresses[number % 2].connect(5)))
            if number % 50 == 0:
                watched.look()
                most = max(most, *(descriptors(process) for process in job.ps.values()))
        end = time.monotonic() + SILENT_SECONDS + 30
        while any(descriptors(process) > 40 for process in job.ps.values()):
            assert time.monotonic() < end
            watched.look()
            time.sleep(0.05)
        job.start_worker(1)  # and whoever has something to say is heard
        wait(lambda: len(job.status("members")) == 2, job.describe)
    assert most < SILENT_LIMIT + 40
    grown = [peak(process) - was for process, was in zip(job.ps.values(), before, strict=True)]
    assert max(grown) < MEMORY
    ends_well(job)
    keep(
        "silent",
        {
            "connections": CONNECTIONS,
            "most_open": most,
            "grown_kib": max(grown),
            "longest_gap_seconds": watched.longest,
        },
    )
