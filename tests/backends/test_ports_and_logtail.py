from __future__ import annotations

import random
import socket

import pytest

from tfleet.backends import ports
from tfleet.backends.logtail import LogTail, last_line
from tfleet.backends.ports import free_ports, require_free
from tfleet.spec.errors import JobFailed, WrongInput


def test_ports_are_different_and_not_those_of_outgoing_connections():
    found = free_ports(20)
    assert len(set(found)) == 20
    assert max(found) < ports._first_ephemeral()


@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0"])
def test_a_port_in_use_on_any_interface_is_not_free(host):
    first = free_ports(1, random.Random(1))[0]
    with socket.socket() as taken:
        taken.bind((host, first))
        assert free_ports(1, random.Random(1))[0] != first
        taken.listen(1)
        with pytest.raises(WrongInput, match=f"--status-port {first} cannot be used: address already in use"):
            require_free(first, "--status-port")
    require_free(first, "--status-port")


def test_too_few_ports_are_said(monkeypatch):
    monkeypatch.setattr(ports, "_first_ephemeral", lambda: ports.LOWEST)
    with pytest.raises(JobFailed, match="2 free TCP ports are needed, but only 0"):
        free_ports(2)


def test_lines_of_several_logs_come_whole_and_named(tmp_path):
    a, b = tmp_path / "a.log", tmp_path / "b.log"
    tail = LogTail({"ps-0": a, "worker-0": b})
    assert tail.read() == []
    a.write_text("one\ntw")
    b.write_bytes(b" 1/9\r 2/9\r\n\xff\n")
    assert tail.read() == ["ps-0 | one", "worker-0 |  2/9", "worker-0 | \ufffd"]
    with a.open("a") as file:
        file.write("o\nthree")
    assert tail.read() == ["ps-0 | two"]
    assert tail.read(last=True) == ["ps-0 | three"]
    assert tail.read(last=True) == []


def test_a_long_log_is_read_in_parts_without_loss(tmp_path, monkeypatch):
    monkeypatch.setattr("tfleet.backends.logtail.READ_LIMIT", 7)
    log = tmp_path / "x.log"
    log.write_text("".join(f"{i}\n" for i in range(100)))
    tail = LogTail({"x-0": log})
    first = tail.read()
    assert first == ["x-0 | 0", "x-0 | 1", "x-0 | 2"]
    assert first + tail.read(last=True) == [f"x-0 | {i}" for i in range(100)]


def test_what_an_earlier_run_wrote_can_be_skipped(tmp_path):
    log = tmp_path / "x.log"
    log.write_text("old\n")
    tail = LogTail({"x-0": log}, from_end=True)
    with log.open("a") as file:
        file.write("new\n")
    assert tail.read() == ["x-0 | new"]


def test_the_last_words_of_a_log(tmp_path):
    log = tmp_path / "x.log"
    assert last_line(log) == ""
    log.write_text("\n\n")
    assert last_line(log) == ""
    log.write_text("x" * 9000 + "\n  the end \n\n")
    assert last_line(log) == "the end"
