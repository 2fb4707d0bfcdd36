"""A plain reference of the protocol, told of by the real coordinator and partitions: sets, and nothing else."""

from __future__ import annotations

import functools

import numpy as np
from simulated_fleet import acknowledged
from simulated_worker import Counting

from tfleet.checkpoint.names import Key
from tfleet.server.checkpointing import Checkpointing
from tfleet.server.coordinator import Coordinator
from tfleet.server.replica import PsReplica
from tfleet.strategies.asynchronous import AsyncLedger

MARKS = 4096
"""Pushes that can be told from each other; so many parameters has each partition."""


class Marked(Counting):
    """Each push, not each batch, has a parameter of its own in every partition: applied once, it is 1."""

    def __init__(self, ps):
        super().__init__(items=50, batch=4, parameters=ps * MARKS)
        self.keys = []

    def gradient(self, parameters, epoch, batch):
        gradient = np.zeros(self.parameters, np.float32)
        gradient[len(self.keys) :: MARKS] = -1
        self.keys.append(epoch * self.batches + batch)
        return gradient


class Reference:
    """What must be true whatever happens.

    Attributes:
        acknowledged: numbers of the batches whose acknowledgement survives.
        leased: holder of each leased batch.
        removed: members that were taken out, in all generations.
        gone: generation and number of each of these.
        pushes: marks of each member of each generation.
    """

    PATCHED = (
        (AsyncLedger, "acknowledge"),
        (AsyncLedger, "lease"),
        (AsyncLedger, "give_back"),
        (Coordinator, "adopt"),
        (Coordinator, "remove"),
        (Checkpointing, "_facts"),
        (PsReplica, "fence"),
    )

    def __init__(self, task):
        self.task = task
        self.fleet = None
        self.acknowledged, self.leased = set(), {}
        self.removed = 0
        self.pushes, self.gone = {}, set()
        self._snapshots, self._fenced, self._returned, self._checked = {}, {}, {}, set()
        self._originals = [(owner, name, getattr(owner, name)) for owner, name in self.PATCHED]
        for owner, name, original in self._originals:
            setattr(owner, name, self._listening(original, getattr(self, f"on_{name.strip('_')}")))

    def end(self):
        """Lets go of the real classes."""
        for owner, name, original in self._originals:
            setattr(owner, name, original)

    @staticmethod
    def _listening(original, listener):
        @functools.wraps(original)
        def both(this, *args, **kwargs):
            result = original(this, *args, **kwargs)
            listener(this, result, *args, **kwargs)
            return result

        return both

    # What is heard.

    def on_acknowledge(self, ledger, counted, member, key, _now):
        number = self._number(key)
        if not counted:
            return
        assert number not in self.acknowledged, f"batch {number} is acknowledged twice"
        assert self.leased.pop(number) == member
        self.acknowledged.add(number)

    def on_lease(self, ledger, leases, member, _want, _now):
        for lease in leases:
            number = self._number(lease[:2])
            assert number not in self.acknowledged, f"batch {number} is done, and leased again"
            assert number not in self.leased, f"batch {number} is leased to two"
            before = self._returned.get(number)
            if before is not None and self.fleet.job.starting.prepared:
                assert all(before in ps._fenced for ps in self.fleet.ps), "leased before its holder was fenced"
            self.leased[number] = member
        if leases and ledger.total:
            assert len(self.acknowledged) + len(self.leased) <= ledger.total, "more is leased than steps remain"

    def on_give_back(self, _ledger, _count, member):
        for number in [n for n, holder in self.leased.items() if holder == member]:
            del self.leased[number]
            self._returned[number] = member

    def on_adopt(self, job, _result, _plan, _ledger, manifest):
        self.leased, self._returned, self._fenced = {}, {}, {}
        self.acknowledged = set(self._snapshots[manifest.key]) if manifest else set()

    def on_remove(self, job, _result, member, *_):
        self.removed += 1
        self.gone.add((job.generation, member.number))

    def on_facts(self, part, facts):
        job = part._job
        done = acknowledged(facts.ledger, self.task.batches)
        assert done == self.acknowledged, "the ledger of a commit is not what was acknowledged"
        self._snapshots[self._key(job)] = frozenset(done)

    def on_fence(self, replica, _result, values, _reply):
        if replica.partition is not None:
            marks = self.pushes.get((replica.generation, int(values["member"])), [])
            self._fenced[replica, tuple(marks)] = replica.partition.parameters[marks].copy()

    def pushes_now(self, generation, member):
        """A worker makes a push; its mark is the next."""
        self.pushes.setdefault((generation, member), []).append(len(self.task.keys))

    # What is looked at.

    def look(self):
        """Every partition has each push at most once; commits are consistent."""
        for replica in self.fleet.ps:
            if replica.partition is not None and replica.partition.size:
                marks = replica.partition.parameters
                assert ((marks == 0) | (marks == 1)).all(), "a push was applied twice"
        for (replica, marks), values in self._fenced.items():
            now = replica.partition.parameters[list(marks)]
            assert (now == values).all(), "a push was applied after its worker was fenced"
        for manifest in self._new_commits():
            self.check(self._marks(self.fleet.committed(manifest)), self._snapshots[manifest.key])

    def check(self, marks, done):
        """Parameters hold each acknowledged batch once, in every partition, but for what deaths cost.

        Args:
            marks: [ps, MARKS] of 0 and 1.
            done: numbers of the batches.

        Returns:
            The number of pushes that some partitions have and others have not.
        """
        everywhere, somewhere = marks.all(0), marks.any(0)
        partial = [int(mark) for mark in np.flatnonzero(somewhere & ~everywhere)]
        owners = [self._owner(mark) for mark in partial]
        assert self.gone.issuperset(owners), "a push of a living worker is in some partitions only"
        assert len(set(owners)) == len(owners), "a worker that died left two partial updates"
        whole = [self.task.keys[mark] for mark in np.flatnonzero(everywhere)]
        assert len(set(whole)) == len(whole), "a batch was applied twice"
        assert set(whole) <= set(done), "a batch was applied that is not acknowledged"
        assert set(done) - set(whole) <= {self.task.keys[mark] for mark in partial}, "an acknowledged batch is missing"
        return len(partial)

    def finished(self):
        """Looks at a job that is over."""
        job = self.fleet.job
        assert self.acknowledged == acknowledged(job.ledger.to_json(), self.task.batches)
        partial = self.check(self._marks(self.fleet.parameters()), self.acknowledged)
        assert partial <= job.partial_updates <= self.removed
        if job.ledger.total:
            assert len(self.acknowledged) == job.ledger.step == job.ledger.total

    def _owner(self, mark):
        return next((member for member, marks in self.pushes.items() if mark in marks), None)

    def _new_commits(self):
        store = self.fleet.store
        for key in sorted(store._commits()):
            if key not in self._checked:
                self._checked.add(key)
                yield store._verified(key)

    def _marks(self, parameters):
        return np.rint(parameters).astype(int).reshape(self.fleet.spec.ps, MARKS)

    def _number(self, key):
        return key[0] * self.task.batches + key[1]

    @staticmethod
    def _key(job):
        return Key(job.generation, job.checkpointing.commits.busy)
