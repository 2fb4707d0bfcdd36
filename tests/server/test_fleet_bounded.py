"""Bounded jobs in simulation: nobody begins a step too far ahead of the slowest, whoever dies, waits or evaluates."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from simulated_fleet import Fleet, acknowledged, die, die_ps
from simulated_worker import Counting

from tfleet.spec.layout import CHUNK

STEPS = 24
TASK = Counting(items=50, batch=4)
EACH = {"every_seconds": 0, "every_steps": 3, "keep": 100}

seeds = st.integers(0, 2**32)
deaths = st.lists(st.integers(0, 900), max_size=4, unique=True)


class Lead:
    """Looks on from outside, between any two things that happen: what each member has pushed, and what it holds."""

    def __init__(self, fleet):
        self.fleet, self.largest = fleet, 0
        self._began, self._counted, self._slowest, self._job = {}, set(), 0, None

    def look(self):
        job, ledger = self.fleet.job, self.fleet.job.ledger
        if job is not self._job:
            self._began, self._counted, self._slowest, self._job = {}, set(), 0, job
        if ledger is None:
            return False
        held = list(ledger._leased.values())
        now = {m.number: m.steps for m in job.members.workers if m.number in ledger._counted}
        for number in now.keys() - self._counted:  # who joins, or comes back, is not behind the slowest
            self._began[number] = max(self._began.get(number, -STEPS * 9), self._slowest - now[number])
        self._counted = now.keys()
        at = {number: steps + self._began[number] for number, steps in now.items()}
        self._slowest = min(at.values(), default=self._slowest)
        for number, completed in at.items():
            if held.count(number):
                self.largest = max(self.largest, completed + held.count(number) - 1 - self._slowest)
        return False


def bounded(folder, task=TASK, seed=0, staleness=1, **spec):
    return Fleet(folder, task, seed, **{"strategy": "bounded", "staleness": staleness, "steps": STEPS, **spec})


@given(seeds, st.integers(1, 3), st.integers(1, 4), st.sampled_from([0, 1, 4]), deaths)
@settings(max_examples=50, deadline=None, derandomize=True)
def test_every_batch_counts_once_and_nobody_is_too_far_ahead(tmp_path_factory, seed, ps, workers, staleness, deaths):
    spec = {"ps": ps, "workers": workers, "staleness": staleness, "checkpoint": EACH}
    with bounded(tmp_path_factory.mktemp("run"), seed=seed, **spec) as fleet:
        fleet.start_all()
        lead = Lead(fleet)
        fleet.run(until=lead.look, at=dict.fromkeys(deaths, die))
        assert fleet.job.phase == "done"
        assert fleet.job.ledger.step == STEPS
        assert lead.largest <= fleet.job.status()["ledger"]["lead"] <= staleness
        wrong = (TASK.counts(fleet.parameters())[:, :STEPS] != 1).any(0).sum()
        assert wrong <= fleet.job.partial_updates
        for number in fleet.store.numbers():
            manifest = fleet.store.get(number)
            assert len(acknowledged(manifest.ledger, TASK.batches)) == manifest.step


@pytest.mark.parametrize("staleness", [0, 2])
@pytest.mark.parametrize("how", ["wakes", "dies", "is dropped", "is drained"])
def test_the_others_wait_for_a_slow_worker_and_go_on_when_it_does_or_is_gone(tmp_path, how, staleness):
    with bounded(tmp_path, ps=2, workers=3, staleness=staleness, steps=60) as fleet:
        slow, *others = fleet.start_all()
        fleet.run(until=lambda: slow.sequence == 2 and slow.pushing and not slow.lines[0].sock.outgoing.bytes)
        fleet.run(until=lambda: not slow.pushing and slow.ready)  # it has its next batch, and takes for ever
        slow.stopped = True
        for _ in range(50):
            fleet.settle()
            fleet.loop.advance(0.05)
        stopped_at = fleet.job.step
        assert {worker.member for worker in others} == set(fleet.job._parked)
        assert fleet.job.ledger.lead == staleness
        ahead = [fleet.job.members.living[worker.member].steps for worker in others]
        assert len(set(ahead)) == 1  # both are as far as they may be
        if how == "dies":
            fleet.kill(slow)
        elif how == "is dropped":
            fleet.job.remove(fleet.job.members.living[slow.member], "lost", "worker 0 is dropped: silent")
        elif how == "is drained":
            fleet.drain(slow)
            fleet.run(until=lambda: fleet.loop.time > 1010)
            assert fleet.job.step == stopped_at  # its batch is still to come
        if how in ("wakes", "is drained"):
            slow.stopped = False
        fleet.run()
        assert fleet.job.phase == "done"
        assert fleet.job.ledger.step == 60 > stopped_at
        assert fleet.job.ledger.lead <= staleness
        assert slow.ended == {"wakes": "over", "dies": "killed", "is dropped": "", "is drained": "drained"}[how]


def test_nobody_waits_for_a_worker_that_evaluates(tmp_path):
    task = Counting(items=50, batch=4, evaluates=True)
    spec = {"ps": 2, "workers": 3, "staleness": 0, "steps": 60, "evaluation": {"every_steps": 10}}
    with bounded(tmp_path, task, evaluate=lambda manifest: {"loss": 1.0}, **spec) as fleet:
        fleet.start_all()
        lead = Lead(fleet)
        fleet.run(until=lambda: lead.look() or fleet.job.evaluating._holder is not None)
        evaluator = next(w for w in fleet.workers if w.member == fleet.job.evaluating._holder.number)
        evaluator.stopped = True
        begun = fleet.job.step
        fleet.run(until=lambda: lead.look() or fleet.job.step >= begun + 20)
        evaluator.stopped = False
        fleet.run(until=lead.look)
        assert fleet.job.phase == "done"
        assert fleet.job.ledger.lead == lead.largest == 0


def test_who_has_waited_computes_on_what_all_ps_hold_then(tmp_path):
    seen = {}

    class Watched(Counting):
        def gradient(self, parameters, epoch, batch):
            seen[epoch, batch] = self.counts(parameters)
            return super().gradient(parameters, epoch, batch)

    with bounded(tmp_path, Watched(items=50, batch=4), ps=3, workers=2, staleness=0) as fleet:
        slow, fast = fleet.start_all()
        fleet.run(until=lambda: slow.sequence == 2 and slow.pushing and slow.lines[1].sock.outgoing.bytes, tick=0)
        while not slow.lines[0].sock.outgoing.bytes:
            slow.go_on()
        slow.stopped = True
        pipes = [line.sock.outgoing for line in slow.lines]
        kept = [bytes(pipe.bytes) for pipe in pipes]
        for pipe in pipes:
            pipe.bytes.clear()
        for _ in range(20):  # what it has pushed is still on its way while the other waits
            fleet.settle()
            fleet.loop.advance(0.05)
        assert fast.member in fleet.job._parked
        before = set(seen)
        for line, pipe, push in list(zip(slow.lines, pipes, kept, strict=True))[::-1]:
            pipe.bytes += push
            fleet.settle_reads(line)
        slow.stopped = False
        fleet.run(until=lambda: len(set(seen) - before) >= 2, tick=0)
        for key in set(seen) - before:
            done = seen[key]
            assert done.shape == (3, CHUNK)
            assert (done[:, :4] == 1).all()  # two steps of both: the update that was waited for is on every ps


@pytest.mark.parametrize("seed", range(6))
def test_after_a_rollback_everybody_is_counted_anew(tmp_path, seed):
    with bounded(tmp_path, seed=seed, ps=2, workers=3, staleness=1, checkpoint=EACH, watch=True) as fleet:
        fleet.start_all()
        lead = Lead(fleet)
        fleet.run(until=lambda: lead.look() or fleet.job.step >= 8)
        fleet.run(until=lead.look, at={1: lambda fleet: die_ps(fleet, seed % 2)})
        assert fleet.job.phase == "done"
        assert (lead.largest, fleet.job.history.rollbacks) <= (1, 1)
        done = acknowledged(fleet.job.ledger.to_json(), TASK.batches)
        assert len(done) == STEPS
        np.testing.assert_array_equal(TASK.counts(fleet.parameters())[:, :STEPS], 1)
