"""A worker's membership: its connections to every partition, and the heartbeat that shows that it lives."""

from __future__ import annotations

import contextlib
import os
import socket
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from tfleet.spec.errors import ExitCode, JobFailed, TfleetError, out_of_memory
from tfleet.spec.times import Times
from tfleet.strategies.exchange import Rejoin
from tfleet.wire import client
from tfleet.wire.address import Address
from tfleet.wire.client import Channel, ConnectionLost
from tfleet.wire.frames import ProtocolError

if TYPE_CHECKING:
    from tfleet.wire.tls import Tls

BEAT_EVERY = 1.0
"""Seconds between heartbeats."""
OTHERS_PATIENCE = 10.0
"""Seconds for a connection to ps 1, 2, ...: ps 0 names them when all of them are there."""
ABORT_AFTER = 3.0
"""Seconds after the end of the job for an exchange that is under way."""
OVER_GRACE = 20.0
"""Seconds after the end of the job in which this process must have ended by itself."""


class Session:
    """One membership of one replica.

    Attributes:
        member: the number that the coordinator gave.
        index: of the replica; that of a guest is given by the coordinator.
        generation: of the job.
        first: connection to ps 0.
        others: connections to ps 1, 2, ...
    """

    def __init__(
        self,
        address: str,
        token: bytes,
        role: str,
        index: int,
        *,
        patience: float,
        peer_timeout: float,
        tls: Tls | None = None,
        restarts: int = 0,
        draining: threading.Event | None = None,
        pause: Callable[[float], None] = time.sleep,
        guest: str = "",
    ) -> None:
        """Connects and joins; blocks until every ps is there, at most `patience` seconds for each.

        Args:
            address: of ps 0, which tells the addresses of the others.
            token: of the job.
            role: worker or evaluator.
            index: of the replica.
            patience: seconds to keep trying.
            peer_timeout: seconds of silence after which ps 0 counts as lost.
            tls: certificates; None: the job has no TLS.
            restarts: how often this replica was started again.
            draining: set when this worker shall leave after the batch at hand.
            pause: waits so many seconds between two tries; may raise.
            guest: what a worker that was started by hand calls itself; empty: a backend has started it.

        Raises:
            ConnectionLost: when a ps does not answer.
            WrongInput: when the job has as many workers as it may have.
        """
        self._address = Address.parse(address)
        self._token = token
        self._tls = tls
        self.first = client.connect(self._address, token, patience=patience, tls=tls, sleep=pause)
        self.first.set_timeout(max(patience, peer_timeout))  # the answer comes when every ps is there
        host = socket.gethostname() if guest else ""
        joined, _ = self.first.call("join", role=role, index=index, restarts=restarts, guest=guest, host=host)
        self.first.set_timeout(None)
        self.member, self.index = int(joined["member"]), int(joined["index"])
        self.generation = int(joined["generation"])
        self.others: list[Channel] = []
        if role == "worker":
            for host in joined["ps"][1:]:
                self.others.append(client.connect(Address.parse(host), token, patience=OTHERS_PATIENCE, tls=tls))
        beats = client.connect(self._address, token, patience=patience, tls=tls)
        beats.set_timeout(peer_timeout)
        self.heart = Heart(beats, self.member, self._abort, draining or threading.Event())

    def attach(self) -> None:
        """Tells the other partitions who pushes; they must be prepared.

        Raises:
            Rejoin: when one of them does not take this worker for a member: it was silent for too long.
            ConnectionLost: when one of them is gone.
        """
        for channel in self.others:
            try:
                channel.call("attach", member=self.member, generation=self.generation)
            except (ConnectionLost, ProtocolError):
                raise
            except JobFailed as error:
                raise Rejoin(str(error)) from None

    def outcome(self) -> dict[str, Any]:
        """Asks ps 0 how the job stands, by a connection of its own; empty when ps 0 does not answer."""
        if self.heart.over:
            return self.heart.over
        try:
            channel = client.connect(self._address, self._token, patience=0, tls=self._tls)
        except TfleetError:
            return {}
        try:
            channel.set_timeout(5.0)
            return channel.call("outcome", member=self.member, generation=self.generation)[0]
        except TfleetError:
            return {}
        finally:
            channel.close()

    def _abort(self) -> None:
        for channel in (self.first, *self.others):
            channel.abort()

    def close(self) -> None:
        """Ends the membership without a word."""
        self.heart.stop()
        for channel in (self.first, *self.others):
            channel.close()


