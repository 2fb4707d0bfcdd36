"""Addresses of replicas: `host:port`, `unix:@name` (abstract, Linux) or `unix:/path`."""

from __future__ import annotations

import contextlib
import socket
from dataclasses import dataclass

from tfleet.spec.environment import UNIX, is_address
from tfleet.spec.errors import WrongInput

BUFFER = 4 << 20
"""Bytes asked for as socket buffers, so that a whole slice of a small model is one system call."""

# Linux lets root pass its limit on buffers; Python does not name the options.
_FORCE = {socket.SO_SNDBUF: 32, socket.SO_RCVBUF: 33}


@dataclass(frozen=True)
class Address:
    """Where a replica listens.

    Attributes:
        host: host name or IP address; empty for Unix sockets.
        port: TCP port; 0 for Unix sockets.
        path: path of a Unix socket, or `@name` for an abstract one; empty for TCP.
    """

    host: str = ""
    port: int = 0
    path: str = ""

    @classmethod
    def parse(cls, text: str) -> Address:
        """Reads an address as it stands in PS_HOSTS.

        Raises:
            WrongInput: when it is neither `host:port` nor `unix:...`.
        """
        if not is_address(text):
            raise WrongInput(f"the address {text!r} is not host:port or unix:@name; correct PS_HOSTS")
        if text.startswith(UNIX):
            return cls(path=text.removeprefix(UNIX))
        host, _, port = text.rpartition(":")
        return cls(host=host.strip("[]"), port=int(port))

    def __str__(self) -> str:
        return f"{UNIX}{self.path}" if self.path else f"{self.host}:{self.port}"

    def listen(self, *, everywhere: bool = False) -> socket.socket:
        """Returns a non-blocking socket that listens here.

        Args:
            everywhere: TCP only: listen on all interfaces instead of on `host`'s.

        Raises:
            WrongInput: when the port or name is taken, not ours, or unknown.
        """
        try:
            server = self._listening(everywhere)
        except OSError as error:
            reason = error.strerror or error
            raise WrongInput(f"cannot listen on {self}: {reason}; choose another address or port") from None
        server.setblocking(False)
        return server

    def connect(self, timeout: float) -> socket.socket:
        """Returns a blocking socket connected to this address; tries every address of the host.

        Args:
            timeout: seconds for one try.

        Raises:
            OSError: when nobody answers there.
        """
        if not self.path:
            return tune(socket.create_connection((self.host, self.port), timeout=timeout))
        client = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        client.settimeout(timeout)
        try:
            client.connect(self._unix_name())
        except OSError:
            client.close()
            raise
        return tune(client)

    def _listening(self, everywhere: bool) -> socket.socket:
        family, target = socket.AF_UNIX, self._unix_name()
        if not self.path:
            host = None if everywhere else self.host
            found = socket.getaddrinfo(host, self.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
            family, target = found[0], found[4]  # type: ignore[assignment]
        server = socket.socket(family, socket.SOCK_STREAM)
        try:
            if not self.path:
                server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            server.bind(target)
            server.listen(1024)
        except OSError:
            server.close()
            raise
        return server

    def _unix_name(self) -> str:
        return "\0" + self.path[1:] if self.path.startswith("@") else self.path


def tune(sock: socket.socket) -> socket.socket:
    """Sets buffers and, for TCP, no delay and keep-alive; returns the same socket."""
    for option, force in _FORCE.items():
        try:
            sock.setsockopt(socket.SOL_SOCKET, force, BUFFER)
        except OSError:
            with contextlib.suppress(OSError):
                sock.setsockopt(socket.SOL_SOCKET, option, BUFFER)
    if sock.family != socket.AF_UNIX:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    return sock


def send_parts(sock: socket.socket, parts: list[memoryview]) -> None:
    """Sends buffers in order, without copying them; what the system has taken is removed from `parts`.

    Raises:
        OSError: when the peer is gone; BlockingIOError when a non-blocking socket takes no more now. `parts` then
            holds what is left.
    """
    while parts:
        sent = sock.sendmsg(parts)
        while parts and sent >= len(parts[0]):
            sent -= len(parts.pop(0))
        if sent:
            parts[0] = parts[0][sent:]
