"""The coordinator, a part of ps 0: it joins the workers, gives leases, counts steps, and ends the job.

It runs in the loop's thread only, so nothing in it locks. How a commit is made, what evaluations lead to, and what is
told about the job stand in files of their own; this one holds what happens when.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from tfleet.checkpoint.manifest import Manifest
from tfleet.checkpoint.store import Store
from tfleet.server.commits import Commits, Facts
from tfleet.server.ending import Ending
from tfleet.server.evaluations import Evaluations
from tfleet.server.ledger import Ledger
from tfleet.server.links import Links
from tfleet.server.members import Member, Members
from tfleet.server.partition import Vector
from tfleet.server.plan import TrainingPlan
from tfleet.server.progress import Progress
from tfleet.server.replica import PsReplica, Reply
from tfleet.server.status import describe
from tfleet.server.sync_ledger import SyncLedger
from tfleet.spec.errors import ExitCode, WrongInput
from tfleet.spec.job import JobSpec
from tfleet.spec.layout import partition_bounds
from tfleet.spec.rundir import RunDir
from tfleet.wire.frames import Order, Push, Take
from tfleet.wire.loop import Loop
from tfleet.wire.server import Connection

Values = dict[str, Any]


class Coordinator:
    """The brain of one job.

    Args:
        spec: the job.
        run: its directory.
        loop: the event loop that everything here runs in.
        replica: ps 0 itself.
        store: of the commits.
        hosts: addresses of all ps, by index.
        resume: go on from the newest commit.
        clock: wall-clock time in Unix seconds.
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
    ) -> None:
        self.spec = spec
        self.phase = "starting"
        self.notes: list[str] = []
        self.members = Members()
        self.evaluations = Evaluations(spec.evaluation)
        self.plan: TrainingPlan | None = None
        self.ledger: Ledger | None = None
        self.progress: Progress | None = None
        self.partial_updates = 0
        self.ending = Ending(self)
        self.loop = loop
        self.links = Links(replica, spec.ps)
        self.manifest: Manifest | None = None
        if resume:
            self.manifest, refused = store.newest()
            self.notes += refused
        self.generation = store.generation() + 1
        store.store_generation(self.generation)
        replica.generation = self.generation
        self.commits = Commits(loop, store, self.links, self.generation, spec.checkpoint.keep)
        self.started = clock()
        self.training_started: float | None = None
        self.training_elapsed = 0.0
        self.last_worker = loop.now()
        self._clock = clock
        self._run = run
        self._replica = replica
        self._hosts = hosts
        self._frozen: Vector = np.zeros(0, np.float32)
        self._settings: Values = {}
        self._joining: list[Callable[[], None]] = []
        self._starting: list[tuple[Member, Connection]] = []
        self._initialiser: Member | None = None
        self._prepared = False
        self._parked: dict[int, tuple[Connection, Push, bool]] = {}
        self._blocked = False
        self._commit_wanted = False
        self._commit_step = 0
        self._evaluate_next = False
        self._to_evaluate = -1
        self._evaluator: Member | None = None
        self._finaliser: Member | None = None
        self._final_committed = False
        self._followers: list[tuple[Member, int, Reply]] = []
        replica.listener = self
        loop.call_every(0.05, self._tick_fast)
        if spec.checkpoint.every_seconds:
            loop.call_every(spec.checkpoint.every_seconds, self.want_commit)

    # Listener: what the ps replica hands on.

    def pushed(self, connection: Connection, push: Push, applied: bool, metrics: Vector) -> None:
        """Counts a push of a worker and answers it."""
        member = self.members.living.get(push.member)
        assert self.ledger is not None
        assert self.progress is not None
        if member is None:
            self._answer(connection, Order.REJOIN)
            return
        before = self.ledger.step
        member.seen = now = self.loop.now()
        if self.ledger.acknowledge(member.number, (push.epoch, push.batch), now):
            member.steps += 1
            self.progress.pushed(member.index, member.steps, self.ledger.step, metrics)
        if self.ledger.step != before:
            self._stepped(before)
        self._serve(member, connection, push, pulled=False)

    def pulled(self, connection: Connection, pull: Push) -> None:
        """Answers a worker that asks for parameters and leases without pushing."""
        member = self.members.living.get(pull.member)
        if member is None:
            self._answer(connection, Order.REJOIN)
            return
        member.seen = self.loop.now()
        self._serve(member, connection, pull, pulled=True)

    def call(self, connection: Connection, values: Values, payload: memoryview, reply: Reply) -> None:
        """Acts on a call by name."""
        handler = getattr(self, f"_on_{values.get('call')}", None)
        if handler is None:
            raise WrongInput(f"ps 0 does not know the call {values.get('call')!r}; use one tfleet version everywhere")
        member = connection.owner if isinstance(connection.owner, Member) else None
        if member:
            member.seen = self.loop.now()
        handler(connection, member, values, payload, reply)

    def payload_limit(self, values: Values) -> int:
        """Only the initial state and frozen values come with a call."""
        if values.get("call") != "initialised" or self.plan is None:
            return 0
        return 4 * (self.plan.layout.state_size + self.plan.layout.frozen_size)

    def gone(self, connection: Connection) -> None:
        """A worker, the evaluator or a ps has closed its connection, or died."""
        if isinstance(connection.owner, Member):
            member = connection.owner
            if member.number in self.members.living:
                why = "" if self.ending.over else f"{member.role} {member.index} is lost: its connection was closed"
                self.remove(member, "done" if self.ending.over else "lost", why)
        elif (index := self.links.index_of(connection)) is not None and not self.ending.over:
            self.ending.fail(f"ps {index} has ended; the last commit is kept: go on from it with --resume")

    def answered(self, connection: Connection, values: Values, error: bool) -> None:
        """Hands the answer of a ps to whoever asked."""
        self.links.answered(values, error)

    # Calls: joining and initialisation.

    def _on_join(self, connection: Connection, _m: Member | None, values: Values, _p: memoryview, reply: Reply) -> None:
        role, index = str(values["role"]), int(values["index"])
        if role == "ps":
            self.links.add(index, connection)
            reply({"generation": self.generation})
            self._all_joined()
            return
        old = self.members.find(role, index)
        if old:
            self.remove(old, "lost", f"{role} {index} has joined again")
        member = self.members.join(role, index, connection, self.loop.now())
        self._joining.append(lambda: reply({"member": member.number, "generation": self.generation, "ps": self._hosts}))
        self._all_joined()

    def _all_joined(self) -> None:
        if self.links.complete:
            joining, self._joining = self._joining, []
            for answer in joining:
                answer()

    def _on_beat(self, _c: Connection, _m: Member | None, values: Values, _p: memoryview, reply: Reply) -> None:
        member = self.members.living.get(int(values["member"]))
        if member:
            member.seen = self.loop.now()
        first = min(self.members.workers, key=lambda m: m.number, default=None)
        reply(
            {
                "known": member is not None,
                "over": self.ending.over or {},
                "status": self.status(),
                "summaries": member is not None and member is first,
            }
        )

    def _on_describe(self, _c: Connection, member: Member | None, values: Values, _p: memoryview, reply: Reply) -> None:
        plan = TrainingPlan.from_json(values["plan"])
        if self.plan is not None:
            different = plan.difference(self.plan)
            if different and member:
                raise WrongInput(
                    f"worker {member.index} built another model or data than the first worker: {different}; "
                    "make the task build the same everywhere"
                )
            reply({})
            return
        aggregate = plan.aggregate(self.spec, self.manifest)
        self._settings = plan.settings(self.spec, aggregate)
        if self.manifest:
            plan.check_resume(self.manifest, self._settings)
        self.plan = plan
        self.ledger = plan.ledger(self.spec, aggregate)
        if self.manifest:
            self.ledger.restore(self.manifest.ledger)
            self.evaluations.restore(self.manifest.metrics["evaluations"])
            self.commits.last = {k: getattr(self.manifest, k) for k in ("number", "step", "time")}
            self.notes.append(f"goes on from commit {self.manifest.number} at step {self.manifest.step}")
        self.progress = Progress(self._run, plan.layout.metrics, self._clock)
        bounds = partition_bounds(plan.layout.parameters, self.spec.ps)
        self.links.ask_all(
            "prepare", lambda i: self._partition(plan, i, bounds[i]), self._on_prepared, self.ending.fail
        )
        reply({})

    def _partition(self, plan: TrainingPlan, index: int, bounds: tuple[int, int]) -> Values:
        return {
            "generation": self.generation,
            "low": bounds[0],
            "high": bounds[1],
            "optimizer": plan.optimizer,
            "decay": plan.layout.decay_ranges(*bounds),
            "strategy": self.spec.strategy,
            "batch_size": plan.batch_size,
            "state": 0 if index else plan.layout.state_size,
            "metrics": 0 if index else 2 * len(plan.layout.metrics),
            "restore": self.manifest.number if self.manifest else -1,
        }

    def _on_prepared(self, _results: list[Values]) -> None:
        self._prepared = True
        if self.manifest:
            self._frozen = Store(self._run.checkpoints).read_state(self.manifest)[1]
            self._begin_training()
        else:
            self._continue_start()

    def _on_start(self, connection: Connection, member: Member | None, *_: Any) -> None:
        if member:
            self._starting.append((member, connection))
            self._continue_start()

    def _continue_start(self) -> None:
        self._starting = [(m, c) for m, c in self._starting if m.number in self.members.living]
        if self.phase != "starting":
            for member, connection in self._starting:
                member.state = "working"
                connection.result({"initialise": False}, self._frozen.data)
            self._starting = []
        elif self._prepared and self._starting and self._initialiser is None:
            self._initialiser, connection = self._starting.pop(0)
            connection.result({"initialise": True})

    def _on_initialised(self, _c: Connection, _m: Member | None, _v: Values, payload: memoryview, reply: Reply) -> None:
        assert self.plan is not None
        assert self._replica.partition is not None
        vector = np.frombuffer(payload, np.float32)
        state = self.plan.layout.state_size
        self._replica.partition.state[:] = vector[:state]
        self._frozen = vector[state:].copy()
        reply({})
        self._start_commit(lambda number: self._begin_training(), self.ending.fail)

    def _begin_training(self) -> None:
        self.phase = "training"
        self._commit_step = self.step
        self._continue_start()
        if self.ledger and self.ledger.finished:
            self._finish_training()

    # Steps, leases, orders.

    @property
    def step(self) -> int:
        """The global step."""
        return self.ledger.step if self.ledger else 0

    def _serve(self, member: Member, connection: Connection, push: Push, *, pulled: bool) -> None:
        order = self._order(member) if push.want else Order.NONE
        leases: list[Any] = []
        if self.ledger and order is Order.NONE and self.phase == "training" and not self._blocked:
            leases = self.ledger.lease(member.number, push.want, self.loop.now())
        if not leases and order is Order.NONE and push.want and not push.held:
            self._parked[member.number] = (connection, push, pulled)
            return
        if leases and self.training_started is None:
            self.training_started = self._clock()
        stale = pulled or self.spec.strategy == "async" or push.step != self.step
        take = Take(self.generation, self.step, order, tuple(leases))
        self._replica.answer(connection, take, parameters=stale and order is not Order.OVER)

    def _order(self, member: Member) -> Order:
        if self.ending.over:
            return Order.OVER
        if self._to_evaluate >= 0 and self._evaluator is None:
            self._evaluator = member
            return Order.EVALUATE
        if self._final_committed and self._finaliser is None:
            self._finaliser = member
            return Order.FINALISE
        return Order.NONE

    def serve_parked(self) -> None:
        """Tries again to give something to the workers that wait."""
        parked, self._parked = self._parked, {}
        for number, (connection, push, pulled) in parked.items():
            member = self.members.living.get(number)
            if member:
                self._serve(member, connection, push, pulled=pulled)

    def _answer(self, connection: Connection, order: Order) -> None:
        self._replica.answer(connection, Take(self.generation, self.step, order, ()), parameters=False)

    def _stepped(self, before: int) -> None:
        assert self.ledger is not None
        step = self.step
        if _crossed(self.spec.checkpoint.every_steps, before, step):
            self._commit_wanted = True
        if _crossed(self.spec.evaluation.every_steps, before, step):
            self._commit_wanted = self._evaluate_next = True
        if self.ledger.finished:
            self._finish_training()
        elif self._commit_wanted:
            self._commit_now()
        if isinstance(self.ledger, SyncLedger) and self._parked:
            self.loop.call_later(0, self.serve_parked)

    # Commits.

    def want_commit(self) -> None:
        """Makes a commit at the next moment at which one can be made."""
        if self.phase == "training" and self.step > self._commit_step:
            self._commit_wanted = True
            if not isinstance(self.ledger, SyncLedger) or self.ledger.at_boundary:
                self._commit_now()

    def _commit_now(self) -> None:
        if self.commits.busy >= 0:
            return
        evaluate, self._evaluate_next = self._evaluate_next, False

        def done(number: int) -> None:
            self._committed(number, evaluate)

        def failed(why: str) -> None:
            self._blocked = False
            self.note(f"{why}; training goes on, the commit is tried again")
            if self.ledger and self.ledger.finished:
                self._finish_training()

        self._start_commit(done, failed)

    def _start_commit(self, done: Callable[[int], None], failed: Callable[[str], None]) -> None:
        self._commit_wanted = False
        self._commit_step = self.step
        self._blocked = self.spec.strategy == "sync"

        def copied() -> None:
            self._blocked = False
            self.serve_parked()

        self.commits.start(
            self._facts,
            hold=self.spec.strategy == "async",
            protect=self._protected,
            copied=copied,
            done=done,
            failed=failed,
        )

    def _facts(self) -> Facts:
        assert self.plan is not None
        assert self.ledger is not None
        assert self._replica.partition is not None
        return Facts(
            step=self.step,
            ledger=self.ledger.to_json(),
            settings=self._settings,
            layout=self.plan.layout.to_json(),
            optimizer=self.plan.optimizer,
            metrics={
                "training": self.progress.metrics() if self.progress else {},
                "evaluations": self.evaluations.to_json(),
            },
            parameters=self.plan.layout.parameters,
            state=self._replica.partition.state.copy(),
            frozen=self._frozen,
        )

    def _protected(self) -> set[int]:
        return {self.evaluations.best, self._to_evaluate} - {-1}

    def _committed(self, number: int, evaluate: bool) -> None:
        self._answer_followers()
        if evaluate and not self.spec.evaluation.evaluator and self.plan and self.plan.evaluates:
            self._to_evaluate = number
            self.serve_parked()
        if self.ledger and self.ledger.finished and self.phase == "training":
            self._finish_training()
        elif self._commit_wanted:
            self.want_commit()

    # Evaluation, finalisation, the end.

    def _on_evaluation(self, _c: Connection, _m: Member | None, _v: Values, _p: memoryview, reply: Reply) -> None:
        reply({"commit": self._to_evaluate})

    def _on_report(self, _c: Connection, member: Member | None, values: Values, _p: memoryview, reply: Reply) -> None:
        metrics = {str(k): float(v) for k, v in values["metrics"].items()}
        step, commit = int(values["step"]), int(values["commit"])
        if member is not None and member is self._evaluator:
            self._evaluator, self._to_evaluate = None, -1
        try:
            stop = self.evaluations.report(step, commit, metrics)
        except KeyError as error:
            raise WrongInput(
                f"the held-out data give no metric {error}; name one of {', '.join(sorted(metrics))} "
                "in evaluation.keep_best or evaluation.stop_metric"
            ) from None
        if self.progress and self.ledger:
            self.progress.write_metrics("eval", step, self.ledger.epoch, metrics, commit=commit)
        best = self.evaluations.best
        reply({"export": best if best >= 0 else commit})
        if stop and self.phase == "training":
            self.note(f"stopped early at step {self.step}: {self.spec.evaluation.stop_metric} no longer got better")
            self.ending.stop("done")

    def _on_follow(self, _c: Connection, member: Member | None, values: Values, _p: memoryview, reply: Reply) -> None:
        if member:
            self._followers.append((member, int(values["seen"]), reply))
            self._answer_followers()

    def _answer_followers(self) -> None:
        last = self.commits.last["number"] if self.commits.last else -1
        waiting = []
        for member, seen, reply in self._followers:
            if self.ending.over:
                reply({"over": True})
            elif last > seen:
                reply({"over": False, "commit": last})
            else:
                waiting.append((member, seen, reply))
        self._followers = waiting

    def _finish_training(self) -> None:
        if self.phase != "training" or self.commits.busy >= 0:
            return
        self.phase = "finalising"
        if self.training_started is not None and self.progress:
            self.training_elapsed = self._clock() - self.training_started
            self.progress.training_ended(self.training_elapsed)
        if self.commits.last and self.commits.last["step"] == self.step:
            self._training_committed(self.commits.last["number"])
        else:
            self._start_commit(self._training_committed, self.ending.fail)

    def finish_if_done(self) -> None:
        """Ends training when the ledger, whose total may just have changed, is finished."""
        if self.ledger and self.ledger.finished:
            self._finish_training()
        else:
            self.serve_parked()

    def _training_committed(self, _number: int) -> None:
        self._answer_followers()
        if self.ending.wish == "interrupted":
            self.ending.end("interrupted", ExitCode.INTERRUPTED, self.ending.reason)
        else:
            self._final_committed = True
            self.serve_parked()

    def _on_finalise(self, _c: Connection, _m: Member | None, _v: Values, _p: memoryview, reply: Reply) -> None:
        assert self.commits.last is not None
        reply({"commit": self.commits.last["number"]})

    def _on_finalised(self, _c: Connection, _m: Member | None, values: Values, _p: memoryview, reply: Reply) -> None:
        reply({})
        self.ending.export = str(values["export"])
        self.ending.metrics = {str(k): float(v) for k, v in values["metrics"].items()}
        self.ending.end(self.ending.wish or "done", ExitCode.DONE, self.ending.reason)

    def _on_fail(self, _c: Connection, _m: Member | None, values: Values, _p: memoryview, reply: Reply) -> None:
        reply({})
        self.ending.fail(str(values["message"]), int(values["exit_code"]))

    def _on_leave(self, _c: Connection, member: Member | None, values: Values, _p: memoryview, reply: Reply) -> None:
        reply({})
        if member and member.number in self.members.living:
            self.remove(member, "done", str(values.get("reason", "")))

    def _on_end(self, _c: Connection, _m: Member | None, values: Values, _p: memoryview, reply: Reply) -> None:
        reply({})
        self.ending.ask(str(values["how"]), str(values["reason"]))

    def _on_outcome(self, _c: Connection, _m: Member | None, _v: Values, _p: memoryview, reply: Reply) -> None:
        reply(self.ending.over or {"phase": self.phase})

    # Members that go.

    def remove(self, member: Member, state: str, why: str) -> None:
        """Takes a member out: fences it at every partition, then gives its batches to others."""
        self.members.remove(member, state)
        self._parked.pop(member.number, None)
        if why:
            self.note(why)
        self._followers = [entry for entry in self._followers if entry[0] is not member]
        member.connection.close()
        if self.ending.over:
            self.ending.check()
            return
        if not self._prepared:
            self._release(member)
            return

        def fenced(results: list[Values]) -> None:
            sequences = {result["sequence"] for result in results}
            self.partial_updates += len(sequences) > 1
            self._release(member)

        self.links.ask_all("fence", lambda index: {"member": member.number}, fenced, self.ending.fail)

    def _release(self, member: Member) -> None:
        if self.ledger:
            self.ledger.give_back(member.number)
        if member is self._initialiser and self.phase == "starting":
            self._initialiser = None
            self._continue_start()
        if member is self._evaluator:
            self._evaluator = None
        if member is self._finaliser:
            self._finaliser = None
        self.serve_parked()

    def note(self, text: str) -> None:
        """Remembers something that the user should be told once."""
        self.notes.append(text)
        print(f"tfleet: {text}", flush=True)

    def end_waiting(self) -> None:
        """Tells everybody who waits that the job is over."""
        self.serve_parked()
        self._answer_followers()
        for _, connection in self._starting:
            connection.error(self.ending.reason or "the job is over", ExitCode.INTERRUPTED)
        self._starting = []

    def _tick_fast(self) -> None:
        if self._parked:
            self.serve_parked()

    def status(self) -> Values:
        """Returns the job's status; see docs, run directory, for its fields."""
        return describe(self)


def _crossed(every: int, before: int, now: int) -> bool:
    return bool(every) and now // every > before // every
