"""The worker's side of a strategy: how gradients and parameters travel between it and the partitions."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple, Protocol

import numpy as np

from tfleet.spec.arrays import Ids, Matrix
from tfleet.spec.errors import JobFailed
from tfleet.spec.layout import Layout
from tfleet.wire.client import Channel
from tfleet.wire.frames import Kind, Order, Push, Take, pack_push, unpack_take

if TYPE_CHECKING:
    from tfleet.strategies.rows import RowExchange

ALIGNMENT = 16
"""Of the parameters, in float32 elements: 64 bytes."""

Float32s = np.ndarray[tuple[int], np.dtype[np.float32]]


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

    Attributes:
        parameters: float32 [N], overwritten by `pull` and `push`.
        state: float32 [S], likewise.
        step: the global step of these parameters, as far as ps 0 has told.
        want: batches that are asked for with each push; 0: no more, this worker leaves.
        rows: how rows of tables travel; None: there are no tables.
    """

    def __init__(self, peers: Peers, layout: Layout, ps: int) -> None:
        # ps 0 sends state and its slice in one payload: they lie side by side here.
        self.rows: RowExchange | None = None
        bounds = layout.dense_bounds(ps)
        layout = layout.dense
        memory = _memory(layout.state_size, layout.parameters)
        self.state: Float32s = memory[: layout.state_size]
        self.parameters: Float32s = memory[layout.state_size :]
        self.step = 0
        self.want = 1
        self._peers = peers
        self._bounds = bounds
        self._sequence = 0
        first_high = layout.state_size + self._bounds[0][1]
        self._first_view = memory[:first_high].data.cast("B")
        self._views = [self.parameters[low:high].data.cast("B") for low, high in self._bounds]

    def pull(self) -> Take:
        """Gets all parameters and a lease or an order; blocks until ps 0 has something for this worker."""
        self._peers.first.send(Kind.PULL, self._meta(0.0, 0, 0, 0, 0))
        take = self._receive_first()
        self._pull_others()
        return take

    @abstractmethod
    def push(self, step: Step, rate: float, samples: int, epoch: int, batch: int, batches: int) -> Take:
        """Pushes one gradient, and gets new parameters and a lease or an order; blocks.

        Args:
            step: of the gradient function, computed from `parameters` and `state` as they are.
            rate: the learning rate of this update.
            samples: in the batch.
            epoch: of the batch.
            batch: its number within the epoch.
            batches: that make up its global step.

        Raises:
            Rejoin: when this worker is out of the job.
            ConnectionLost: when a ps is gone.
        """

    def _meta(self, rate: float, samples: int, epoch: int, batch: int, batches: int) -> bytes:
        who = (self._peers.generation, self._peers.member, self._sequence)
        return pack_push(Push(*who, rate, samples, self.step, epoch, batch, batches, want=self.want, held=0))

    def _send_rows(self, step: Step) -> None:
        """Sends what goes ahead of a push."""
        if self.rows:
            self.rows.send(self._sequence, step.touched, step.rows)

    def _send_others(self, meta: bytes, step: Step) -> None:
        gradient = step.gradient
        for channel, (low, high) in zip(self._peers.others, self._bounds[1:], strict=True):
            channel.send(Kind.PUSH, meta, gradient[low:high].data)

    def _send_first(self, meta: bytes, step: Step, state: Float32s) -> None:
        low, high = self._bounds[0]
        self._peers.first.send(Kind.PUSH, meta, step.gradient[low:high].data, state.data, step.metrics.data)

    def _pull_others(self) -> None:
        meta = self._meta(0.0, 0, 0, 0, 0)  # anew: it tells the others which step ps 0 has reached
        for channel in self._peers.others:
            channel.send(Kind.PULL, meta)
        self._receive_others()

    def _receive_others(self) -> None:
        for channel, view in zip(self._peers.others, self._views[1:], strict=True):
            taken(channel, view)

    def _receive_first(self) -> Take:
        take = taken(self._peers.first, self._first_view)
        self.step = take.step
        return take


def _memory(state: int, parameters: int) -> Float32s:
    """Returns zeros for state and parameters, the latter aligned so that TensorFlow takes them without a copy."""
    spare = np.zeros(state + parameters + ALIGNMENT, np.float32)
    offset = -(spare.ctypes.data // 4 + state) % ALIGNMENT
    return spare[offset : offset + state + parameters]


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
