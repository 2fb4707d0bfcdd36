"""What stands at the address of ps 0 when ps 0 itself has found wrong input: it tells everybody who calls.

On one machine the launcher ends the others. Between pods nobody does, and they would wait for ps 0 for minutes.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from tfleet.spec.errors import ExitCode
from tfleet.wire.address import Address
from tfleet.wire.frames import Header, Kind, ProtocolError
from tfleet.wire.loop import Loop
from tfleet.wire.server import NOTHING, Connection, Handler, Server

if TYPE_CHECKING:
    from tfleet.wire.tls import Tls

LINGER = 15.0
"""Seconds that it goes on after it has told the first: the others come soon."""


class _Refusal(Handler):
    def __init__(self, sentence: str) -> None:
        self.told: float | None = None
        self._sentence = sentence

    def admit(self, connection: Connection, header: Header, meta: bytearray) -> memoryview | None:
        """Takes calls without payload only."""
        if header.payload:
            raise ProtocolError("the job was refused")
        return NOTHING

    def frame(self, connection: Connection, header: Header, meta: bytearray, payload: memoryview) -> None:
        """Answers with the reason."""
        if header.kind is Kind.CALL:
            self.told = self.told or time.monotonic()
            connection.error(self._sentence, ExitCode.WRONG_INPUT)

    def closed(self, connection: Connection, payload: memoryview | None) -> None:
        """Nothing is kept of anybody."""


def refuse(
    address: Address,
    token: bytes,
    sentence: str,
    patience: float,
    asked: Callable[[], bool],
    tls: Tls | None = None,
) -> None:
    """Answers every call with a refusal; blocks until some seconds after the first, or until patience ends.

    Args:
        address: to listen on.
        token: of the job.
        sentence: why the job cannot be.
        patience: seconds to wait for the first caller.
        asked: whether to end now.
        tls: certificates of the job; None: it has no TLS.

    Raises:
        WrongInput: when the address cannot be listened on.
    """
    loop, handler, end = Loop(), _Refusal(sentence), time.monotonic() + patience
    with address.listen() as listener:
        server = Server(loop, listener, token, handler, tls)

        def look() -> None:
            now = time.monotonic()
            if asked() or now >= end or (handler.told is not None and now >= handler.told + LINGER):
                loop.stop()

        loop.call_every(0.1, look)
        loop.run()
        server.end()
    loop.close()
