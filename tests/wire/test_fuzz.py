"""Thousands of damaged frames against a real ps: nobody else notices, nothing falls over, no memory is lost."""

import contextlib
import random
import resource
import socket

import pytest
from fuzzed_ps import ROWS, SIZE, Ps, damaged, seeds

from tfleet.server.buffers import BUFFERS

FRAMES = 3000
MEMORY = 64 << 10
"""KiB by which the process may have grown at its peak: a few frames of the largest meta."""


@pytest.mark.parametrize("index", [0, 1])
def test_damaged_frames_hurt_nobody_else(tmp_path, index):
    rng = random.Random(index)
    ps = Ps(tmp_path, index)
    worker = ps.worker()
    lease = ps.pull(worker).leases[0] if index == 0 else None
    sequence, frames = 0, seeds(ps)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for number in range(FRAMES):
        connection, sock = ps.peers.adopt()
        if ps.job and number % 2:
            ps.call(sock, call="join", role="evaluator", index=number)
        with contextlib.suppress(OSError):
            sock.sendall(damaged(rng.choice(frames), rng))
        ps.peers.step(3)
        with contextlib.suppress(OSError):
            sock.shutdown(socket.SHUT_RDWR)
        sock.close()
        ps.peers.sockets.remove(sock)
        ps.peers.step(3)
        assert connection.closed
        if number % 100 == 0:
            sequence += 1
            take, parameters = ps.push(worker, sequence, lease)
            lease = take.leases[0] if take.leases else None
            assert len(parameters) == SIZE
            assert set(parameters) == {sequence}
            assert (ps.fetch(worker, ROWS) == sequence).all()
    assert not ps.fetch(worker, [1, 62]).any()
    assert not ps.replica._rows._senders
    assert not ps.replica._rows._come
    assert set(parameters) == {sequence}  # each push of the worker, and nothing else
    assert not ps.replica._receiving
    assert not ps.replica._waiting
    assert len(ps.replica._pool._free) <= BUFFERS
    assert not ps.replica._pool._lent
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - peak < MEMORY
    if ps.job:
        assert ps.job.phase == "training"
        assert ps.job.step == sequence
    ps.close()
