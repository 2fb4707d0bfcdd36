"""The strategy average: workers train alone from the same start for some steps, then their parameters are averaged.

A round takes the next `runs` x `local_steps` batches of the epoch, or all that are left of it, cut into runs of
consecutive batches, equally long to within one batch. Each run is a chain of ordinary updates from the round's common
start, on one worker; at the end of the round parameters, optimizer slots and state become the means over the runs,
weighted by samples. After McMahan et al., "Communication-Efficient Learning of Deep Networks from Decentralized Data"
(2017, algorithm 1: FedAvg), and Stich, "Local SGD Converges Fast and Communicates Little" (2019), here with the slots
averaged too, as in Yu et al., "On the Linear Speedup Analysis of Communication Efficient Momentum SGD" (2019).

To the ps this is the strategy sync, with runs for batches and results for gradients: any worker computes any run, a
free one gets a copy of a run that is overdue, the first answer counts, and the result does not depend on who was first.
"""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from tfleet.optimizers import OptimizerSpec, build
from tfleet.optimizers.base import CHUNK
from tfleet.spec.job import JobSpec
from tfleet.spec.layout import Layout
from tfleet.strategies.base import Strategy
from tfleet.strategies.exchange import Exchange, Peers, Step
from tfleet.strategies.ledger import Key, Ledger
from tfleet.strategies.rule import Rule, Updatable, Vector
from tfleet.strategies.synchronous import SyncExchange, SyncLedger
from tfleet.wire.frames import Lease, Order, ProtocolError, Push, Take

TELL_EVERY = 1.0
"""Seconds between two words of a worker to ps 0 about the steps of its run."""


