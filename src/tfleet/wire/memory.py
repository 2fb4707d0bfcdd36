"""Memory that processes of one machine share: one makes it, and hands it to another over their Unix socket.

It has no name (memfd), so nothing of it is left when the processes are gone, however they died. It is sealed, so that
whoever maps it need not fear that it shrinks under him (SIGBUS).
"""

from __future__ import annotations

import fcntl
import mmap
import os
from pathlib import Path

import numpy as np

from tfleet.spec.arrays import Float32s
from tfleet.spec.errors import JobFailed

_SEALS = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW if hasattr(fcntl, "F_SEAL_SHRINK") else 0
_CGROUP = Path("/sys/fs/cgroup")


class NoSharedMemory(JobFailed):
    """The system gives no shared memory of this size, or the peer offers none that can be used."""


def create(elements: int) -> tuple[int, Float32s]:
    """Makes shared memory, all zeros; does not block.

    Args:
        elements: how many float32 it holds.

    Returns:
        A file descriptor to hand on, and the memory: float32 [elements], aligned to a page.

    Raises:
        NoSharedMemory: when the system refuses it, or its limits leave no room.
    """
    size = 4 * max(1, elements)
    left = room()
    if left is not None and size > left:
        raise NoSharedMemory(f"{size >> 20} MB are needed, the memory limit leaves {left >> 20}")
    try:
        fd = os.memfd_create("tfleet", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    except (OSError, AttributeError) as error:
        raise NoSharedMemory(str(error)) from None
    try:
        os.ftruncate(fd, size)
        fcntl.fcntl(fd, fcntl.F_ADD_SEALS, _SEALS)
        return fd, _mapped(fd, size)[:elements]
    except OSError as error:
        os.close(fd)
        raise NoSharedMemory(error.strerror or str(error)) from None


def adopt(fd: int, elements: int) -> Float32s:
    """Maps memory that a peer has made, and closes the descriptor.

    Args:
        fd: as received.
        elements: float32 that it must hold.

    Raises:
        NoSharedMemory: when it is smaller, or could still shrink.
    """
    try:
        size = os.fstat(fd).st_size
        if size < 4 * elements or fcntl.fcntl(fd, fcntl.F_GET_SEALS) & _SEALS != _SEALS:
            raise NoSharedMemory(f"the peer offers {size} bytes of memory, {4 * elements} and seals are needed")
        return _mapped(fd, size)[:elements]
    except OSError as error:
        raise NoSharedMemory(error.strerror or str(error)) from None
    finally:
        os.close(fd)


def room(cgroup: Path = _CGROUP) -> int | None:
    """Returns the bytes that the memory limit of this process's control group leaves; None without a limit."""
    try:
        limit = (cgroup / "memory.max").read_text().strip()
        used = int((cgroup / "memory.current").read_text())
    except (OSError, ValueError):
        return None
    return None if limit == "max" else max(0, int(limit) - used)


def _mapped(fd: int, size: int) -> Float32s:
    return np.frombuffer(mmap.mmap(fd, size), np.float32)
