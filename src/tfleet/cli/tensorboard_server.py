"""Runs TensorBoard over the summaries of one run, as a child process that never outlives this one."""

from __future__ import annotations

import contextlib
import ctypes
import http.client
import importlib.util
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from types import FrameType
from typing import IO

from tfleet.spec.errors import ExitCode, JobFailed, WrongInput
from tfleet.spec.rundir import RunDir

START_LIMIT = 60.0
"""Seconds within which TensorBoard must answer."""

GRACE = 5.0
"""Seconds between SIGTERM and SIGKILL."""

PR_SET_PDEATHSIG = 1
"""From <sys/prctl.h>: the signal that the kernel sends a process when its parent dies."""


def run_tensorboard(run: RunDir, host: str, port: int) -> int:
    """Serves the run's summaries until SIGINT or SIGTERM; prints the URL once TensorBoard answers.

    Blocks; must be called in the main thread, as it handles signals. TensorBoard follows a job that still trains.

    Args:
        run: the run directory.
        host: the address to listen on, such as 127.0.0.1.
        port: the TCP port to listen on; 0: any free one.

    Returns:
        `ExitCode.DONE`: to interrupt it is the way to end it.

    Raises:
        WrongInput: when the run has no summaries, the address cannot be listened on, or TensorBoard is not installed.
        JobFailed: when TensorBoard ends by itself or does not answer, with what it said last.
    """
    _check_summaries(run)
    if importlib.util.find_spec("tensorboard") is None:
        raise WrongInput("tensorboard is not installed here; install it with: pip install 'tfleet[cpu]'")
    port = free_port(host, port)
    command = [sys.executable, "-m", "tensorboard.main", "--logdir", str(run.summaries)]
    command += ["--host", host, "--port", str(port)]
    with tempfile.TemporaryFile() as output:
        try:
            with interruptible(), _ended(command, output) as child:
                _wait_until_it_answers(child, host, port, output)
                print(f"TensorBoard: {url(host, port)} (Ctrl-C ends it)", flush=True)
                code = child.wait()
        except EndRequested:
            return ExitCode.DONE
        raise JobFailed(f"TensorBoard ended by itself with code {code}: {_last_line(output)}; start it again")


class EndRequested(Exception):
    """SIGINT or SIGTERM came."""


def _check_summaries(run: RunDir) -> None:
    if not any(run.summaries.rglob("*tfevents*")):
        raise WrongInput(
            f"the run {run.path} has no summaries in {run.summaries}: "
            "wait for the first ones, or train again with --summary-every above 0"
        )


def free_port(host: str, port: int) -> int:
    """Returns a port that can be listened on: `port`, or for 0 any free one.

    Raises:
        WrongInput: when it cannot be.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
            return int(probe.getsockname()[1])
    except socket.gaierror as error:
        raise WrongInput(f"the host {host} has no address: {error.strerror}; give another with --host") from None
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or error
        raise WrongInput(
            f"port {port} of {host} cannot be used for TensorBoard: {reason}; "
            "give another with --port, or another address with --host"
        ) from None


@contextlib.contextmanager
def _ended(command: list[str], output: IO[bytes]) -> Iterator[subprocess.Popen[bytes]]:
    """Starts the child in a session of its own; whatever happens, it and its own children have ended afterwards."""
    child = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=subprocess.STDOUT,
        start_new_session=True,
        preexec_fn=_end_with_parent if sys.platform == "linux" else None,
    )
    try:
        yield child
    finally:
        child.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(GRACE)
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(child.pid, signal.SIGKILL)
        child.wait()


def _end_with_parent() -> None:
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


@contextlib.contextmanager
def interruptible() -> Iterator[None]:
    """Raises `EndRequested` in the block at the first signal; later ones are ignored until the block has ended."""

    def end(_: int, __: FrameType | None) -> None:
        for number in previous:
            signal.signal(number, signal.SIG_IGN)
        raise EndRequested

    previous = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    for number in previous:
        signal.signal(number, end)
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def _wait_until_it_answers(child: subprocess.Popen[bytes], host: str, port: int, output: IO[bytes]) -> None:
    limit = time.monotonic() + START_LIMIT
    while not _answers(host, port):
        if child.poll() is not None:
            raise JobFailed(
                f"TensorBoard did not start (code {child.returncode}): {_last_line(output)}; "
                "check the installation with 'tfleet doctor'"
            )
        if time.monotonic() > limit:
            raise JobFailed(f"TensorBoard did not answer on port {port} for {START_LIMIT:.0f} s; try again")
        time.sleep(0.1)


def _answers(host: str, port: int) -> bool:
    # http.client, unlike urllib, does not ask a proxy for a local address.
    connection = http.client.HTTPConnection(_reachable(host), port, timeout=2)
    try:
        connection.request("GET", "/")
        return connection.getresponse().status == http.client.OK
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def _reachable(host: str) -> str:
    return {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)


def url(host: str, port: int) -> str:
    """Returns the address for a browser of this machine."""
    name = _reachable(host)
    return f"http://[{name}]:{port}/" if ":" in name else f"http://{name}:{port}/"


def _last_line(output: IO[bytes]) -> str:
    output.seek(0)
    lines = output.read().decode(errors="replace").strip().splitlines()
    return lines[-1].strip() if lines else "it said nothing"
