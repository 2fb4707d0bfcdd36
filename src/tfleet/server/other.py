"""The process of ps 1, 2, ...: joins ps 0, serves its partition for a generation, and joins again."""

from __future__ import annotations

import time
from typing import Any

from tfleet.server.process import Process, on_signal
from tfleet.server.watch import Standstill, silence
from tfleet.spec.errors import ExitCode, Interrupted, JobFailed
from tfleet.spec.lifeline import end_at_once, watch_lifeline
from tfleet.spec.rundir import RunDir, outcome_of
from tfleet.wire import client
from tfleet.wire.address import Address
from tfleet.wire.client import Channel
from tfleet.wire.frames import Kind, pack_json
from tfleet.wire.loop import Loop
from tfleet.wire.server import Connection

AGAIN = 0.2
"""Seconds until a refused join is tried again."""
LOOK_EVERY = 1.0
"""Seconds between two looks at whether ps 0 still pings."""


class _Over(Exception):
    """The job is over, as status.json tells: ps 0 could not."""


class OtherPs(Process):
    """A ps without coordinator.

    When the connection to ps 0 is lost its partition is worth nothing: everybody goes back to the last commit.

    Args:
        index: of the ps, from 1.
        run: the run directory.
    """

    def __init__(self, index: int, run: RunDir) -> None:
        super().__init__(index, run)
        self._generation = 0
        self._joined: tuple[Loop, Connection] | None = None
        self._waiting = False
        self._asked = False
        self._orphaned = False

    def run(self) -> int:
        """Blocks until the job is over; returns the exit code.

        Raises:
            JobFailed: when ps 0 cannot be joined within `join_timeout`.
            Interrupted: when this ps was asked to end while it was not part of the job.
        """
        on_signal(self._terminated)
        watch_lifeline(self._orphan)
        try:
            while True:
                channel = self._join()
                if self._serve(channel):
                    return ExitCode.DONE
                if self._orphaned:
                    end_at_once()
                print(f"tfleet: ps {self.index} has lost the connection to ps 0 and joins again", flush=True)
        except _Over:
            return ExitCode.DONE

    def _join(self) -> Channel:
        """Joins ps 0; blocks, and tries again for `join_timeout`."""
        end = time.monotonic() + self.spec.join_timeout
        address = Address.parse(self.where.first)
        who: dict[str, Any] = {
            "role": "ps",
            "index": self.index,
            "address": self.where.announce,
            "restarts": self._restarts,
        }
        while True:
            self._wait_interruptibly()
            patience = max(0.0, end - time.monotonic())
            channel = client.connect(address, self.token, patience=patience, tls=self.tls, sleep=self._pause)
            self._waiting = False
            try:
                channel.set_timeout(self.spec.peer_timeout)
                answer, _ = channel.call("join", **who)
                self._generation = int(answer["generation"])
                return channel
            except JobFailed:  # ps 0 is gone again, or does not know yet that an earlier ps of this index is
                channel.close()
                if time.monotonic() >= end:
                    raise
            self._pause(AGAIN)

    def _serve(self, channel: Channel) -> bool:
        """Serves one generation; returns whether ps 0 told that the job is over."""
        parts = self.parts()
        told: list[dict[str, Any]] = []

        def over(values: dict[str, Any]) -> None:
            told.append(values)
            parts.loop.stop()

        standstill = Standstill(parts.loop.now(), LOOK_EVERY)

        def look() -> None:
            parts.replica.heard += standstill.lost(parts.loop.now())
            if parts.loop.now() - parts.replica.heard > silence(self.spec.peer_timeout):
                parts.loop.stop()

        connection = parts.replica.coordinator = parts.server.adopt(*channel.detach())
        connection.on_close = lambda _: parts.loop.stop()
        parts.replica.on_over = over
        parts.loop.call_every(LOOK_EVERY, look)
        self._joined = (parts.loop, connection)
        if self._asked:
            self._ask_to_end()
        print(f"tfleet: ps {self.index} is ready, generation {self._generation}", flush=True)
        parts.loop.run()
        self._joined = None
        parts.end()
        return bool(told)

    def _pause(self, seconds: float) -> None:
        if self._generation and outcome_of(self.run_dir.status(), self._generation) is not None:
            raise _Over
        time.sleep(seconds)

    def _terminated(self) -> None:
        # The job is interrupted as a whole: without this partition there would be no last commit.
        self._asked = True
        if self._waiting:
            self._wait_interruptibly()
        if self._joined:
            self._joined[0].call_from_thread(self._ask_to_end)

    def _wait_interruptibly(self) -> None:
        self._waiting = True
        if self._asked:
            raise Interrupted(f"ps {self.index} was asked to end (SIGTERM) while it was not part of the job")

    def _ask_to_end(self) -> None:
        if self._joined:
            reason = f"ps {self.index} was asked to end (SIGTERM)"
            self._joined[1].send(Kind.CALL, pack_json({"call": "end", "how": "interrupt", "reason": reason}))

    def _orphan(self) -> None:
        # While this ps is part of the job, ps 0 ends it, which sees the same.
        self._orphaned = True
        if self._joined is None:
            end_at_once()
