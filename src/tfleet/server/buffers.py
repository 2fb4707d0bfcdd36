"""A bounded pool of receive buffers: the memory of a ps does not grow with the number of workers."""

from __future__ import annotations

BUFFERS = 4


class BufferPool:
    """Up to `count` buffers of one size, made when first needed.

    Attributes:
        size: of each, in bytes.
    """

    def __init__(self, size: int, count: int = BUFFERS) -> None:
        self.size = size
        self._left = count
        self._free: list[memoryview] = []
        self._lent: set[int] = set()

    def take(self) -> memoryview | None:
        """Returns a buffer, or None while all are in use."""
        if not self._free and not self._left:
            return None
        if self._free:
            buffer = self._free.pop()
        else:
            self._left -= 1
            buffer = memoryview(bytearray(self.size))
        self._lent.add(id(buffer))
        return buffer

    def give(self, buffer: memoryview) -> None:
        """Takes a buffer back; memory that is not the pool's is left alone."""
        if id(buffer) in self._lent:
            self._lent.remove(id(buffer))
            self._free.append(buffer)
