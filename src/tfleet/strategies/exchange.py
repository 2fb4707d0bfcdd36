"""The worker's side of a strategy: how gradients and parameters travel between it and the partitions."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple, Protocol

import numpy as np

from tfleet.spec.arrays import Float32s, Ids, Matrix
from tfleet.spec.errors import JobFailed
from tfleet.spec.job import JobSpec
from tfleet.spec.layout import Layout
from tfleet.strategies.memory import MemoryPlan, private
from tfleet.wire.client import Channel
from tfleet.wire.frames import BY_SOCKET, Kind, Order, Push, Take, pack_push, unpack_take
from tfleet.wire.halves import Packer
from tfleet.wire.memory import NoSharedMemory, create

if TYPE_CHECKING:
    from tfleet.strategies.rows import RowExchange


class Rejoin(Exception):
    """This worker is out of the job: it was silent for too long. It may join again as a new member."""


class Step(NamedTuple):
    """What one batch gives. The arrays are read-only views of one result; they stay valid while they are kept.

    Attributes:
        gradient: float32 [N], clipped, of the loss by the parameters; without tables.
        state: float32 [S], what the training call assigned.
        loss: regularisers and `add_loss` included.
        metrics: float32 [2 M], (total, count) of the batch for each of `layout.metrics`.
        finite: whether the loss and every element of the gradient are finite.
        touched: for each table of the layout the rows that the batch touches: int64, ascending.
        rows: for each table the gradient of those rows, float32 [n, width].
    """

    gradient: Float32s
    state: Float32s
    loss: float
    metrics: Float32s
    finite: bool
    touched: Sequence[Ids] = ()
    rows: Sequence[Matrix] = ()


class Peers(Protocol):
    """A worker's membership, as far as an exchange needs it.

    Attributes:
        member: the number that the coordinator gave.
        generation: of the job.
        first: connection to ps 0.
        others: connections to ps 1, 2, ...
    """

    member: int
    generation: int
    first: Channel
    others: list[Channel]


class Exchange(ABC):
    """Parameters and state of one worker, and the way they are brought up to date.

    Between a ps and a worker of one machine vectors travel through memory that both see, and frames only tell when;
    otherwise they are payloads.

    Attributes:
        parameters: float32 [N], what the next gradient is to be computed from; `pull` and `push` renew it.
        state: float32 [S], likewise.
        step: the global step of these parameters, as far as ps 0 has told.
        want: whether this worker goes on; else it is given no more batches.
        remark: why memory is not shared with a ps of this machine, or empty.
        rows: how rows of tables travel; None: there are no tables.
    """

    def __init__(self, peers: Peers, layout: Layout, spec: JobSpec) -> None:
        self.rows: RowExchange | None = None
        self.step = 0
        self.want = True
        self.remark = ""
        self._peers = peers
        self._bounds = layout.dense_bounds(spec.ps)
        self._sequence = 0
        # Rows of tables are asked for when nothing is under way.
        slots = 2 if spec.overlaps and not layout.sparse else 1
        self._plan = MemoryPlan(layout.state_size, layout.dense.parameters, 2 * len(layout.metrics), slots)
        self._sharing: set[Channel] = set()
        memory = self._memory(spec.shared_memory == "auto")
        self._outgoing = self._plan.push(memory)
        self._slots = [self._plan.slot(memory, number) for number in range(self._plan.slots)]
        self._views = [self._targets(memory, number) for number in range(self._plan.slots)]
        self._packers = self._make_packers(spec.wire_dtype)
        self._used = self._into = 0
        self.state, self.parameters = self._slots[0]

    @property
    def updates(self) -> int:
        """How many updates have led to these parameters: what a learning-rate schedule goes by."""
        return self.step

    def pull(self) -> Take:
        """Gets all parameters and a lease or an order; blocks until ps 0 has something for this worker."""
        self._ask(self._peers.first)
        take = self._receive_first()
        self._pull_others()
        return take

    @abstractmethod
    def push(self, step: Step, rate: float, samples: int, epoch: int, batch: int, batches: int, held: int) -> Take:
        """Pushes one gradient, and gets new parameters and a lease or an order; blocks.

        Args:
            step: of the gradient function, computed from `parameters` and `state` as they are.
            rate: the learning rate of this update.
            samples: in the batch.
            epoch: of the batch.
            batch: its number within the epoch.
            batches: that make up its global step.
            held: leases that this worker has besides; with none it waits for what ps 0 has for it.

        Raises:
            Rejoin: when this worker is out of the job.
            ConnectionLost: when a ps is gone.
        """

    def _meta(
        self, rate: float = 0.0, samples: int = 0, epoch: int = 0, batch: int = 0, batches: int = 0, held: int = 0
    ) -> Push:
        who = (self._peers.generation, self._peers.member, self._sequence)
        want = max(0, self._plan.slots - held) if self.want else 0
        return Push(*who, rate, samples, self.step, epoch, batch, batches, want, held, self._into)

    def _ask(self, channel: Channel) -> None:
        """Asks a ps for what it holds; this also tells it which step ps 0 has reached."""
        meta = self._meta()
        channel.send(Kind.PULL, pack_push(meta if channel in self._sharing else meta._replace(slot=BY_SOCKET)))

    def _send_all(self, push: Push, step: Step, state: Float32s) -> None:
        """Sends one push to everybody, ps 0 last."""
        if self.rows:
            self.rows.send(push.sequence, step.touched, step.rows)
        doorbell = b""
        if self._sharing:
            doorbell = pack_push(push)
            for target, source in zip(self._outgoing, (step.gradient, state, step.metrics), strict=True):
                np.copyto(target, source)
        for channel, bounds in zip(self._peers.others, self._bounds[1:], strict=True):
            if channel in self._sharing:
                channel.send(Kind.PUSH, doorbell)
            else:
                self._send_vectors(channel, push, self._packed(channel, step.gradient, bounds))
        if self._peers.first in self._sharing:
            self._peers.first.send(Kind.PUSH, doorbell)
        else:
            packed = self._packed(self._peers.first, step.gradient, self._bounds[0])
            self._send_vectors(self._peers.first, push, packed, state.data, step.metrics.data)

    def _send_vectors(self, channel: Channel, push: Push, *payload: memoryview) -> None:
        channel.send(Kind.PUSH, pack_push(push._replace(slot=BY_SOCKET)), *payload)

    def _make_packers(self, dtype: str) -> dict[Channel, Packer]:
        if dtype == "float32":
            return {}
        pairs = zip((self._peers.first, *self._peers.others), self._bounds, strict=True)
        return {c: Packer(dtype, high - low) for c, (low, high) in pairs if c not in self._sharing}  # type: ignore[arg-type]

    def _packed(self, channel: Channel, gradient: Float32s, bounds: tuple[int, int]) -> memoryview:
        packer, part = self._packers.get(channel), gradient[slice(*bounds)]
        return packer.pack(part).data if packer else part.data

    def _pull_others(self) -> None:
        for channel in self._peers.others:
            self._ask(channel)
        self._receive_others()

    def _receive_others(self) -> None:
        for channel, view in zip(self._peers.others, self._views[self._into][1:], strict=True):
            taken(channel, view)

    def _receive_first(self) -> Take:
        take = taken(self._peers.first, self._views[self._into][0])
        self.step = take.step
        return take

    def _memory(self, share: bool) -> Float32s:
        """Makes the memory of this worker, shared with every ps that is on the same machine and lets us."""
        local = [c for c in (self._peers.first, *self._peers.others) if c.local] if share else []
        if not local:
            return private(self._plan.size)
        try:
            descriptor, memory = create(self._plan.size)
        except NoSharedMemory as error:
            self.remark = f"gradients and parameters go through sockets, not shared memory: {error}"
            return private(self._plan.size)
        try:
            for channel in local:
                self._share(channel, descriptor)
        finally:
            os.close(descriptor)
        return memory

    def _share(self, channel: Channel, descriptor: int) -> None:
        channel.call("share", plan=self._plan.to_json())
        channel.send_descriptor(descriptor)
        refused = channel.result(channel.receive())["refused"]
        if refused:
            self.remark = f"gradients and parameters go through sockets, not shared memory: {refused}"
        else:
            self._sharing.add(channel)

    def _targets(self, memory: Float32s, number: int) -> list[memoryview]:
        """Returns where the payloads of each ps go; that of ps 0 holds the state too."""
        whole, state = self._plan.whole(memory, number), self._plan.state
        bounds = [(low + state, high + state) for low, high in self._bounds]
        return [whole[low:high].data.cast("B") for low, high in [(0, bounds[0][1]), *bounds[1:]]]


def taken(channel: Channel, view: memoryview | None) -> Take:
    """Blocks for a TAKE; its payload goes into `view`.

    Raises:
        Rejoin: when the ps does not take this worker for a member.
        ConnectionLost: when the ps is gone.
    """
    frame = channel.receive(view)
    if frame.kind is not Kind.TAKE:
        channel.result(frame)
        raise JobFailed(f"a ps answered a push with {frame.kind.name}")
    take = unpack_take(frame.meta)
    if take.order is Order.REJOIN:
        raise Rejoin
    return take
