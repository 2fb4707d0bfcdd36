"""A slow way to one address: python delay_proxy.py LISTEN_HOST:PORT TARGET_HOST:PORT MILLISECONDS.

Every byte arrives so much later, both ways, in order; how many are under way does not matter, as on a long line.
"""

from __future__ import annotations

import contextlib
import queue
import socket
import sys
import threading
import time

CHUNK = 1 << 16


def main() -> None:
    """Serves until it is ended."""
    (listen, target), delay = (_address(text) for text in sys.argv[1:3]), float(sys.argv[3]) / 1000
    with socket.create_server(listen) as server:
        print("ready", flush=True)
        while True:
            caller, _ = server.accept()
            threading.Thread(target=_join, args=(caller, target, delay), daemon=True).start()


def _join(caller: socket.socket, target: tuple[str, int], delay: float) -> None:
    time.sleep(delay)
    try:
        called = socket.create_connection(target, timeout=10)
    except OSError:
        caller.close()
        return
    called.settimeout(None)
    for sock in (caller, called):
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    for source, sink in ((caller, called), (called, caller)):
        line: queue.Queue[tuple[float, bytes]] = queue.Queue()
        threading.Thread(target=_take, args=(source, line, delay), daemon=True).start()
        threading.Thread(target=_give, args=(sink, line), daemon=True).start()


def _take(source: socket.socket, line: queue.Queue[tuple[float, bytes]], delay: float) -> None:
    data = b"begin"
    while data:
        try:
            data = source.recv(CHUNK)
        except OSError:
            data = b""
        line.put((time.monotonic() + delay, data))


def _give(sink: socket.socket, line: queue.Queue[tuple[float, bytes]]) -> None:
    with contextlib.suppress(OSError):
        while True:
            due, data = line.get()
            time.sleep(max(0.0, due - time.monotonic()))
            if not data:
                sink.shutdown(socket.SHUT_WR)
                return
            sink.sendall(data)
    with contextlib.suppress(OSError):
        sink.shutdown(socket.SHUT_RDWR)


def _address(text: str) -> tuple[str, int]:
    host, _, port = text.rpartition(":")
    return host, int(port)


if __name__ == "__main__":
    main()
