"""Free TCP ports on this machine."""

from __future__ import annotations

import contextlib
import errno
import random
import socket
from pathlib import Path

from tfleet.spec.errors import JobFailed, WrongInput

LOWEST = 10000
EPHEMERAL = Path("/proc/sys/net/ipv4/ip_local_port_range")


def free_ports(count: int, rng: random.Random | None = None) -> list[int]:
    """Returns `count` different ports that nothing listens on, on any interface.

    They lie below the range from which the kernel takes ports for outgoing connections: otherwise the first
    connection of one replica could take the port on which another is about to listen. All interfaces are tried
    because TensorFlow's servers listen on all of them, whatever address they are given.

    Args:
        count: how many.
        rng: where to look first; by default different for every call.

    Raises:
        JobFailed: when there are not enough.
    """
    candidates = list(range(LOWEST, _first_ephemeral()))
    (rng or random.Random()).shuffle(candidates)
    ports: list[int] = []
    with contextlib.ExitStack() as held:
        for port in candidates:
            if len(ports) == count:
                return ports
            with contextlib.suppress(OSError):
                _hold(port, held)
                ports.append(port)
    if len(ports) < count:
        raise JobFailed(f"{count} free TCP ports are needed, but only {len(ports)} were found; end other programs")
    return ports


def require_free(port: int, flag: str) -> None:
    """Checks that this process could listen on `port` of the loopback interface.

    Args:
        port: the port that a user asked for.
        flag: how the user asked for it, for the message.

    Raises:
        WrongInput: when it could not.
    """
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
            probe.listen(1)
        except OSError as error:
            raise WrongInput(
                f"{flag} {port} cannot be used: {(error.strerror or str(error)).lower()}; choose another port, or 0"
            ) from None


def _first_ephemeral() -> int:
    with contextlib.suppress(OSError, ValueError, IndexError):
        first = int(EPHEMERAL.read_text(encoding="ascii").split()[0])
        if first >= LOWEST + 1000:
            return first
    return 32768


def _hold(port: int, held: contextlib.ExitStack) -> None:
    with contextlib.ExitStack() as attempt:
        for family, anywhere in ((socket.AF_INET, "0.0.0.0"), (socket.AF_INET6, "::")):
            try:
                probe = attempt.enter_context(socket.socket(family))
            except OSError:
                continue
            if family == socket.AF_INET6:
                probe.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            try:
                probe.bind((anywhere, port))
            except OSError as error:
                # A machine without IPv6 may still make such sockets; they have no address to be bound to.
                if error.errno != errno.EADDRNOTAVAIL:
                    raise
        held.push(attempt.pop_all())
