"""An NFS client in user space (Debian's libnfs13), for machines whose kernel has none."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterator
from contextlib import contextmanager
from ctypes import byref, c_char_p, c_int, c_uint64, c_void_p, create_string_buffer

PIECE = 2048
"""Bytes a write: libnfs 4.0 cannot send more than about 3 kB in one with version 4 of the protocol."""

SIGNATURES = {
    "nfs_init_context": (c_void_p, []),
    "nfs_destroy_context": (None, [c_void_p]),
    "nfs_get_error": (c_char_p, [c_void_p]),
    "nfs_set_version": (c_int, [c_void_p, c_int]),
    "nfs_set_uid": (None, [c_void_p, c_int]),
    "nfs_set_gid": (None, [c_void_p, c_int]),
    "nfs_mount": (c_int, [c_void_p, c_char_p, c_char_p]),
    "nfs_open2": (c_int, [c_void_p, c_char_p, c_int, c_int, c_void_p]),
    "nfs_pwrite": (c_int, [c_void_p, c_void_p, c_uint64, c_uint64, c_char_p]),
    "nfs_pread": (c_int, [c_void_p, c_void_p, c_uint64, c_uint64, c_char_p]),
    "nfs_fsync": (c_int, [c_void_p, c_void_p]),
    "nfs_close": (c_int, [c_void_p, c_void_p]),
    "nfs_mkdir": (c_int, [c_void_p, c_char_p]),
    "nfs_rename": (c_int, [c_void_p, c_char_p, c_char_p]),
    "nfs_unlink": (c_int, [c_void_p, c_char_p]),
}


def library() -> ctypes.CDLL:
    """Loads libnfs.

    Raises:
        OSError: when it is not installed.
    """
    loaded = ctypes.CDLL("libnfs.so.13")
    for name, (result, arguments) in SIGNATURES.items():
        function = getattr(loaded, name)
        function.restype, function.argtypes = result, arguments
    return loaded


class Nfs:
    """A mounted export, seen by one user. Every call blocks, and raises `OSError` when the server refuses."""

    def __init__(self, server: str, path: str, uid: int = 1000, gid: int = 1000) -> None:
        self._library = library()
        self._context = self._library.nfs_init_context()
        self._library.nfs_set_version(self._context, 4)
        self._library.nfs_set_uid(self._context, uid)
        self._library.nfs_set_gid(self._context, gid)
        self._call("nfs_mount", server.encode(), path.encode())

    def close(self) -> None:
        """Unmounts."""
        self._library.nfs_destroy_context(self._context)

    def __enter__(self) -> Nfs:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def mkdir(self, path: str) -> None:
        """Makes a folder."""
        self._call("nfs_mkdir", path.encode())

    def rename(self, old: str, new: str) -> None:
        """Moves a file; one that has the new name is replaced."""
        self._call("nfs_rename", old.encode(), new.encode())

    def unlink(self, path: str) -> None:
        """Removes a file."""
        self._call("nfs_unlink", path.encode())

    def write(self, path: str, data: bytes) -> None:
        """Writes a new file and waits until the server has it on disk."""
        with self._opened(path, os.O_CREAT | os.O_WRONLY) as handle:
            for at in range(0, len(data), PIECE):
                piece = data[at : at + PIECE]
                written = self._call("nfs_pwrite", handle, at, len(piece), piece)
                assert written == len(piece)
            self._call("nfs_fsync", handle)

    def read(self, path: str) -> bytes:
        """Reads a whole file."""
        data = b""
        buffer = create_string_buffer(1 << 16)
        with self._opened(path, os.O_RDONLY) as handle:
            while count := self._call("nfs_pread", handle, len(data), len(buffer), buffer):
                data += buffer.raw[:count]
        return data

    @contextmanager
    def _opened(self, path: str, flags: int) -> Iterator[c_void_p]:
        handle = c_void_p()
        self._call("nfs_open2", path.encode(), flags, 0o640, byref(handle))
        try:
            yield handle
        finally:
            self._call("nfs_close", handle)

    def _call(self, name: str, *arguments: object) -> int:
        code: int = getattr(self._library, name)(self._context, *arguments)
        if code < 0:
            raise OSError(-code, f"{name}: {self._library.nfs_get_error(self._context).decode(errors='replace')}")
        return code
