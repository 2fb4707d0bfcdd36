"""Processes of the peers on this machine: free addresses, start, end, and the samples that they leave."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from measure import Sample, child_environment

PER_SECOND = 10
"""Samples a second, as in tfleet's deploy.log."""


def addresses(count: int) -> list[str]:
    """Returns addresses on loopback with ports that are free now."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    found = [f"127.0.0.1:{s.getsockname()[1]}" for s in sockets]
    for held in sockets:
        held.close()
    return found


def start(arguments: Sequence[str]) -> subprocess.Popen[bytes]:
    """Starts a script with its arguments, in the Python of this process; what it prints goes to standard error."""
    return subprocess.Popen([sys.executable, *arguments], env=child_environment(), stdout=sys.stderr)


def end(replicas: Sequence[subprocess.Popen[bytes]]) -> None:
    """Ends what still runs: TensorFlow's servers never end by themselves."""
    for replica in replicas:
        if replica.poll() is None:
            replica.send_signal(signal.SIGTERM)
    for replica in replicas:
        try:
            replica.wait(timeout=10)
        except subprocess.TimeoutExpired:
            replica.kill()
            replica.wait()


class Samples:
    """The samples of one process: at most `PER_SECOND` a second, and the last."""

    def __init__(self) -> None:
        self.taken: list[Sample] = []
        self._next = 0.0

    def due(self) -> bool:
        """Tells whether it is time for one."""
        return time.time() >= self._next

    def take(self, step: int) -> None:
        """Notes that `step` is done now."""
        now = time.time()
        self.taken.append((now, step))
        self._next = now + 1 / PER_SECOND

    def write(self, path: Path) -> None:
        """Leaves them in a file, for `read_samples`."""
        path.write_text("".join(f"{moment:.6f} {step}\n" for moment, step in self.taken), encoding="utf-8")


def read_samples(path: Path) -> list[Sample]:
    """Reads the samples of one process."""
    lines = (line.split() for line in path.read_text(encoding="utf-8").splitlines())
    return [(float(moment), int(step)) for moment, step in lines]
