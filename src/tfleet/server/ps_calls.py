"""The calls that come to a ps over its connections: whose they are, and those of workers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from tfleet.server.listener import Reply
from tfleet.spec.errors import ExitCode, TfleetError
from tfleet.strategies.memory import MemoryPlan
from tfleet.wire.frames import ProtocolError
from tfleet.wire.server import Connection

if TYPE_CHECKING:
    from tfleet.server.replica import PsReplica

OF_COORDINATOR = ("prepare", "fence", "hold", "cut", "written", "over", "ping")
"""Calls that only the coordinator makes: methods of the replica."""
WRONG_VALUES = (LookupError, TypeError, ValueError, ArithmeticError, AttributeError)
"""What reading a call's values raises when they are not what they should be."""


class PsCalls:
    """The part of a ps that takes calls; what it does not know is for the listener."""

    def __init__(self, ps: PsReplica) -> None:
        self._ps = ps

    def payload_limit(self, values: dict[str, Any]) -> int:
        """Returns the bytes of payload that a call may bring."""
        ps = self._ps
        if values.get("call") == "set" and ps.partition is not None:
            return 4 * ps.partition.extent
        return ps.listener.payload_limit(values) if ps.listener else 0

    def take(self, connection: Connection, values: dict[str, Any], payload: memoryview) -> None:
        """Acts on a call, and answers it, or has it answered later.

        Raises:
            ProtocolError: when there is no such call, or it cannot be meant so.
        """

        def reply(result: dict[str, Any]) -> None:
            tag = {"id": values["id"]} if "id" in values else {}
            if "error" in result:
                connection.error(result["error"], result.get("exit_code", ExitCode.FAILED), **tag)
            else:
                connection.result({**tag, **result})

        ps, name = self._ps, str(values.get("call"))
        try:
            if name in OF_COORDINATOR and ps.coordinator and connection is ps.coordinator:
                getattr(ps, name)(values, reply)
            elif name == "set":
                self._set(values, payload, reply)
            elif name == "share":
                self._share(connection, values, reply)
            elif name == "attach" and not ps.listener:
                self._attach(connection, values, reply)
            elif ps.listener:
                ps.listener.call(connection, values, payload, reply)
            else:
                raise ProtocolError(f"unknown call {name!r}")
        except TfleetError as error:
            reply({"error": str(error), "exit_code": int(error.exit_code)})
        except WRONG_VALUES as error:
            raise ProtocolError(f"a call {name!r} with wrong values: {error}") from None

    def _attach(self, connection: Connection, values: dict[str, Any], reply: Reply) -> None:
        """A worker tells who it is, on its connection to this partition."""
        if int(values["generation"]) != self._ps.generation or self._ps.fenced(int(values["member"])):
            reply({"error": "this worker is out of the job: join again"})
            return
        connection.owner = int(values["member"])
        reply({})

    def _share(self, connection: Connection, values: dict[str, Any], reply: Reply) -> None:
        """A worker of this machine is about to hand over memory that its vectors travel through.

        Replies {} at once, and once the descriptor is there {"refused": why not, or empty}.
        """
        transport, plan = self._ps.transport, MemoryPlan.from_json(values["plan"])
        if transport is None or connection.owner is None:
            raise ProtocolError("memory is not expected now")
        transport.share(connection, plan)
        reply({})

    def _set(self, values: dict[str, Any], payload: memoryview, reply: Reply) -> None:
        """Takes initial parameters: this partition's slice; refused from who is out, and after the first cut."""
        ps = self._ps
        stale = values.get("generation") != ps.generation or ps.fenced(values.get("member"))
        if ps.partition is None or not ps.initial or stale:
            raise ProtocolError("initial parameters are not expected now")
        if payload.nbytes != 4 * ps.partition.extent:
            raise ProtocolError(f"{payload.nbytes} bytes of parameters, this partition holds {ps.partition.extent}")
        ps.partition.load(np.frombuffer(payload, np.float32), {}, 0)
        reply({})
