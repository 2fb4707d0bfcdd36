"""How a worker and the partitions exchange gradients and parameters: one class for each strategy."""

from __future__ import annotations

from abc import ABC, abstractmethod

import numpy as np

from tfleet.spec.errors import JobFailed
from tfleet.spec.layout import Layout, partition_bounds
from tfleet.wire.client import Channel
from tfleet.wire.frames import Kind, Order, Push, Take, pack_push, unpack_take
from tfleet.worker.gradient import Float32s, Step
from tfleet.worker.session import Rejoin, Session

ALIGNMENT = 16
"""Of the parameters, in float32 elements: 64 bytes."""


class Exchange(ABC):
    """Parameters and state of one worker, and the way they are brought up to date.

    Attributes:
        parameters: float32 [N], overwritten by `pull` and `push`.
        state: float32 [S], likewise.
        step: the global step of these parameters, as far as ps 0 has told.
        want: batches that are asked for with each push; 0: no more, this worker leaves.
    """

    def __init__(self, session: Session, layout: Layout, ps: int) -> None:
        # ps 0 sends state and its slice in one payload: they lie side by side here.
        memory = _memory(layout.state_size, layout.parameters)
        self.state: Float32s = memory[: layout.state_size]
        self.parameters: Float32s = memory[layout.state_size :]
        self.step = 0
        self.want = 1
        self._session = session
        self._bounds = partition_bounds(layout.parameters, ps)
        self._sequence = 0
        first_high = layout.state_size + self._bounds[0][1]
        self._first_view = memory[:first_high].data.cast("B")
        self._views = [self.parameters[low:high].data.cast("B") for low, high in self._bounds]

    def pull(self) -> Take:
        """Gets all parameters and a lease or an order; blocks until ps 0 has something for this worker."""
        meta = self._meta(0.0, 0, 0, 0, 0)
        self._session.first.send(Kind.PULL, meta)
        take = self._receive_first()
        self._pull_others(meta)
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
        who = (self._session.generation, self._session.member, self._sequence)
        return pack_push(Push(*who, rate, samples, self.step, epoch, batch, batches, want=self.want, held=0))

    def _send_others(self, meta: bytes, step: Step) -> None:
        gradient = step.gradient
        for channel, (low, high) in zip(self._session.others, self._bounds[1:], strict=True):
            channel.send(Kind.PUSH, meta, gradient[low:high].data)

    def _send_first(self, meta: bytes, step: Step, state: Float32s) -> None:
        low, high = self._bounds[0]
        self._session.first.send(Kind.PUSH, meta, step.gradient[low:high].data, state.data, step.metrics.data)

    def _pull_others(self, meta: bytes) -> None:
        for channel in self._session.others:
            channel.send(Kind.PULL, meta)
        self._receive_others()

    def _receive_others(self) -> None:
        for channel, view in zip(self._session.others, self._views[1:], strict=True):
            _taken(channel, view)

    def _receive_first(self) -> Take:
        take = _taken(self._session.first, self._first_view)
        self.step = take.step
        return take


class AsyncExchange(Exchange):
    """Pushes to all partitions at once, ps 0 last, and takes what they answer."""

    def push(self, step: Step, rate: float, samples: int, epoch: int, batch: int, batches: int) -> Take:
        """See `Exchange.push`; the state travels as a difference."""
        self._sequence += 1
        meta = self._meta(rate, samples, epoch, batch, batches)
        self._send_others(meta, step)
        self._send_first(meta, step, step.state - self.state)
        self._receive_others()
        return self._receive_first()


class SyncExchange(Exchange):
    """Pushes to ps 1, 2, ... and waits until they have it, then to ps 0, which is therefore never ahead of them.

    So when ps 0 gives a lease of the next step, every partition has applied the last one.
    """

    def push(self, step: Step, rate: float, samples: int, epoch: int, batch: int, batches: int) -> Take:
        """See `Exchange.push`; the state travels as it is."""
        self._sequence += 1
        meta = self._meta(rate, samples, epoch, batch, batches)
        self._send_others(meta, step)
        for channel in self._session.others:
            _taken(channel, None)
        self._send_first(meta, step, step.state)
        before = self.step
        take = self._receive_first()
        if self.step != before:
            self._pull_others(meta)
        return take


def exchange_for(strategy: str, session: Session, layout: Layout, ps: int) -> Exchange:
    """Returns the exchange of a strategy."""
    return (SyncExchange if strategy == "sync" else AsyncExchange)(session, layout, ps)


def _memory(state: int, parameters: int) -> Float32s:
    """Returns zeros for state and parameters, the latter aligned so that TensorFlow takes them without a copy."""
    spare = np.zeros(state + parameters + ALIGNMENT, np.float32)
    offset = -(spare.ctypes.data // 4 + state) % ALIGNMENT
    return spare[offset : offset + state + parameters]


def _taken(channel: Channel, view: memoryview | None) -> Take:
    frame = channel.receive(view)
    if frame.kind is not Kind.TAKE:
        channel.result(frame)
        raise JobFailed(f"a ps answered a push with {frame.kind.name}")
    take = unpack_take(frame.meta)
    if take.order is Order.REJOIN:
        raise Rejoin
    return take
