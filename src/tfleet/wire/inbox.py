"""What was read from a socket ahead of being asked for, so that a small frame costs one system call, not three."""

from __future__ import annotations

from collections.abc import Callable

SIZE = 1024
"""Bytes that are read ahead at most: header and meta of a PUSH, and no more of a payload than copying is worth."""


class Inbox:
    """A small buffer between a socket and those who read from it.

    Attributes:
        ended: whether the peer has closed the connection.
    """

    def __init__(self) -> None:
        self.ended = False
        self._memory = memoryview(bytearray(SIZE))
        self._low = self._high = 0

    @property
    def full(self) -> bool:
        """Whether something was read ahead."""
        return self._low < self._high

    def fill(self, view: memoryview, receive_into: Callable[[memoryview], int]) -> memoryview:
        """Puts what is there, or what one read gives, into `view`; returns the rest of it.

        A large view is read into without a copy.

        Args:
            view: not empty.
            receive_into: reads into a buffer and returns how many bytes, 0 at the end.

        Raises:
            OSError: what `receive_into` raises.
        """
        if self._low == self._high:
            if len(view) >= SIZE:
                count = receive_into(view)
                self.ended = not count
                return view[count:]
            self._low, self._high = 0, receive_into(self._memory)
            self.ended = not self._high
        count = min(len(view), self._high - self._low)
        view[:count] = self._memory[self._low : self._low + count]
        self._low += count
        return view[count:]
