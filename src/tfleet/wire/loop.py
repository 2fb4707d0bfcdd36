"""The event loop of a ps: one thread, sockets by readiness, timers, and calls from other threads."""

from __future__ import annotations

import contextlib
import heapq
import itertools
import os
import selectors
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any


class Loop:
    """Runs callbacks for sockets, timers and other threads, one at a time, in the thread that calls `run`.

    Everything but `call_from_thread` is for that thread only.

    Attributes:
        now: seconds, as timers count them.
        woke: when the callbacks that run now had become ready, as `time.perf_counter` counts.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.now = clock
        self.woke = 0.0
        self._selector = selectors.DefaultSelector()
        self._timers: list[tuple[float, int, Callable[[], None]]] = []
        self._order = itertools.count()
        self._calls: deque[Callable[[], None]] = deque()
        self._running = False
        self._open = threading.RLock()  # signal handlers may interrupt whoever holds it
        self._closed = False
        self._wake_read, self._wake_write = os.pipe()
        os.set_blocking(self._wake_read, False)
        os.set_blocking(self._wake_write, False)
        self._selector.register(self._wake_read, selectors.EVENT_READ, self._woken)

    def watch(self, sock: Any, events: int, callback: Callable[[int], None]) -> None:
        """Calls `callback(ready events)` when the socket is ready; 0 events: no longer."""
        known = sock.fileno() in self._selector.get_map()
        if events and known:
            self._selector.modify(sock, events, callback)
        elif events:
            self._selector.register(sock, events, callback)
        elif known:
            self._selector.unregister(sock)

    def call_later(self, seconds: float, callback: Callable[[], None]) -> None:
        """Calls `callback` once, after so many seconds."""
        heapq.heappush(self._timers, (self.now() + seconds, next(self._order), callback))

    def call_every(self, seconds: float, callback: Callable[[], None]) -> None:
        """Calls `callback` again and again, so many seconds apart."""

        def again() -> None:
            callback()
            self.call_later(seconds, again)

        self.call_later(seconds, again)

    def call_from_thread(self, callback: Callable[[], None]) -> None:
        """Calls `callback` soon in the loop's thread; safe from any thread and from signal handlers.

        After `close` nothing happens: a thread may outlive the loop that it was started by.
        """
        self._calls.append(callback)
        with self._open, contextlib.suppress(BlockingIOError):  # a full pipe wakes the loop too
            if not self._closed:
                os.write(self._wake_write, b"x")

    def start_thread(self, work: Callable[[], None]) -> None:
        """Runs `work`, which may block, in a thread that does not outlive the process."""
        threading.Thread(target=work, daemon=True).start()

    def run(self) -> None:
        """Blocks and runs callbacks until `stop`."""
        self._running = True
        while self._running:
            self.turn(self._pause())

    def turn(self, timeout: float | None) -> None:
        """Runs the callbacks of what is ready and due.

        Args:
            timeout: seconds to wait for something to be ready; None: without limit.
        """
        ready = self._selector.select(timeout)
        self.woke = time.perf_counter()
        for key, events in ready:
            key.data(events)
        due = self.now()
        while self._timers and self._timers[0][0] <= due:
            heapq.heappop(self._timers)[2]()

    def stop(self) -> None:
        """Makes `run` return once the callbacks that are ready now have run."""
        self._running = False

    def close(self) -> None:
        """Frees what the loop holds."""
        with self._open:
            self._closed = True
            self._selector.close()
            os.close(self._wake_read)
            os.close(self._wake_write)

    def _pause(self) -> float | None:
        return max(0.0, self._timers[0][0] - self.now()) if self._timers else None

    def _woken(self, _events: int) -> None:
        with contextlib.suppress(BlockingIOError):
            while os.read(self._wake_read, 4096):
                pass
        while self._calls:
            self._calls.popleft()()
