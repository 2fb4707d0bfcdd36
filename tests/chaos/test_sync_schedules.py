"""Schedules against sync: nobody waits for ever, and the result is that of the undisturbed run."""

import itertools
import random
import signal
from collections import Counter

import numpy as np
import pytest
from numpy_jobs import NumpyJob, wait
from simulated_fleet import Fleet
from simulated_worker import Linear
from sizes import SEED, SYNC_REAL, SYNC_SIMULATED, keep
from sync_schedules import Schedule, schedule

ITEMS, BATCH, STEPS = 50, 4, 14  # 13 batches in an epoch: the last step of one has what is left

REAL_STEPS = 150


def within_bound(found, expected):
    """The bound of the design, section 5."""
    return (np.abs(found - expected) <= 1e-5 * np.abs(expected) + 1e-6).all()


def alone(folder, aggregate):
    """Returns what one worker with so many times the batch comes to."""
    with Fleet(folder, Linear(ITEMS, BATCH * aggregate), ps=1, workers=1, strategy="sync", steps=STEPS) as fleet:
        fleet.start_all()
        return fleet.run().parameters()


def spec_of(seed):
    """Returns the shape of the job that a schedule is played against."""
    rng = random.Random(seed)
    return {"ps": rng.randrange(1, 4), "workers": rng.randrange(1, 5), "replicas_to_aggregate": rng.randrange(1, 5)}


def play(folder, seed):
    """Plays one schedule in simulation; returns the parameters, the acts, and the ledger's counts."""
    played, checkpoint = Schedule(schedule(seed, STEPS)), {"every_seconds": 0, "every_steps": 3, "keep": 2}
    spec = {**spec_of(seed), "strategy": "sync", "steps": STEPS, "checkpoint": checkpoint, "peer_timeout": 5.0}
    with Fleet(folder, Linear(ITEMS, BATCH), seed, watch=True, **spec) as fleet:
        fleet.start_all()

        def over():
            for worker in fleet.workers:  # its heart beats in a thread of its own
                member = fleet.job.members.living.get(worker.member)
                if member and not (worker.ended or worker.stopped):
                    member.seen = fleet.loop.now()
            played.look(fleet)

        fleet.run(until=over, limit=100_000)
        assert (fleet.job.phase, fleet.job.ledger.step) == ("done", STEPS)
        assert {ps.partition.iteration for ps in fleet.ps} == {STEPS}
        counts = {"copies": fleet.job.ledger.copies, "rollbacks": len(fleet.earlier)}
        return fleet.parameters(), played.done, counts


def test_simulated_schedules_come_to_the_undisturbed_result(tmp_path):
    expected = {r: alone(tmp_path / f"alone-{r}", r) for r in range(1, 5)}
    acts, totals = Counter(), Counter()
    for number in range(SYNC_SIMULATED):
        seed = f"sync {SEED} {number}"
        found, done, counts = play(tmp_path / str(number), seed)
        assert within_bound(found, expected[spec_of(seed)["replicas_to_aggregate"]]), f"seed {seed!r}: {done}"
        acts.update(done)
        totals.update(counts)
    assert totals["copies"] > 0
    assert totals["rollbacks"] > 0
    keep("sync_simulated", {"schedules": SYNC_SIMULATED, "acts": dict(acts), **totals})


@pytest.mark.processes
def test_real_schedules_come_to_the_undisturbed_result(tmp_path):
    from arithmetic import Linear as Real

    acts, results = Counter(), []
    for number in range(SYNC_REAL + 1):
        rng = random.Random(f"real {SEED} {number}")
        spec = {"workers": 3, "replicas_to_aggregate": 4, "steps": REAL_STEPS, "strategy": "sync", "peer_timeout": 4.0}
        with NumpyJob(tmp_path / str(number), "linear", milliseconds=5, **spec).start(workers=3) as job:
            if number:  # the first is left alone
                acts.update(disturb(job, rng))
            codes = job.ended()
            ended = {name: code for name, code in codes.items() if code != -signal.SIGKILL}
            assert set(ended.values()) == {0}, job.describe()
            newest, refused = job.reader.newest()
            assert (newest.step, refused) == (REAL_STEPS, [])
            parameters, slots = job.reader.read(newest, 0, newest.parameters)
            results.append(np.concatenate([parameters, *slots.values()]))
    assert len(results[0]) == 3 * Real().parameters
    for number, found in enumerate(results[1:], 1):
        assert within_bound(found, results[0]), f"schedule {number}"
    keep("sync_real", {"schedules": SYNC_REAL, "acts": dict(acts)})


def disturb(job, rng):
    """Kills, stops and adds workers while the job trains; returns what was done."""
    done, spare, stopped = [], itertools.count(10), None
    for step in sorted(rng.sample(range(5, REAL_STEPS - 20), 5)):
        wait(lambda s=step: job.status("step", 0) >= s or job.status("phase") == "done", job.describe)
        what = rng.choice(["kill", "stop", "join"])
        if what == "join":
            job.start_worker(next(spare))
        else:
            index = rng.choice([index for index in job.workers if isinstance(index, int)])
            victim = job.workers.pop(index)
            if what == "kill":
                victim.kill()
                victim.wait()
                job.start_worker(index)
            elif stopped is None:
                victim.send_signal(signal.SIGSTOP)
                stopped = victim
                job.workers[f"stopped {index}"] = victim
                job.start_worker(next(spare))
            else:
                job.workers[index] = victim
        done.append(what)
    if stopped is not None:  # it is told that it is out, or that the job is over
        wait(lambda: job.status("phase") == "done", job.describe) if rng.random() < 0.5 else None
        stopped.send_signal(signal.SIGCONT)
    return done
