"""The probe of the NFS server speaks the protocol: calls as RFC 5531 and RFC 7530 have them."""

from __future__ import annotations

import socket
import struct
import subprocess
import sys
import threading
from pathlib import Path

import pytest

PROBE = Path(__file__).resolve().parents[2] / "images" / "nfs" / "answers.py"
sys.path.insert(0, str(PROBE.parent))

import answers  # noqa: E402


def test_a_call_walks_the_path_from_the_root():
    record = answers.call("/shared/tfleet")
    (mark,) = struct.unpack(">I", record[:4])
    body = record[4:]
    assert mark == 0x80000000 | len(body)
    assert struct.unpack(">IIIIII", body[:24]) == (1, 0, 2, 100003, 4, 1)
    tail = struct.pack(">I", 24) + struct.pack(">II", 15, 6) + b"shared\0\0" + struct.pack(">II", 15, 6) + b"tfleet\0\0"
    assert body.endswith(struct.pack(">III", 0, 0, 3) + tail)


def reply(state: int = 0, outcome: int = 0, denied: int = 0) -> bytes:
    return struct.pack(">IIIIIII", 1, 1, denied, 0, 0, state, outcome)


def test_the_status_of_a_reply():
    assert answers.status(reply()) == 0
    assert answers.status(reply(outcome=2)) == 2
    with pytest.raises(ValueError, match="refused"):
        answers.status(reply(denied=1))
    with pytest.raises(ValueError, match=r"did not execute the call \(2\)"):
        answers.status(reply(state=2))


@pytest.mark.parametrize(("outcome", "code", "said"), [(0, 0, ""), (2, 1, "no export /export (NFS status 2)")])
def test_the_exit_code_tells_whether_the_export_is_there(outcome, code, said, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["answers.py", "/export"])
    here, there = socket.socketpair()
    monkeypatch.setattr(socket, "create_connection", lambda *_, **__: here)
    answer = reply(outcome=outcome)
    sent = struct.pack(">I", 0x80000000 | len(answer)) + answer
    server = threading.Thread(target=lambda: [there.sendall(sent[:5]), there.sendall(sent[5:])])
    server.start()
    assert answers.main() == code
    server.join()
    there.close()
    assert capsys.readouterr().out.startswith(said)


def test_no_server_no_success(monkeypatch, capsys):
    def refuse(*_: object, **__: object) -> socket.socket:
        raise ConnectionRefusedError("nobody listens")

    monkeypatch.setattr(sys, "argv", ["answers.py", "/export"])
    monkeypatch.setattr(socket, "create_connection", refuse)
    assert answers.main() == 1
    assert "nobody listens" in capsys.readouterr().out


def test_it_needs_nothing_but_python():
    code = f"import sys; sys.path.insert(0, {str(PROBE.parent)!r}); import answers"
    subprocess.run([sys.executable, "-I", "-S", "-c", code], check=True)
