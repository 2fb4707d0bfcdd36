"""Two machines on a network of their own: network namespaces, joined by one cable that can be pulled or be bad.

Needs root, `ip` (iproute2) and, for packets that are lost, `iptables` with its statistic match. Nothing of it is seen
outside of the namespaces, and they vanish with `close`.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import shutil
import subprocess

NODES = ("a", "b")
ADDRESSES = {"a": "10.231.0.1", "b": "10.231.0.2"}
"""The same in every network: they do not see each other."""
_numbers = itertools.count()


def why_not() -> str:
    """Returns why there can be no network here, empty when there can."""
    if os.getuid() != 0:
        return "network namespaces need root"
    for program, package in (("ip", "iproute2"), ("iptables", "iptables")):
        if shutil.which(program) is None:
            return f"{program} is not there: install the package {package}"
    try:
        with contextlib.closing(Network()) as network:
            network.lose(0.5)
    except subprocess.CalledProcessError as error:
        return f"the system makes no network namespaces or loses no packets: {error.stderr.strip()}"
    return ""


class Network:
    """Two nodes and a cable; a context manager by `contextlib.closing`."""

    def __init__(self) -> None:
        stem = f"tfleet-{os.getpid()}-{next(_numbers)}"
        self._names = {node: f"{stem}-{node}" for node in NODES}
        try:
            for name in self._names.values():
                _run("ip", "netns", "add", name)
            first, second = self._names.values()
            _run("ip", "-n", first, "link", "add", "eth0", "type", "veth", "peer", "name", "eth0", "netns", second)
            for node, name in self._names.items():
                _run("ip", "-n", name, "addr", "add", f"{ADDRESSES[node]}/24", "dev", "eth0")
                _run("ip", "-n", name, "link", "set", "lo", "up")
            self.up()
        except BaseException:
            self.close()
            raise

    def command(self, node: str, *words: str) -> list[str]:
        """Returns the command that runs another one on a node; the process that it starts becomes that one."""
        return ["ip", "netns", "exec", self._names[node], *words]

    def up(self) -> None:
        """Plugs the cable in."""
        for name in self._names.values():
            _run("ip", "-n", name, "link", "set", "eth0", "up")

    def down(self) -> None:
        """Pulls the cable: both nodes see their link go down, and nothing else of each other."""
        for name in self._names.values():
            _run("ip", "-n", name, "link", "set", "eth0", "down")

    def lose(self, share: float) -> None:
        """Loses this share of the packets from now on, in each direction, by chance."""
        rule = ("INPUT", "-i", "eth0", "-m", "statistic", "--mode", "random", "--probability", str(share), "-j", "DROP")
        for node in NODES:
            _run(*self.command(node, "iptables", "-w", "-A", *rule))

    def lost(self) -> int:
        """Returns how many packets were lost so far."""
        counts = 0
        for node in NODES:
            listed = _run(*self.command(node, "iptables", "-w", "-vnxL", "INPUT"))
            counts += sum(int(line.split()[0]) for line in listed.splitlines() if "DROP" in line)
        return counts

    def close(self) -> None:
        """Removes the nodes; their processes must have ended."""
        for name in self._names.values():
            subprocess.run(["ip", "netns", "delete", name], capture_output=True)


def _run(*words: str) -> str:
    return subprocess.run(words, capture_output=True, text=True, check=True, timeout=30).stdout
