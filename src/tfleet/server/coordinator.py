"""The coordinator, a part of ps 0: who takes part, who gets which lease, what the global step is.

It runs in the loop's thread only, so nothing in it locks. How a job starts, commits, evaluates and ends stand in
files of their own, as parts that share this object.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

from tfleet.checkpoint.errors import none_readable
from tfleet.checkpoint.manifest import Manifest
from tfleet.checkpoint.store import Store
from tfleet.server.arrivals import Arrivals
from tfleet.server.calls import Call, Calls, Values
from tfleet.server.checkpointing import Checkpointing
from tfleet.server.commits import row
from tfleet.server.dropped import Dropped
from tfleet.server.ending import Ending
from tfleet.server.evaluating import Evaluating
from tfleet.server.guests import Guests
from tfleet.server.history import History
from tfleet.server.links import Links
from tfleet.server.listener import Reply
from tfleet.server.local_steps import LocalSteps
from tfleet.server.members import Member, Members
from tfleet.server.plan import TrainingPlan
from tfleet.server.presence import Presence
from tfleet.server.profile import Profile, Staleness
from tfleet.server.progress import Progress
from tfleet.server.replica import PsReplica
from tfleet.server.scaling import Scaling
from tfleet.server.starting import Starting
from tfleet.server.status import describe
from tfleet.spec.errors import WrongInput
from tfleet.spec.job import JobSpec
from tfleet.spec.rundir import RunDir
from tfleet.strategies import strategy
from tfleet.strategies.ledger import Ledger
from tfleet.strategies.rule import Vector
from tfleet.wire.frames import Have, Lease, Order, Push, Take
from tfleet.wire.loop import Loop
from tfleet.wire.server import Connection

SERVE_EVERY = 0.05
"""Seconds between two looks at the workers that wait, for leases that have become overdue."""


class Coordinator:
    """The brain of one job.

    Attributes:
        phase: starting, training, finalising, then how the job ended.
        plan: None until the first worker has described the task.
        ledger: likewise.
        progress: likewise.
        history: what earlier generations left.
        rolled_back: whether this generation is over because a ps was lost; the next goes on from the last commit.
        notes: what the user should be told once.
        profile: where the time goes.
        staleness: of the parameters that gradients were computed from.
        events: where ps 0 tells what it does.
        counts: of what happened in this and earlier generations; see `tfleet.server.status`.
        dropped: the last members that were lost.
        goes_on: the commit that this generation begins with, as the status tells it, or None.
        undone: steps that were lost by going back, in all generations.
        partial_updates: updates of lost workers that some partitions have and others have not.
        training_started: wall-clock time of the first lease, or None.
        training_elapsed: seconds of training, of earlier generations too; of this one once it has ended.
        clock: wall-clock time in Unix seconds.
        run_dir: of the job.
    """

    def __init__(
        self,
        spec: JobSpec,
        run: RunDir,
        loop: Loop,
        replica: PsReplica,
        store: Store,
        hosts: list[str],
        resume: bool,
        clock: Callable[[], float],
        history: History | None = None,
    ) -> None:
        """Takes up a generation of the job.

        Args:
            spec: the job.
            run: its directory.
            loop: the event loop that everything here runs in.
            replica: ps 0 itself.
            store: of the commits.
            hosts: addresses of all ps, by index.
            resume: go on from the newest commit.
            clock: wall-clock time in Unix seconds.
            history: what earlier generations left.
        """
        self.spec = spec
        self.strategy = strategy(spec.strategy)
        self.loop = loop
        self.phase = "starting"
        self.plan: TrainingPlan | None = None
        self.ledger: Ledger | None = None
        self.progress: Progress | None = None
        self.history = history or History()
        self.rolled_back = False
        self.notes = list(self.history.notes)
        self.clock = clock
        self.started = self.history.started or clock()
        self.training_started: float | None = None
        self.training_elapsed = self.history.training_elapsed
        self.last_worker = loop.now()
        self.counts = Counter(self.history.counts)
        self.dropped = Dropped(self.history.fenced)
        self.members = Members()
        self.profile = Profile()
        self.staleness = Staleness()
        self.links = Links(replica, spec.ps)
        self._arrivals = Arrivals(spec.ps - 1)
        self.run_dir = run
        self.events = replica.events
        self._replica = replica
        self._parked: dict[int, tuple[Connection, Push, bool]] = {}
        # First of all: from here on no thread of an earlier generation can add a commit to those that are looked at.
        self.generation = replica.generation = store.generation() + 1
        store.store_generation(self.generation)
        manifest, refused = store.newest() if resume else (None, [])
        self.notes += refused
        self._unreadable = refused if manifest is None else []
        if resume and manifest is None and not refused:
            self.note("there is no commit to go on from: training begins anew")
        self.goes_on = row(manifest) if manifest else None
        # The commit knows of its own, where the last status was older, or that of a job which is over.
        known = int(manifest.metrics.get("partial_updates", 0)) if manifest else 0
        self.partial_updates = max(self.history.partial_updates, known)
        self.undone = self.history.undone + max(0, self.history.step - self.told_step)
        self.starting = Starting(self, store, manifest, hosts)
        self.checkpointing = Checkpointing(self, store)
        self.evaluating = Evaluating(self)
        self.ending = Ending(self)
        self.scaling = Scaling(self)
        self.guests = Guests(self)
        self.local_steps = LocalSteps(self)
        self._calls: Calls = {
            **Presence(self).calls,
            **self.starting.calls,
            **self.checkpointing.calls,
            **self.evaluating.calls,
            **self.ending.calls,
            **self.scaling.calls,
            **self.guests.calls,
            **self.local_steps.calls,
        }
        if spec.listen:
            self.note_once(f"workers may join: 'tfleet join {hosts[0]}', with the token in {run.token_file}")
        replica.listener = self
        loop.call_every(SERVE_EVERY, self.serve_parked)

    @property
    def step(self) -> int:
        """The global step."""
        return self.ledger.step if self.ledger else 0

    @property
    def epoch(self) -> float:
        """Unix time at which the loop's time is 0."""
        return self.clock() - self.loop.now()

    @property
    def told_step(self) -> int:
        """The global step with those told of but not pushed, no more than the last; at first where it goes on from."""
        if self.ledger is None:
            return int(self.goes_on["step"]) if self.goes_on else 0
        told = self.step + self.local_steps.under_way
        return min(told, self.ledger.total) if self.ledger.total else told

    @property
    def state(self) -> Vector:
        """The state that training calls assign, which ps 0 holds."""
        assert self._replica.partition is not None
        return self._replica.partition.state

    def adopt(self, plan: TrainingPlan, ledger: Ledger, manifest: Manifest | None) -> None:
        """Takes the plan of the job, and where it goes on.

        Raises:
            WrongInput: when there are commits to go on from, but none can be read.
        """
        if self._unreadable:
            raise none_readable(self._unreadable)
        self.plan, self.ledger = plan, ledger
        self.progress = Progress(self.run_dir, plan.layout.metrics, self.clock)
        if manifest:
            ledger.restore(manifest.ledger)
            self.evaluating.evaluations.restore(manifest.metrics["evaluations"])
            self.checkpointing.commits.last = self.goes_on
            self.note(f"goes on from commit {manifest.number} at step {manifest.step}")

    def begin_training(self) -> None:
        """Every partition has its parameters: leases may be given."""
        if self.phase == "starting":
            self.phase = "training"
            self.checkpointing.begin()
            self.ending.begin()
            self.ending.finish_if_done()

    # What the ps replica hands on (`Listener`).

    def knows(self, connection: Connection, member: int) -> bool:
        """Whether the connection is that of a living member of this number."""
        return member in self.members.living and self.members.living[member] is connection.owner

    def pushed(self, connection: Connection, push: Push, metrics: Vector) -> None:
        """Counts a push of a worker and answers it; where steps are aggregated, once every other ps has it too."""
        member = self.members.living.get(push.member)
        if member is None:
            self._refuse(connection)
            return
        member.seen = self.loop.now()
        if self.strategy.aggregates and not self._arrivals.complete(push.member, push.sequence):
            self._arrivals.hold(connection, push, metrics)
            return
        self._count(member, connection, push, metrics)

    def arrived(self, connection: Connection, have: Have) -> None:
        """A push has arrived at another ps; the last of them makes it count."""
        index = self.links.index_of(connection)
        if index is None or have.member not in self.members.living:
            return
        held = self._arrivals.note(index, have)
        if held:
            self._count(self.members.living[have.member], *held)

    def _count(self, member: Member, connection: Connection, push: Push, metrics: Vector) -> None:
        assert self.ledger is not None
        assert self.progress is not None
        before, now = self.ledger.step, self.loop.now()
        counted = self.ledger.acknowledge(member.number, (push.epoch, push.batch), now)
        self.local_steps.release(member)
        if counted:
            member.steps += counted
            self.events.add("ack", member.number, push.sequence, push.epoch, push.batch, counted, self.ledger.step)
            self.staleness.add(before - push.step)
            self.progress.pushed(member.index, member.steps, self.told_step, metrics)
        if self.ledger.step != before:
            self.local_steps.clear()
            if self.strategy.aggregates:
                self.links.reached(self.ledger.step)  # first: the others apply it meanwhile
            self._replica.reach(self.ledger.step)
            self.checkpointing.stepped(before)
            self.ending.finish_if_done()
            if self._parked:
                self.loop.call_later(0, self.serve_parked)
        self._serve(member, connection, push, pulled=False)

    def pulled(self, connection: Connection, pull: Push) -> None:
        """Answers a worker that asks for parameters and a lease without pushing."""
        member = self.members.living.get(pull.member)
        if member is None:
            self._refuse(connection)
            return
        member.seen = self.loop.now()
        self._serve(member, connection, pull, pulled=True)

    def call(self, connection: Connection, values: Values, payload: memoryview, reply: Reply) -> None:
        """Acts on a call by name.

        Raises:
            WrongInput: for an unknown call, or what the call's part finds wrong.
        """
        handler = self._calls.get(str(values.get("call")))
        if handler is None:
            raise WrongInput(f"ps 0 does not know the call {values.get('call')!r}; use one tfleet version everywhere")
        member = connection.owner if isinstance(connection.owner, Member) else None
        if member:
            member.seen = self.loop.now()
        handler(Call(connection, member, values, payload, reply))

    def payload_limit(self, values: Values) -> int:
        """Returns the bytes that a call may bring: initial state and frozen values, or metrics of local steps."""
        limits = {"initialised": self.starting.payload_limit, "progress": self.local_steps.payload_limit}
        limit = limits.get(str(values.get("call")))
        return limit() if limit else 0

    def gone(self, connection: Connection) -> None:
        """A worker, the evaluator or a ps has closed its connection, or died."""
        if isinstance(connection.owner, Member):
            member = connection.owner
            if member.number in self.members.living:
                over = self.ending.over
                why = "" if over else f"{member.role} {member.index} is lost: its connection was closed"
                self.remove(member, "done" if over else "lost", why)
        elif (index := self.links.index_of(connection)) is not None:
            self.roll_back(f"ps {index} is lost: its connection was closed")

    def answered(self, connection: Connection, values: Values, error: bool) -> None:
        """Hands the answer of a ps to whoever asked."""
        self.links.answered(connection, values, error)

    def roll_back(self, why: str) -> None:
        """Ends this generation: a ps is lost, and what it held; the second time nothing happens."""
        if self.ending.over or self.rolled_back:
            return
        self.note(f"{why}; everybody goes back to the last commit")
        if self.ending.wish == "interrupted":  # whoever interrupts does not wait for the ps to come back
            self.ending.give_up()
            return
        self.rolled_back = True
        self.loop.stop()

    # Leases and orders.

    def serve_parked(self) -> None:
        """Tries again to give something to the workers that wait."""
        parked, self._parked = self._parked, {}
        for number, (connection, push, pulled) in parked.items():
            member = self.members.living.get(number)
            if member:
                self._serve(member, connection, push, pulled=pulled)

    def _serve(self, member: Member, connection: Connection, push: Push, *, pulled: bool) -> None:
        order = self._order(member) if push.want and not member.draining else Order.NONE
        leases: list[Lease] = []
        may_lease = self.phase == "training" and not self.checkpointing.blocked
        want = 0 if member.draining else push.want
        if self.ledger and order is Order.NONE and may_lease:
            leases = self.ledger.lease(member.number, want, self.loop.now())
        if self.ledger and order is not Order.NONE:
            self.ledger.rest(member.number)
        waits = not leases and order is Order.NONE and want and not push.held
        if waits and (pulled or self.strategy.aggregates):
            self._parked[member.number] = (connection, push, pulled)
            return
        if leases and self.training_started is None:
            self.training_started = self.clock()
        # Whoever has to wait pulls: what the other ps have told it would be old by the time that it gets a batch.
        fresh = self.strategy.aggregates and not self.strategy.local and push.step == self.step
        stale = not waits and (pulled or not fresh)
        take = Take(self.generation, self.step, order, tuple(leases))
        self._replica.answer(connection, take, push.slot if stale else None)

    def _order(self, member: Member) -> Order:
        if self.ending.over:
            return Order.OVER
        if self.evaluating.lease(member):
            return Order.EVALUATE
        if self.ending.lease(member):
            return Order.FINALISE
        return Order.NONE

    def _refuse(self, connection: Connection) -> None:
        self._replica.answer(connection, Take(self.generation, self.step, Order.REJOIN, ()), None)

    # Members.

    def remove(self, member: Member, state: str, why: str) -> None:
        """Takes a member out: fences it at every partition, then gives its batches to others."""
        self.members.remove(member, state)
        self.events.add("out", member.number, member.role, member.index, state)
        if state == "lost":
            self.counts["fenced"] += 1
            self.dropped.add(member, self.generation, self.clock(), why)
        self._arrivals.forget(member.number)
        self._parked.pop(member.number, None)
        if why:
            self.note(why)
        member.connection.close()
        if self.ending.over:
            self.ending.check()
        elif not self.starting.prepared:
            self._release(member)
        else:
            values = {"member": member.number}
            self.links.ask_all("fence", lambda index: values, lambda r: self._fenced(member, r), self.ending.fail)

    def _fenced(self, member: Member, results: list[Values]) -> None:
        if not self.strategy.aggregates and len({result["sequence"] for result in results}) > 1:
            self.partial_updates += 1
        self._release(member)

    def _release(self, member: Member) -> None:
        if self.ledger:
            self.counts["given_back"] += self.ledger.give_back(member.number)
            self.ending.given_back()
        for part in (self.starting, self.evaluating, self.ending, self.local_steps):
            part.release(member)
        self.serve_parked()

    def note(self, text: str) -> None:
        """Remembers something that the user should be told once, and logs it."""
        self.notes.append(text)
        print(f"tfleet: {text}", flush=True)

    def note_once(self, text: str) -> None:
        """Notes what has not been noted yet."""
        if text not in self.notes:
            self.note(text)

    def status(self) -> dict[str, Any]:
        """Returns the job's status; see docs, run directory, for its fields."""
        return describe(self)
