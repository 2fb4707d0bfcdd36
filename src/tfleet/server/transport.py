"""How vectors travel between a partition and its workers: over the socket, or through memory that both share.

What a push brings is gradient (perhaps in half the bytes), state and metrics; where workers update by themselves it is
parameters and slots instead of a gradient. What an answer brings is state and parameters, and there slots too.
"""

from __future__ import annotations

import numpy as np

from tfleet.server.partition import Partition
from tfleet.strategies.memory import MemoryPlan, Shared
from tfleet.strategies.rule import Vector
from tfleet.wire.frames import BY_SOCKET, ProtocolError, Push
from tfleet.wire.halves import Half, decode
from tfleet.wire.memory import NoSharedMemory, adopt
from tfleet.wire.server import Connection


def through_memory(connection: Connection, push: Push) -> bool:
    """Whether vectors travel through memory that this worker shares.

    Raises:
        ProtocolError: when it names memory that it has not handed over.
    """
    if push.slot == BY_SOCKET:
        return False
    if connection.memory is None or push.slot >= len(connection.memory.slots):
        raise ProtocolError(f"slot {push.slot} of a memory that is not shared")
    return True


class Transport:
    """The ways between one partition and its workers.

    Attributes:
        push_size: bytes of a push that comes over the socket.
    """

    def __init__(self, partition: Partition, *, local: bool, half: Half | None, metrics: int, first: bool) -> None:
        """Takes the memory that is needed for all workers together.

        Args:
            partition: that pushes change and answers tell of.
            local: whether workers update by themselves, so that slots travel too.
            half: what gradients are packed as on the socket; None: they are not.
            metrics: length of what a push reports; 0 except in ps 0.
            first: whether this is ps 0.
        """
        vectors = (partition.parameters, *(partition.slots.values() if local else ()))
        width = len(vectors) * partition.size
        self._partition = partition
        self._first = first
        self._half = half
        self._decoded: Vector = np.empty(width if half else 0, np.float32)
        self._metrics = metrics
        self._state = len(partition.state)
        self._rest = 4 * (self._state + metrics)
        self._told = (partition.state.data, *(vector.data for vector in vectors))
        self.push_size = (2 if half else 4) * width + self._rest

    def share(self, connection: Connection, plan: MemoryPlan) -> None:
        """Takes what the worker sends next for a descriptor of its memory.

        Once that is there the worker is told {"refused": why not, or empty}.

        Raises:
            ProtocolError: when a memory of this plan does not fit.
        """
        low = self._partition.start
        high = low + self._partition.size
        if plan.parameters < high:
            raise ProtocolError("memory is not expected now")
        if self._first and (plan.state, plan.metrics) != (self._state, self._metrics):
            raise ProtocolError(f"the memory of a worker holds {plan}, ps 0 has another plan")

        def arrived(descriptor: int) -> None:
            try:
                memory = adopt(descriptor, plan.size)
            except NoSharedMemory as error:
                connection.result({"refused": str(error)})
                return
            connection.memory = Shared.of(plan, memory, low, high, first=self._first)
            connection.result({"refused": ""})

        connection.expect_descriptor(arrived)

    def read(self, connection: Connection, push: Push, payload: memoryview) -> tuple[Vector, Vector, Vector]:
        """Returns gradient, state and metrics of a push: views that are valid until it is answered."""
        if push.slot != BY_SOCKET:
            shared = connection.memory
            return shared.gradient, shared.state, shared.metrics
        split = payload.nbytes - self._rest
        gradient: Vector = self._decoded
        if self._half is None:
            gradient = np.frombuffer(payload[:split], np.float32)
        else:
            decode(np.frombuffer(payload[:split], np.uint16), gradient, self._half)
        rest = np.frombuffer(payload[split:], np.float32)
        return gradient, rest[: self._state], rest[self._state :]

    def tell(self, connection: Connection, slot: int) -> tuple[memoryview, ...]:
        """Writes state and parameters where a worker wants them; returns what has to go over the socket."""
        if slot == BY_SOCKET:
            return self._told
        target = connection.memory.slots[slot]
        np.copyto(target.parameters, self._partition.parameters)
        if self._state:
            np.copyto(target.state, self._partition.state)
        return ()
