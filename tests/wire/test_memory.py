"""Memory between processes: what one writes the other reads, and what could harm is refused."""

import fcntl
import os
import resource
import subprocess
import sys

import numpy as np
import pytest
from wire_peers import Stepped, channel_over

from tfleet.wire.memory import NoSharedMemory, adopt, create, room


def test_both_see_what_either_writes():
    fd, mine = create(1000)
    theirs = adopt(fd, 1000)
    mine[:] = np.arange(1000)
    theirs[7] = -1
    assert np.array_equal(theirs, mine)
    assert mine[7] == -1
    assert mine.ctypes.data % 4096 == 0


def test_the_descriptor_is_not_left_open():
    fd, _ = create(10)
    adopt(fd, 10)
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(fd)


def test_memory_that_is_too_small_is_refused():
    fd, _ = create(10)
    with pytest.raises(NoSharedMemory, match="offers 40 bytes of memory, 44 and seals are needed"):
        adopt(fd, 11)


def test_memory_that_could_shrink_is_refused():
    fd = os.memfd_create("x", os.MFD_ALLOW_SEALING)
    os.ftruncate(fd, 400)
    with pytest.raises(NoSharedMemory, match="seals are needed"):
        adopt(fd, 100)


def test_nobody_can_shrink_it():
    fd, _ = create(100)
    with pytest.raises(PermissionError):
        os.ftruncate(fd, 0)
    assert fcntl.fcntl(fd, fcntl.F_GET_SEALS) & fcntl.F_SEAL_SHRINK
    os.close(fd)


def test_something_else_than_memory_is_refused(tmp_path):
    (tmp_path / "file").write_bytes(bytes(400))
    with pytest.raises(NoSharedMemory):
        adopt(os.open(tmp_path / "file", os.O_RDWR), 100)


def test_the_room_of_a_control_group(tmp_path):
    assert room(tmp_path) is None
    (tmp_path / "memory.max").write_text("max\n")
    (tmp_path / "memory.current").write_text("100\n")
    assert room(tmp_path) is None
    (tmp_path / "memory.max").write_text("150\n")
    assert room(tmp_path) == 50
    (tmp_path / "memory.current").write_text("200\n")
    assert room(tmp_path) == 0


def test_a_memory_limit_that_leaves_no_room_is_told(monkeypatch):
    monkeypatch.setattr("tfleet.wire.memory.room", lambda: 3 << 20)
    with pytest.raises(NoSharedMemory, match="4 MB are needed, the memory limit leaves 3"):
        create(1 << 20)


def test_a_limit_on_files_is_told():
    """In a process of its own: the limit cannot be raised again by everybody."""
    limit = f"import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (4096, {resource.RLIM_INFINITY}))"
    code = f"{limit}\nfrom tfleet.wire.memory import *\ntry:\n create(5000)\nexcept NoSharedMemory as e:\n print(e)"
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert said.strip() == "File too large"


def test_a_descriptor_travels_over_a_connection():
    with Stepped() as peers:
        connection, sock = peers.adopt()
        taken = []
        connection.expect_descriptor(taken.append)
        fd, mine = create(4)
        channel = channel_over(sock)
        assert channel.local
        channel.send_descriptor(fd)
        os.close(fd)
        peers.step()
        mine[2] = 5
        assert adopt(taken[0], 4).tolist() == [0, 0, 5, 0]
        assert not connection.closed


def test_a_peer_that_sends_something_else_than_a_descriptor_is_dropped():
    with Stepped() as peers:
        connection, sock = peers.adopt()
        connection.expect_descriptor(lambda fd: None)
        sock.sendall(b"f")
        peers.step()
        assert connection.closed
