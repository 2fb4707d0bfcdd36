"""How a job starts: replicas join, the first worker's description becomes the plan, one worker initialises."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from tfleet.checkpoint.manifest import Manifest
from tfleet.checkpoint.store import Store
from tfleet.server.calls import Call, Calls, Values
from tfleet.server.members import Member
from tfleet.server.plan import TrainingPlan
from tfleet.spec.errors import ExitCode, WrongInput, nearest
from tfleet.strategies.rule import Vector
from tfleet.wire.server import Connection

if TYPE_CHECKING:
    from tfleet.server.coordinator import Coordinator

LONGEST_HOST = 64
"""Characters of a host's name that are kept: POSIX's limit."""
_ROLES = ("ps", "worker", "evaluator")


class Starting:
    """The part of the coordinator that brings a job to its first step.

    The initialisation lease goes to one worker after the other until one has set the parameters; the others wait.

    Attributes:
        prepared: whether every ps has its partition.
        settings: what commits remember of the job.
        frozen: values of variables that do not change, for every worker.
    """

    def __init__(self, job: Coordinator, store: Store, manifest: Manifest | None, hosts: list[str]) -> None:
        self.prepared = False
        self.settings: Values = {}
        self.frozen: Vector = np.zeros(0, np.float32)
        self.calls: Calls = {
            "join": self._join,
            "describe": self._describe,
            "start": self._start,
            "initialised": self._initialised,
        }
        self._job = job
        self._store = store
        self._manifest = manifest
        self._hosts = hosts
        self._joining: list[tuple[Connection, Callable[[], None]]] = []
        self._waiting: list[tuple[Member, Connection]] = []
        self._initialiser: Member | None = None
        self._initialised_by_now = False
        self._begun = False
        self._started: set[int] = set()

    def release(self, member: Member) -> None:
        """Takes the initialisation lease back from a member that is gone."""
        if member is self._initialiser and not self._initialised_by_now and self._job.phase == "starting":
            self._initialiser = None
            self._continue()

    def end(self) -> None:
        """Tells who waits for the start that there is none."""
        ending = self._job.ending
        code = int((ending.over or {}).get("exit_code", 0)) or ExitCode.INTERRUPTED
        for connection in [*(c for c, _ in self._joining), *(c for _, c in self._waiting)]:
            connection.error(ending.reason or "the job is over", code)
        self._joining, self._waiting = [], []

    def payload_limit(self) -> int:
        """Bytes of state and frozen values that the initialising worker sends."""
        plan = self._job.plan
        return 4 * (plan.layout.state_size + plan.layout.frozen_size) if plan else 0

    def _join(self, call: Call) -> None:
        job = self._job
        role, index = str(call.values["role"]), int(call.values["index"])
        if role == "ps":
            job.links.add(index, call.connection, int(call.values.get("restarts", 0)))
            self._hosts[index] = str(call.values.get("address") or self._hosts[index])
            call.reply({"generation": job.generation})
        elif role not in ("worker", "evaluator"):
            raise WrongInput(f"a {role} cannot join a job{nearest(role, _ROLES)}; the roles are {', '.join(_ROLES)}")
        elif call.member:
            raise WrongInput(f"{role} {index} has joined already by this connection")
        else:
            self._join_member(call, role, index)
        if job.links.complete:
            joining, self._joining = self._joining, []
            for _, answer in joining:
                answer()

    def _join_member(self, call: Call, role: str, index: int) -> None:
        job = self._job
        guest = str(call.values.get("guest", ""))
        if guest:
            index = job.guests.admit(guest, index)
        old = job.members.find(role, index)
        if old:
            job.remove(old, "lost", f"{role} {index} has joined again")
        restarts = int(call.values.get("restarts", 0))
        member = job.members.join(role, index, call.connection, job.loop.now(), restarts)
        member.guest, member.host = guest, str(call.values.get("host", ""))[:LONGEST_HOST]
        job.events.add("in", member.number, role, index)

        def welcome() -> None:
            member.seen = job.loop.now()
            told = {"member": member.number, "index": index, "generation": job.generation, "ps": self._hosts}
            call.reply(told)

        self._joining.append((call.connection, welcome))

    def _describe(self, call: Call) -> None:
        job, plan = self._job, TrainingPlan.from_json(call.values["plan"])
        if job.plan is not None:
            different = plan.difference(job.plan)
            if different:
                raise WrongInput(
                    f"worker {call.caller.index} built another model or data than the first worker: {different}; "
                    "make the task build the same everywhere"
                )
        else:
            self._adopt(plan)
        call.reply({})

    def _adopt(self, plan: TrainingPlan) -> None:
        job, manifest = self._job, self._manifest
        aggregate = plan.aggregate(job.spec, manifest)
        self.settings = plan.settings(job.spec, aggregate)
        if manifest:
            plan.check_resume(manifest, self.settings)
        job.adopt(plan, plan.ledger(job.spec, aggregate), manifest)
        job.links.ask_all("prepare", lambda index: self._partition(plan, index), self._ready, job.ending.fail)

    def _partition(self, plan: TrainingPlan, index: int) -> Values:
        layout, ps = plan.layout, self._job.spec.ps
        low, high = layout.bounds(ps)[index]
        tables = [table.within(low, high) for table in layout.tables]
        return {
            "generation": self._job.generation,
            "low": low,
            "high": high,
            "start": layout.dense_bounds(ps)[index][0],
            "tables": [[table.low, table.rows, table.width] for table in tables],
            "optimizer": plan.optimizer,
            "decay": layout.dense.decay_ranges(*layout.dense_bounds(ps)[index]),
            "strategy": self._job.spec.strategy,
            "batch_size": plan.batch_size,
            "wire_dtype": self._job.spec.wire_dtype,
            "state": 0 if index else plan.layout.state_size,
            "metrics": 0 if index else 2 * len(plan.layout.metrics),
            "restore": self._manifest.number if self._manifest else -1,
        }

    def _ready(self, _results: list[Values]) -> None:
        self.prepared = True
        if self._manifest:
            self.frozen = self._store.read_state(self._manifest)[1]
            self._begin()
        else:
            self._continue()

    def _start(self, call: Call) -> None:
        self._waiting.append((call.caller, call.connection))
        self._continue()

    def _initialised(self, call: Call) -> None:
        job = self._job
        if job.plan is None or call.caller is not self._initialiser or self._initialised_by_now:
            raise WrongInput(f"{call.caller.role} {call.caller.index} was not asked to initialise the parameters")
        vector = np.frombuffer(call.payload, np.float32)
        state = job.plan.layout.state_size
        if len(vector) != state + job.plan.layout.frozen_size:
            raise ValueError(f"{len(vector)} values of state and frozen variables")
        self._initialised_by_now = True
        job.state[:] = vector[:state]
        self.frozen = vector[state:].copy()
        call.reply({})
        job.checkpointing.start(lambda number: self._begin(), job.ending.fail)

    def _begin(self) -> None:
        self._begun = True
        self._job.begin_training()
        self._continue()

    def _continue(self) -> None:
        self._waiting = [(m, c) for m, c in self._waiting if m.number in self._job.members.living]
        if self._job.ending.over and not self._begun:
            self.end()
        elif self._job.phase != "starting":
            for member, connection in self._waiting:
                member.state = "working"
                resumed = self._manifest.step if self._manifest and member.index not in self._started else -1
                self._started.add(member.index)
                connection.result({"initialise": False, "resumed": resumed}, self.frozen.data)
            self._waiting = []
        elif self.prepared and self._waiting and self._initialiser is None:
            self._initialiser, connection = self._waiting.pop(0)
            connection.result({"initialise": True})