class AverageLedger(SyncLedger):
    """Rounds of `aggregate` runs; only runs of the present round are leased. A batch counts as a global step.

    Where a round begins follows from the step, how it is cut from what is left of the epoch and of the job; so any step
    can be the last, and a job may go on from any.

    Attributes:
        local_steps: batches in a run; 0: as many as make the round the rest of the epoch.
        updates: local updates that led to the parameters that the round starts from.
    """

    def __init__(self, batches: int, total: int, runs: int, local_steps: int) -> None:
        super().__init__(batches, total, runs)
        self.local_steps = local_steps
        self.updates = 0
        self._runs: dict[int, int] = {}

    @property
    def epoch(self) -> int:
        """The epoch of the present round."""
        return self.step // self.batches

    def acknowledge(self, member: int, key: Key, now: float) -> int:
        """Counts a run if the member has a lease of it in the present round; the last one completes the round."""
        length = self._runs.get(key[1], 0)
        return length if super().acknowledge(member, key, now) else 0

    def give_back(self, member: int) -> int:
        """Ends the member's leases; runs that nobody else has are free again."""
        mine = [first for first, holders in self._leases.items() if member in holders]
        super().give_back(member)
        return sum(self._runs[first] for first in mine)

    def cap(self) -> None:
        """Lets the present round be finished if it has begun."""
        self.total = max(1, self.step + (0 if self.at_boundary else sum(self._runs.values())))

    def to_json(self) -> dict[str, Any]:
        """Returns step and updates; a round that has begun is to do again, since nothing of it was applied."""
        return {"step": self.step, "updates": self.updates}

    def restore(self, values: dict[str, Any]) -> None:
        """Goes back to the start of a round."""
        self.step, self.updates = int(values["step"]), int(values["updates"])
        self._done.clear()
        self._leases.clear()
        self._runs.clear()

    def counts(self) -> dict[str, int]:
        """Returns the counts for the status, in batches."""
        return {
            "epoch": self.epoch,
            "acknowledged": self.step + sum(self._runs[first] for first in self._done),
            "leased": sum(self._runs[first] for first in self._leases),
            "returned": 0,
        }

    def _parts(self) -> list[int]:
        """Cuts a round once, when the first of its runs is leased: partitions may have a result of it from then on."""
        if not self._runs:
            first = self.step % self.batches
            size = self.batches - first
            if self.local_steps:
                size = min(size, self.aggregate * self.local_steps)
            if self.total:
                size = min(size, self.total - self.step)
            runs = min(self.aggregate, size)
            cuts = [size * number // runs for number in range(runs + 1)]
            self._runs = {first + low: high - low for low, high in itertools.pairwise(cuts)}
        return list(self._runs)

    def _lease_of(self, part: int) -> Lease:
        return Lease(self.epoch, part, len(self._runs), self._runs[part], self.updates)

    def _end_step(self) -> None:
        self.step += sum(self._runs.values())
        self.updates += max(self._runs.values())
        self._runs = {}


class ApplyMean(Rule):
    """The rule of average: what the runs of a round come to is averaged, weighted by samples, once ps 0 has them all.

    A result is parameters and slots, one vector after the other; state is averaged alike. Partitions need not agree on
    whose results they took, as under sync, since a run comes to the same with every worker.
    """

    def __init__(self, partition: Updatable, batch_size: int) -> None:
        self._partition = partition
        self._batch_size = batch_size
        self._vectors = (partition.parameters, *partition.slots.values())
        self._sum: Vector = np.zeros(len(self._vectors) * partition.size, np.float32)
        self._state: Vector = np.zeros(len(partition.state), np.float32)
        self._weight = 0.0
        self._got: set[Key] = set()
        self._runs = 0

    def take(self, push: Push, gradient: Vector, state: Vector) -> None:
        """Adds the result of a run to its round."""
        key = (push.epoch, push.batch)
        if push.step != self._partition.iteration or key in self._got:
            return
        weight = push.samples / self._batch_size if push.batches > 1 else 1.0  # a run alone keeps its bits
        if not self._got:
            self._sum[:] = 0
            self._state[:] = 0
        _add(self._sum, gradient, weight)
        _add(self._state, state, weight)
        self._weight += weight
        self._got.add(key)
        self._runs = push.batches

    def reach(self, step: int) -> None:
        """Takes over the means of the round that is complete."""
        if step <= self._partition.iteration:
            return
        if not self._got or len(self._got) < self._runs:
            raise ProtocolError(f"step {step} is said to be reached, but this partition lacks a run of the round")
        for vector, mean in zip(self._vectors, np.split(self._sum, len(self._vectors)), strict=True):
            np.divide(mean, np.float32(self._weight), out=vector)
        np.divide(self._state, np.float32(self._weight), out=self._partition.state)
        self._partition.iteration = step
        self._weight = 0.0
        self._got.clear()


def _add(total: Vector, values: Vector, weight: float) -> None:
    for low in range(0, len(total), CHUNK):
        total[low : low + CHUNK] += values[low : low + CHUNK] * np.float32(weight)


class AverageExchange(SyncExchange):
    """Trains a run alone, answering each push itself but the last of the run, which brings everybody what it came to.

    A worker that leaves does not end its run, which others do from the round's start.

    Args:
        peers: see `Strategy.exchange`.
        layout: see `Strategy.exchange`.
        spec: see `Strategy.exchange`.
        optimizer: that updates the worker's own parameters.
        clock: seconds.
    """

    def __init__(
        self,
        peers: Peers,
        layout: Layout,
        spec: JobSpec,
        optimizer: OptimizerSpec,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        # An exchange is rare here, and of several vectors: memory for all of them is not worth sharing.
        super().__init__(peers, layout, spec.model_copy(update={"shared_memory": "never"}))
        self._optimizer = build(optimizer)
        self._decay = layout.decay_ranges(0, layout.parameters)
        self._own_slots = {name: np.zeros(layout.parameters, np.float32) for name in self._optimizer.slot_names}
        self._vectors = (self.parameters, *self._own_slots.values())
        # One partition's answer at a time: its slices of all vectors lie side by side in it, but not here.
        largest = max(high - low for low, high in self._bounds)
        self._answer = np.empty(layout.state_size + len(self._vectors) * largest, np.float32)
        sizes = [len(self._vectors) * (high - low) for low, high in self._bounds]
        sizes[0] += layout.state_size
        self._views = [[self._answer[:size].data.cast("B") for size in sizes]]
        self._run = Lease(0, 0, 0)
        self._start = 0
        self._done = 0
        self._samples = 0
        self._untold = 0
        self._metrics = np.zeros(2 * len(layout.metrics), np.float32)
        self._clock = clock
        self._told = clock()

    @property
    def updates(self) -> int:
        """The updates of this worker's chain: those before the round (of its longest run), and its own."""
        return self._run.updates + self._done

    def push(self, step: Step, rate: float, samples: int, epoch: int, batch: int, batches: int, held: int) -> Take:
        """See `Exchange.push`; updates parameters and state here, and goes to the ps at the end of the run only."""
        self._optimizer.apply(self.parameters, step.gradient, self._own_slots, self.updates, rate, self._decay)
        self.state[:] = step.state
        self._metrics += step.metrics
        self._samples += samples
        self._done += 1
        self._untold += 1
        if self._done == self._run.length:
            return self._push_run(rate)
        self.step += batches  # so far the job is if all are equally fast
        if not self.want:
            return Take(self._peers.generation, self.step, Order.NONE, ())
        if self._clock() - self._told >= TELL_EVERY and not self._tell():
            return self.pull()
        run = self._run
        return Take(self._peers.generation, self.step, Order.NONE, (run._replace(batch=run.batch + self._done),))

    def _tell(self) -> bool:
        """Tells ps 0 how far the run is; returns whether the run is still of use."""
        answer, _ = self._peers.first.call(
            "progress", self._metrics.data.cast("B"), step=self._start, steps=self._untold
        )
        self._forget()
        return bool(answer["go_on"])

    def _forget(self) -> None:
        self._metrics[:] = 0
        self._untold = 0
        self._told = self._clock()

    def _push_run(self, rate: float) -> Take:
        self._sequence += 1
        run, self.step = self._run, self._start
        meta = self._meta(rate, self._samples, run.epoch, run.batch, run.batches)
        for channel, bounds in zip(self._peers.others, self._bounds[1:], strict=True):
            self._send_vectors(channel, meta, *self._slices(*bounds))
        slices = self._slices(*self._bounds[0])
        self._send_vectors(self._peers.first, meta, *slices, self.state.data, self._metrics.data)
        self._forget()
        self._owed += 1
        before = self.step
        take = self._receive_first()
        if self.step != before:
            self._receive_others()
        else:
            self._pull_others()  # another run of the round: its start is not what this worker has
        return take

    def _slices(self, low: int, high: int) -> list[memoryview]:
        return [vector[low:high].data for vector in self._vectors]

    def _receive_first(self) -> Take:
        take = super()._receive_first()
        state = len(self.state)
        self.state[:] = self._answer[:state]
        self._unpack(0, self._answer[state:])
        self._start, self._done, self._samples = take.step, 0, 0
        self._run = take.leases[0] if take.leases else Lease(0, 0, 0)
        self._told = self._clock()
        return take

    def _arrived(self, number: int) -> None:
        self._unpack(number, self._answer)

    def _unpack(self, number: int, answer: Vector) -> None:
        low, high = self._bounds[number]
        size = high - low
        for place, vector in enumerate(self._vectors):
            vector[low:high] = answer[place * size : (place + 1) * size]


class Average(Strategy):
    """Workers meet once a round instead of at every step.

    Args:
        local_steps: as in `JobSpec`.
        rounds: as in `JobSpec`.
    """

    name = "average"
    aggregates = True
    local = True
    must_stay = ("local_steps",)

    def __init__(self, local_steps: int = 0, rounds: int = 1) -> None:
        self._local_steps = local_steps
        self._rounds = rounds

    def of(self, job: JobSpec) -> Strategy:
        """See `Strategy.of`."""
        return Average(job.local_steps, job.rounds)

    def steps(self, batches: int, aggregate: int) -> int | None:
        """See `Strategy.steps`: the batches of all rounds; the last round of an epoch has those that are left."""
        full = min(aggregate * self._local_steps or batches, batches)
        epochs, rest = divmod(self._rounds, math.ceil(batches / full))
        return epochs * batches + rest * full

    def ledger(self, batches: int, total: int, aggregate: int) -> Ledger:
        """See `Strategy.ledger`; `aggregate` is the number of runs in a full round."""
        return AverageLedger(batches, total, aggregate, self._local_steps)

    def rule(self, partition: Updatable, batch_size: int) -> Rule:
        """See `Strategy.rule`."""
        return ApplyMean(partition, batch_size)

    def exchange(self, peers: Peers, layout: Layout, spec: JobSpec, optimizer: OptimizerSpec) -> Exchange:
        """See `Strategy.exchange`."""
        return AverageExchange(peers, layout, spec, optimizer)
