"""run_tensorboard: refusals in one sentence, and the real TensorBoard started, asked, and ended."""

from __future__ import annotations

import http.client
import importlib.util
import json
import os
import signal
import socket
import struct
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tfleet.cli import tensorboard_server
from tfleet.cli.tensorboard_server import run_tensorboard
from tfleet.data.crc32c import masked_crc32c
from tfleet.spec.errors import JobFailed, WrongInput
from tfleet.spec.rundir import RunDir


def record(data):
    """A TFRecord: this file needs no TensorFlow."""
    length = struct.pack("<Q", len(data))
    return length + struct.pack("<I", masked_crc32c(length)) + data + struct.pack("<I", masked_crc32c(data))


def scalar_event(tag, value):
    """An Event proto: step 1, summary with one simple_value."""
    content = b"\x0a" + bytes([len(tag)]) + tag.encode() + b"\x15" + struct.pack("<f", value)
    summary = b"\x0a" + bytes([len(content)]) + content
    return b"\x09" + struct.pack("<d", 1e9) + b"\x10\x01" + b"\x2a" + bytes([len(summary)]) + summary


@pytest.fixture
def run(tmp_path):
    run = RunDir.at(tmp_path)
    folder = run.summaries / "train" / "worker-0"
    folder.mkdir(parents=True)
    version = b"\x09" + struct.pack("<d", 1e9) + b"\x1a\x0dbrain.Event:2"
    (folder / "events.out.tfevents.1.host").write_bytes(record(version) + record(scalar_event("loss", 0.5)))
    return run


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def test_a_run_without_summaries_is_refused(tmp_path):
    RunDir.at(tmp_path).summaries.mkdir()
    with pytest.raises(WrongInput, match=r"has no summaries.*--summary-every"):
        run_tensorboard(RunDir.at(tmp_path), "127.0.0.1", 0)


def test_a_taken_port_is_refused(run):
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(WrongInput, match=f"port {port} of 127.0.0.1 .*--port"):
            run_tensorboard(run, "127.0.0.1", port)


@pytest.mark.parametrize("host", ["256.1.1.1", "203.0.113.7"])
def test_a_host_that_is_not_this_machine_is_refused(run, host):
    with pytest.raises(WrongInput, match=rf"{host} .*--host"):
        run_tensorboard(run, host, free_port())


def test_a_machine_without_tensorboard_is_told_what_to_install(run, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(WrongInput, match=r"pip install 'tfleet\[cpu\]'"):
        run_tensorboard(run, "127.0.0.1", 0)


@pytest.mark.processes
def test_a_tensorboard_that_does_not_start_is_told_with_its_last_words(run, monkeypatch, tmp_path):
    program = tmp_path / "python"
    program.write_text("#!/bin/sh\necho first >&2\necho 'ImportError: no module named markdown' >&2\nexit 3\n")
    program.chmod(0o755)
    monkeypatch.setattr(tensorboard_server.sys, "executable", str(program))
    handlers = [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)]
    with pytest.raises(JobFailed, match=r"did not start \(code 3\): ImportError: no module named markdown;"):
        run_tensorboard(run, "127.0.0.1", 0)
    assert [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)] == handlers


def get(port, path):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    connection.request("GET", path)
    return json.loads(connection.getresponse().read())


def wait_until(true, what):
    limit = time.monotonic() + 60
    while not true():
        assert time.monotonic() < limit, f"waited in vain until {what}"
        time.sleep(0.05)


def members(group):
    """Processes of a session that are alive, by pid; the session is the child's own."""
    found = []
    for entry in os.listdir("/proc"):
        if entry.isdecimal():
            try:
                fields = Path(f"/proc/{entry}/stat").read_text().rsplit(")", 1)[1].split()
            except OSError:
                continue
            if int(fields[3]) == group and fields[0] != "Z":
                found.append(int(entry))
    return found


@pytest.mark.processes
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("ending", [signal.SIGINT, signal.SIGKILL])
def test_tensorboard_serves_the_run_until_it_is_ended(run, ending):
    pytest.importorskip("tensorboard")
    port = free_port()
    code = (
        "import sys; from tfleet.cli.tensorboard_server import run_tensorboard; from tfleet.spec.rundir import RunDir\n"
        "sys.exit(run_tensorboard(RunDir.at(sys.argv[1]), '127.0.0.1', int(sys.argv[2])))\n"
    )
    # A proxy that does not answer must not matter on this machine.
    env = {**os.environ, "http_proxy": "http://127.0.0.1:9", "HTTP_PROXY": "http://127.0.0.1:9"}
    parent = subprocess.Popen(
        [sys.executable, "-c", code, str(run.path), str(port)], stdout=subprocess.PIPE, text=True, env=env
    )
    try:
        assert parent.stdout.readline() == f"TensorBoard: http://127.0.0.1:{port}/ (Ctrl-C ends it)\n"
        [child] = map(int, Path(f"/proc/{parent.pid}/task/{parent.pid}/children").read_text().split())
        assert child in members(child)
        wait_until(lambda: "train/worker-0" in get(port, "/data/runs"), "its run is served")
        assert list(get(port, "/data/plugin/scalars/tags")["train/worker-0"]) == ["loss"]
        parent.send_signal(ending)
        assert parent.wait(20) == (-signal.SIGKILL if ending == signal.SIGKILL else 0)
        assert parent.stdout.read() == ""
        wait_until(lambda: not members(child), "TensorBoard and its data server have ended")
    finally:
        parent.kill()
        parent.wait()
        parent.stdout.close()