class Heart:
    """Beats in a thread of its own, so that a worker that compiles for minutes is not taken for dead.

    It also wakes a main thread that waits for a ps which will never answer: when ps 0 is silent, when this worker is no
    member any more, and when the job is over.

    Attributes:
        status: of the job, as of the last beat.
        summaries: whether this worker writes the summaries of the whole job.
        over: how the job ended, or empty.
        times: where the time of this worker's steps goes, told with each beat.
    """

    def __init__(self, channel: Channel, member: int, abort: Callable[[], None], draining: threading.Event) -> None:
        self.status: dict[str, Any] = {}
        self.summaries = False
        self.over: dict[str, Any] = {}
        self._remarks: deque[str] = deque(maxlen=5)
        self.times = Times("data", "gradient", "exchange")
        self._channel = channel
        self._member = member
        self._abort = abort
        self._draining = draining
        self._stopped = threading.Event()
        threading.Thread(target=self._run, name="heartbeat", daemon=True).start()

    def remark(self, text: str) -> None:
        """Has the user told something with the next beat; may be called while an exchange is under way."""
        print(f"tfleet: {text}", flush=True)
        self._remarks.append(text)

    def stop(self) -> None:
        """Ends the beats."""
        self._stopped.set()

    def _run(self) -> None:
        known = True
        try:
            while known and not self.over and not self._stopped.wait(BEAT_EVERY):
                remarks = [self._remarks.popleft() for _ in range(len(self._remarks))]
                answer, _ = self._channel.call(
                    "beat",
                    member=self._member,
                    draining=self._draining.is_set(),
                    times=self.times.to_json(),
                    remarks=remarks,
                )
                self.status, self.summaries = answer["status"], bool(answer["summaries"])
                self.over, known = answer["over"], bool(answer["known"])
        except TfleetError:
            pass  # the main thread meets the same, and knows what it means
        finally:
            self._channel.close()
        if self.over:
            self._stopped.wait(ABORT_AFTER)
        if not self._stopped.is_set():
            self._abort()
        if self.over and not self._stopped.wait(OVER_GRACE):
            os._exit(int(self.over.get("exit_code", ExitCode.FAILED)))


def guarded(session: Session, work: Callable[[], int]) -> int:
    """Runs the work of a member; tells ps 0 why it ends when it does not end well.

    Returns:
        The exit code of the process.
    """
    try:
        return work()
    except (ConnectionLost, Rejoin):
        raise
    except TfleetError as error:
        # A ps that refuses a frame closes the connection after its error: who joined again would be refused again.
        with contextlib.suppress(ConnectionLost):
            session.first.call("fail", message=str(error), exit_code=int(error.exit_code))
        raise
    except Exception as error:
        text = " ".join(f"{type(error).__name__}: {error}".split())
        session.first.call("leave", reason=short_of_memory("a worker", error) or f"a worker ended: {text[:300]}")
        raise


def short_of_memory(who: str, error: Exception) -> str:
    """Returns a sentence where memory is what an error is about, else the empty string."""
    # TensorFlow's own error is known by its name: this file can do without TensorFlow.
    if isinstance(error, MemoryError) or type(error).__name__ == "ResourceExhaustedError":
        return out_of_memory(who, error, "take a smaller batch_size, fewer replicas on this machine, or more memory")
    return ""
