"""The protocol (ledger, commits, fences, generations) as a state machine, against a plain reference.

The coordinator, the partitions, the store and the connections are the real ones; sockets, time, threads and workers
are the test's. A rule lets one thing happen, or some in an order that it draws.
"""

import contextlib
import random
import shutil
import tempfile

import hypothesis.internal.conjecture.engine as engine
import hypothesis.stateful as stateful
import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    rule,
    run_state_machine_as_test,
)
from protocol_reference import MARKS, Marked, Reference
from puppets import Puppet
from simulated_fleet import Fleet, die_ps
from simulated_sockets import Lost
from simulated_worker import Worker
from sizes import DEEP, DEEP_MACHINES, DEPTH, LONG, MACHINES, keep

PEER_TIMEOUT = 5.0
COUNTS = dict.fromkeys(
    ("fleets", "rules", "deepest", "events", "most_events", "rollbacks", "removed", "commits", "pushes"), 0
)
any_number = st.integers(0, 1 << 16)


class Protocol(RuleBasedStateMachine):
    """A job and what befalls it."""

    endless = False

    def __init__(self):
        super().__init__()
        self.folder = tempfile.mkdtemp(prefix="tfleet-machine-")
        self.reference = self.fleet = None
        self.events = self.rules = 0

    @initialize(
        ps=st.integers(1, 3),
        strategy=st.sampled_from(["async", "bounded"]),
        steps=st.sampled_from([0, 25, 60, 2_000]),
        workers=st.integers(1, 3),
        seed=any_number,
    )
    def begin(self, ps, strategy, steps, workers, seed):
        task, steps = Marked(ps), 0 if self.endless else steps
        self.reference = Reference(task)
        spec = {"ps": ps, "strategy": strategy, "steps": steps, "workers": workers, "peer_timeout": PEER_TIMEOUT}
        self.fleet = self.reference.fleet = Fleet(self.folder, task, seed, watch=True, **spec)
        for index in range(workers):
            self.join(index)
        self.fleet.run(until=lambda: self.fleet.job.phase == "training" and any(p.can_act for p in self.puppets))

    @property
    def puppets(self):
        return [worker for worker in self.fleet.workers if not worker.ended]

    def step(self):
        """Lets one thing happen."""
        self.events += 1
        return self.fleet.step()

    # What happens by itself.

    @rule(count=st.integers(1, 60), seed=any_number)
    def happen(self, count, seed):
        self.fleet.random = random.Random(seed)
        for _ in range(count):
            if not self.step():
                break

    @rule(choice=any_number, allow=st.sampled_from([16, 72, 1000, 1 << 30]))
    def deliver(self, choice, allow):
        self.generations()
        ready = [sock for sock, (events, _) in self.fleet.loop.watched.items() if events and sock.readable]
        if ready:
            sock = ready[choice % len(ready)]
            sock.allow = allow
            self.fleet.loop.watched[sock][1](1)
            self.events += 1

    @rule(seconds=st.sampled_from([0.05, 0.3, 1.0]), times=st.integers(1, 8))
    def time(self, seconds, times):
        for _ in range(times):
            self.generations()
            for puppet in self.puppets:  # a heart beats in a thread of its own
                member = self.fleet.job.members.living.get(puppet.member)
                if member and not puppet.stopped:
                    member.seen = self.fleet.loop.now()
            while self.step_reads():
                pass
            self.fleet.loop.advance(seconds)

    def step_reads(self):
        return self.fleet.step(only_reads=True)

    # What workers do.

    @rule(seed=any_number, count=st.integers(10, 40), wake=st.booleans())
    def work(self, seed, count, wake):
        """Everybody does what is sensible, and things happen meanwhile."""
        self.fleet.random = rng = random.Random(seed)
        for puppet in self.puppets if wake else ():
            puppet.stopped = False
        for index in range(2):
            self.join(index)
        for _ in range(count):
            self.act(rng.randrange(9), lambda p: p.idle and not p.leases, lambda p: p.pull())
            if len(self.reference.task.keys) < MARKS - 200:
                self.act(rng.randrange(9), lambda p: p.idle and p.leases, lambda p: p.begin(self.reference))
            self.act(rng.randrange(9), lambda p: p.can_act and p.unsent, lambda p: p.send_one(rng.randrange(9)))
            if rng.random() < 0.1:
                self.act(rng.randrange(9), lambda p: p.can_act and p.last, lambda p: p.again(rng.randrange(9)))
            for _ in range(rng.randrange(6)):
                self.step()

    @rule(choice=any_number)
    def pull(self, choice):
        self.act(choice, lambda p: p.idle and not p.leases, lambda p: p.pull())

    @rule(choice=any_number, parts=st.integers(0, 3), order=any_number)
    def push(self, choice, parts, order):
        def some(puppet):
            puppet.begin(self.reference)
            for _ in range(min(parts, len(puppet.unsent))):
                puppet.send_one(order)

        if len(self.reference.task.keys) < MARKS - 200:
            self.act(choice, lambda p: p.idle and p.leases, some)

    @rule(choice=any_number, order=any_number)
    def send(self, choice, order):
        self.act(choice, lambda p: p.can_act and p.unsent, lambda p: p.send_one(order))

    @rule(choice=any_number, which=any_number)
    def duplicate(self, choice, which):
        self.act(choice, lambda p: p.can_act and p.last, lambda p: p.again(which))

    def act(self, choice, can, what):
        chosen = [puppet for puppet in self.puppets if can(puppet)]
        if chosen:
            puppet = chosen[choice % len(chosen)]
            with contextlib.suppress(Lost):
                what(puppet)
            self.events += 1

    # What befalls them.

    @rule(index=st.integers(0, 3))
    def join(self, index):
        if not any(p.index == index for p in self.puppets):
            self.fleet.workers = [*self.puppets, Puppet(index, "worker", self.fleet)]

    @rule(choice=any_number)
    def die(self, choice):
        self.act(choice, lambda p: True, self.fleet.kill)

    @rule(choice=any_number)
    def fall_silent(self, choice):
        self.act(choice, lambda p: not p.stopped, lambda p: setattr(p, "stopped", True))

    @rule(choice=any_number)
    def wake(self, choice):
        self.act(choice, lambda p: p.stopped, lambda p: setattr(p, "stopped", False))

    @rule(index=st.integers(0, 2))
    def ps_dies(self, index):
        self.generations()
        if self.rules % 3 == 0 and index < self.fleet.spec.ps:  # less often than the rest: else nothing gets far
            die_ps(self.fleet, index)

    @rule()
    def commit(self):
        self.generations()
        self.fleet.job.checkpointing.want()

    @rule(index=st.integers(0, 2), full=st.booleans())
    def disk(self, index, full):
        if self.fleet.job.phase != "starting":  # a full disk ends the job there
            self.fleet.disks[index % self.fleet.spec.ps].full = full

    @rule(workers=st.integers(1, 4))
    def scale(self, workers):
        if self.fleet.job.phase == "training" and not self.fleet.processes[0].dead:
            with contextlib.suppress(Lost):
                self.fleet.client("scale", workers=workers)

    # What always holds.

    def generations(self):
        """A generation that has ended is followed by the next before anything else."""
        if self.fleet._ended:
            self.fleet.next_generation()

    @invariant()
    def holds(self):
        self.rules += 1
        if self.fleet is not None:
            self.reference.look()

    def teardown(self):
        try:
            if self.fleet is not None:
                self.finish()
        finally:
            if self.fleet is not None:
                self.fleet.close()
                self.reference.end()
            shutil.rmtree(self.folder)

    def ready_to_end(self):
        """Whether ps 0 is there to be told so, with somebody to do the rest."""
        job, waiting = self.fleet.job, self.fleet.soon or self.fleet._ended
        trains = job.phase in ("training", "finalising") and job.members.workers
        return job.ending.over or (trains and not waiting and not any(p.dead for p in self.fleet.processes))

    def finish(self):
        """Whatever was: once nobody is hindered any more, the job ends."""
        fleet = self.fleet
        for disk in fleet.disks:
            disk.full = False
        for puppet in self.puppets:
            fleet.kill(puppet)
        fleet.workers += [Worker(index, "worker", fleet) for index in range(2)]
        if fleet.job.ending.over is None:
            fleet.run(until=self.ready_to_end)
            fleet.job.ending.ask("stop", "") if not fleet.job.ledger.total else None
        fleet.run(limit=60_000)
        self.reference.look()
        if "No space left on device" in fleet.job.ending.reason:
            assert fleet.job.phase == "failed"  # the disk was full for the first commit of all
        else:
            assert fleet.job.phase in ("done", "stopped"), fleet.describe()
            self.reference.finished()
        COUNTS["fleets"] += 1
        COUNTS["rules"] += self.rules
        COUNTS["events"] += self.events
        COUNTS["most_events"] = max(COUNTS["most_events"], self.events)
        COUNTS["deepest"] = max(COUNTS["deepest"], self.rules)
        COUNTS["rollbacks"] += len(fleet.earlier)
        COUNTS["removed"] += self.reference.removed
        COUNTS["commits"] += len(self.reference._checked)
        COUNTS["pushes"] += len(self.reference.task.keys)


class Endless(Protocol):
    """The same, where nothing ends before the end."""

    endless = True


@pytest.mark.parametrize(
    ("machine", "name", "machines", "depth"),
    [(Protocol, "wide", MACHINES, DEPTH), (Endless, "deep", DEEP_MACHINES, DEEP)],
)
def test_the_protocol_does_what_a_plain_reference_says(monkeypatch, machine, name, machines, depth):
    COUNTS.update(dict.fromkeys(COUNTS, 0))
    if depth > 500:  # hypothesis cuts short what draws more than this
        for module in (engine, stateful):
            monkeypatch.setattr(module, "BUFFER_SIZE", 1 << 20)
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=machines,
            stateful_step_count=depth,
            deadline=None,
            derandomize=not LONG,
            suppress_health_check=list(HealthCheck),
            phases=[Phase.generate, Phase.shrink],
            print_blob=True,
            database=None,
        ),
    )
    assert COUNTS["removed"] > 0
    assert COUNTS["commits"] > COUNTS["fleets"]
    keep(f"state_machine_{name}", {"depth": depth, **COUNTS})
