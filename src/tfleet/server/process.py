"""What the processes of all ps have in common: environment, listening socket, and one server for each generation."""

from __future__ import annotations

import errno
import gc
import json
import os
import signal
from collections.abc import Callable
from typing import Any, NamedTuple

from tfleet.checkpoint.store import Store
from tfleet.server.events import Events
from tfleet.server.replica import PsReplica
from tfleet.spec.environment import JOB_FILE, TOKEN_FILE, ReplicaEnvironment, Whereabouts, restarts_of
from tfleet.spec.job import JobSpec
from tfleet.spec.rundir import ROOM, RunDir, write_atomically
from tfleet.wire.address import Address
from tfleet.wire.auth import read_token
from tfleet.wire.loop import Loop
from tfleet.wire.secure import tls_of
from tfleet.wire.server import Server

RESERVE = 1 << 16
"""Bytes on the disk that are given up for status.json when it is full."""


class Parts(NamedTuple):
    """What a ps has for one generation only: nothing of it can reach into the next."""

    loop: Loop
    replica: PsReplica
    server: Server

    def end(self) -> None:
        """Drops all connections, and frees the partition before the next one is made."""
        self.replica.listener = None
        self.server.end()
        self.loop.close()
        gc.collect()


class Process:
    """One ps. The listening socket lives as long as the process, so that nobody is ever refused between generations.

    Args:
        index: of the ps.
        run: the run directory.

    Raises:
        WrongInput: when the environment, the job or the address cannot be used.
    """

    def __init__(self, index: int, run: RunDir) -> None:
        environment = ReplicaEnvironment.from_environ(os.environ)
        self.index = index
        self.run_dir = run
        self.hosts = list(environment.ps_hosts)
        self.token = read_token(os.environ.get(TOKEN_FILE) or run.token_file)
        self.spec = JobSpec.load(os.environ.get(JOB_FILE) or run.job_file)
        self.store = Store(run.checkpoints)
        self._restarts = restarts_of(os.environ)
        self.where = Whereabouts.of(index, self.hosts, os.environ)
        self.tls = tls_of(self.spec, self.where.announce)
        self._events = Events.of(os.environ, index)
        self._listener = Address.parse(self.where.listen).listen()

    def run(self) -> int:
        """Blocks until the job is over; returns the exit code."""
        raise NotImplementedError

    def parts(self) -> Parts:
        """Makes what a generation needs."""
        loop = Loop()
        replica = PsReplica(self.index, loop, self.store, self._restarts)
        replica.owns_thread = True
        replica.events = self._events
        return Parts(loop, replica, Server(loop, self._listener, self.token, replica, self.tls))


def on_signal(action: Callable[[], None]) -> None:
    """Has SIGTERM and SIGINT call `action`, which may raise."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: action())


def write_status(run: RunDir, status: dict[str, Any]) -> None:
    """Replaces status.json; a full disk must not end the job, so what cannot be written waits for the next time.

    Some room is kept for it, so that the user learns that the disk is full.
    """
    text = json.dumps(status, indent=1)
    try:
        try:
            write_atomically(run.status_file, text)
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT) or not run.reserve_file.exists():
                raise
            run.reserve_file.unlink()
            write_atomically(run.status_file, text)
        disk = os.statvfs(run.path)
        if not run.reserve_file.exists() and disk.f_bavail * disk.f_frsize > ROOM:
            run.reserve_file.write_bytes(bytes(RESERVE))
    except OSError as error:
        print(f"tfleet: status.json could not be written: {error.strerror}", flush=True)
