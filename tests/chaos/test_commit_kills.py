"""SIGKILL of ps in every phase of a commit: the last commit always loads, with the bytes that it must have."""

import hashlib
import json
import random
import signal
import time
from collections import Counter

import pytest
from faulty_ps import OF_ALL, PHASES
from numpy_jobs import NumpyJob, wait
from sizes import KILLS, SEED, keep

pytestmark = pytest.mark.processes

EACH = {"every_seconds": 0, "every_steps": 20, "keep": 3}


def plan(kills, seed):
    """Returns who is killed by whom in which phase: every combination before any comes twice."""
    rng = random.Random(seed)
    victims = ([0], [1], [0, 1])
    every = [(phase, 0, who) for phase in PHASES for who in victims]
    every += [(phase, 1, who) for phase in OF_ALL for who in victims]
    first = [next(entry for entry in rng.sample(every, len(every)) if entry[0] == phase) for phase in PHASES]
    chosen = list(first)
    while len(chosen) < kills:
        chosen += rng.sample(every, len(every))
    return chosen[:kills]


def kill(job, number, phase, by, victims):
    """Has ps killed when a commit comes to the phase, and looks at what is there; returns the commit that is left."""
    for name in ("fired.json", "snapshot.json"):
        (job.faults / name).unlink(missing_ok=True)
    wanted = {"phase": phase, "index": by, "victims": victims, "number": job.reader.next_number() + 1}
    (job.faults / "fault.tmp").write_text(json.dumps(wanted))
    (job.faults / "fault.tmp").rename(job.faults / "fault.json")
    wait(lambda: (job.faults / "snapshot.json").exists(), lambda: f"kill {number}, {phase}: {job.describe()}")
    for victim in victims:
        assert job.ps[victim].wait(60) == -signal.SIGKILL
    before = json.loads((job.faults / "snapshot.json").read_text())
    newest, refused = job.reader.newest()
    assert refused == []
    last = max(name for name in before if name.endswith(".manifest.json"))
    assert (newest.generation, newest.number) >= tuple(int(part[1:]) for part in generation_and_number(last))
    for file in newest.files:
        if file.name in before:
            found = hashlib.sha256((job.reader.directory / file.name).read_bytes()).hexdigest()
            assert found == before[file.name] == file.sha256
    job.check(newest)
    return newest


def generation_and_number(name):
    """Returns both parts of a manifest's name, each behind a letter."""
    number, generation, _ = name.split(".", 2)
    return generation, "n" + number.removeprefix("commit-")


def test_a_ps_killed_in_any_phase_of_a_commit_leaves_the_last_one(tmp_path):
    counted, began = Counter(), time.monotonic()
    with NumpyJob(tmp_path, checkpoint=EACH).start(workers=2) as job:
        job.trains(60)
        for number, (phase, by, victims) in enumerate(plan(KILLS, SEED)):
            generation = job.status("generation")  # first: a ps that lives begins the next one at once
            left = kill(job, number, phase, by, victims)
            for victim in victims:
                job.start_ps(victim, resume=True)
            wait(lambda g=generation: job.status("generation") > g, job.describe)
            job.trains()
            wait(
                lambda: (job.status("last_commit") or {}).get("step", 0) > left.step,  # noqa: B023
                lambda n=number, p=phase: f"commits after kill {n}, {p}: {job.describe()}",
            )
            counted[phase] += 1
        assert set(job.end().values()) == {0}
        status = job.run.status()
        assert (status["phase"], status["exit_code"]) == ("stopped", 0)
        assert status["ledger"]["partial_updates"] == 0
        newest, refused = job.reader.newest()
        assert (newest.step, refused) == (status["step"], [])
        job.check(newest)
    seconds = round(time.monotonic() - began, 1)
    keep("commit_kills", {"kills": sum(counted.values()), "phases": dict(counted), "seconds": seconds})
