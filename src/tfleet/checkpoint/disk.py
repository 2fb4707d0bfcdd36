"""The few system calls that writing a commit takes, and a file written durably by means of them.

They stand behind one small class so that tests can put a disk in their place that is full, breaks, or loses power.
"""

from __future__ import annotations

import errno
import hashlib
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

BLOCK = 1 << 20
"""Bytes that are hashed and written, or read and hashed, at a time."""

_NO_DIRECTORY_SYNC = {errno.EINVAL, errno.EBADF, errno.ENOTSUP}


class Disk:
    """System calls on files and folders. All block; all raise OSError."""

    def create(self, path: Path) -> int:
        """Opens a new file for writing; an existing one is FileExistsError."""
        return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)

    def write(self, handle: int, data: memoryview) -> int:
        """Writes a beginning of `data` and returns how many bytes that were."""
        return os.write(handle, data)

    def sync(self, handle: int) -> None:
        """Returns once the file's bytes are on stable storage."""
        os.fsync(handle)

    def close(self, handle: int) -> None:
        """Closes a file; network filesystems report a full disk as late as here."""
        os.close(handle)

    def rename(self, old: Path, new: Path) -> None:
        """Gives a file another name in the same folder, in one step."""
        os.rename(old, new)

    def remove(self, path: Path) -> None:
        """Removes a file."""
        os.unlink(path)

    def sync_directory(self, path: Path) -> None:
        """Returns once the names in a folder are on stable storage."""
        handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(handle)
        except OSError as error:
            # Some network and FUSE filesystems have no such call: their names are stable once made.
            if error.errno not in _NO_DIRECTORY_SYNC:
                raise
        finally:
            os.close(handle)


@dataclass(frozen=True)
class Written:
    """What was written to a file.

    Attributes:
        bytes: its length.
        sha256: checksum over all of it, in hexadecimal.
    """

    bytes: int
    sha256: str


def write_file(disk: Disk, handle: int, pieces: Iterable[Any]) -> Written:
    """Writes `pieces` (C-contiguous buffers) to a new file without copying them, syncs and closes it; blocks.

    Raises:
        OSError: the file is closed, and incomplete.
    """
    digest, size = hashlib.sha256(), 0
    try:
        for piece in pieces:
            view = memoryview(piece)
            view = view.cast("B") if view.nbytes else memoryview(b"")
            for start in range(0, len(view), BLOCK):
                block = view[start : start + BLOCK]
                digest.update(block)
                size += len(block)
                while block:
                    block = block[disk.write(handle, block) :]
        disk.sync(handle)
    finally:
        disk.close(handle)
    return Written(size, digest.hexdigest())
