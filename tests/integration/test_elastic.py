"""Jobs that nobody follows, workers that join and leave, signals to everything: real processes."""

from __future__ import annotations

import os
import re
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from finished import Finished
from jobs import LIMIT, command, processes_of, tfleet, wait_until

from tfleet.spec.rundir import RunDir

pytestmark = [pytest.mark.processes, pytest.mark.tf]

Starts = Callable[..., subprocess.Popen[str]]
DETACH = ("--detach", "--workers", "1", "--ps", "1", "--summary-every", "0")


@pytest.fixture
def run(tmp_path: Path) -> Iterator[RunDir]:
    """A run directory; whatever still runs in it at the end is killed."""
    yield RunDir.at(tmp_path / "run")
    for pid in everything(tmp_path / "run"):
        os.kill(pid, signal.SIGKILL)


@pytest.fixture
def start() -> Iterator[Starts]:
    """Starts commands that go on while the test does."""
    begun: list[subprocess.Popen[str]] = []

    def one(*arguments: str, **environment: str) -> subprocess.Popen[str]:
        begun.append(
            subprocess.Popen(
                command(*arguments),
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                text=True,
                env={**os.environ, **environment},
            )
        )
        return begun[-1]

    yield one
    for process in begun:
        process.kill()
        process.communicate()


def finish(process: subprocess.Popen[str]) -> tuple[int, str]:
    out, _ = process.communicate(timeout=LIMIT)
    return process.returncode, out


def everything(run: Path) -> list[int]:
    """Every process that names the run directory."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            words = (folder / "cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        if os.fsencode(run) in words and int(folder.name) != os.getpid():
            found.append(int(folder.name))
    return found


def signal_everything(run: Path, number: int) -> None:
    for pid in everything(run):
        os.kill(pid, number)


def state(run: RunDir, index: int) -> str:
    rows: list[dict[str, Any]] = run.status().get("members", [])
    return next((row["state"] for row in rows if row["index"] == index), "")


def number_of(guest: subprocess.Popen[str]) -> int:
    """The number that a guest says ps 0 has given to it."""
    assert guest.stdout is not None
    for line in guest.stdout:
        if found := re.match(r"tfleet: joined mnist as worker (\d+)", line):
            return int(found[1])
    raise AssertionError("the guest ended without a number")


def refused(sentence: str, *arguments: str, env: dict[str, str] | None = None) -> Finished:
    done = subprocess.run(command(*arguments), capture_output=True, text=True, timeout=LIMIT, env=env)
    assert (done.returncode, done.stdout) == (2, ""), done.stderr
    assert re.search(sentence, done.stderr), done.stderr
    assert len(done.stderr.splitlines()) == 1
    return Finished(done.returncode, done.stdout, done.stderr)


def test_a_detached_job_is_joined_attached_to_and_stopped(run: RunDir, start: Starts, tmp_path: Path) -> None:
    here = str(run.path)
    flags = ("--steps", "0", "--listen", "127.0.0.1", "--elastic-max", "3", "--peer-timeout", "60")
    done = tfleet("train", "mnist", *DETACH, *flags, "--run-dir", here)
    assert (done.code, done.out, done.err) == (0, f"{here}\n", "")
    assert run.status()["step"] > 0
    attached = start("attach", here)
    address = run.endpoint_file.read_text()
    assert f"tfleet join {address}" in " ".join(run.status()["notes"])

    # By address, with the token in the environment; and by the run directory.
    guests = [start("join", address, TFLEET_TOKEN=run.token_file.read_text()), start("join", here)]
    wait_until(lambda: {state(run, 3), state(run, 4)} == {"working"})
    first, second = guests
    index = number_of(first)
    refused("the job has 3 workers, 2 of them joined by hand, and may have 3", "join", here)
    refused("may have 1 to 3 .*, 2 of which joined by hand", "scale", here, "--workers", "2")

    first.terminate()
    code, out = finish(first)
    assert (code, out.splitlines()[-1]) == (130, "tfleet: left the job")
    wait_until(lambda: state(run, index) == "done")

    wrong = tmp_path / "wrong"
    wrong.write_text("0" * 64)
    wrong.chmod(0o600)
    refused("wrong token: give the token file of this job", "join", address, "--token-file", str(wrong))

    assert tfleet("stop", here, "--no-wait").code == 0
    code, out = finish(second)
    assert (code, out.splitlines()[-1]) == (0, "tfleet: the job is done")
    code, out = finish(attached)
    assert code == 0, out
    assert f"worker {index} joined" in out
    assert "stopped by 'tfleet stop'" in out
    status = run.status()
    assert status["ledger"]["acknowledged"] == status["step"]
    assert (status["ledger"]["partial_updates"], status["rollbacks"]) == (0, 0)
    wait_until(lambda: not processes_of(run.path), 30)
    assert "training with 1 worker" in run.launcher_log.read_text()
    refused(r"is over \(stopped\)", "join", here)
    refused(f"nobody answers at {address}", "join", address, "--token-file", str(run.token_file))


def test_signals_to_everything_and_going_on(run: RunDir, start: Starts) -> None:
    here = str(run.path)
    assert tfleet("train", "mnist", *DETACH, "--steps", "0", "--run-dir", here).code == 0
    pids = everything(run.path)
    sessions = {os.getsid(pid) for pid in pids}
    assert (len(pids), len(sessions)) == (3, 1)
    assert sessions <= set(pids)  # the launcher leads it: no terminal can end the job
    attached = start("attach", here, "-o", "json")

    # Ctrl-C of somebody who only looks.
    looking = start("attach", here)
    assert looking.stdout is not None
    assert looking.stdout.readline().startswith("following mnist")
    looking.send_signal(signal.SIGINT)
    code, out = finish(looking)
    assert code == 130
    assert "interrupted, but the job goes on" in out

    signal_everything_but(attached, run.path, signal.SIGTERM)
    code, out = finish(attached)
    assert code == 130, out
    wait_until(lambda: not processes_of(run.path), 30)
    status = run.status()
    assert (status["phase"], status["last_commit"]["step"]) == ("interrupted", status["step"])

    # As when the machine is switched off: nobody has a last word.
    step = status["step"]
    again = tfleet("train", "--resume", "--detach", "--checkpoint-every-steps", "50", "--run-dir", here, "-o", "json")
    assert again.json() == {"run_dir": here}
    wait_until(lambda: run.status()["last_commit"]["step"] >= step + 50)
    signal_everything(run.path, signal.SIGKILL)
    wait_until(lambda: not processes_of(run.path), 30)
    status = tfleet("status", here, "-o", "json").json()
    assert (status["alive"], status["phase"], status["exit_code"]) == (False, "failed", 1)
    assert "every replica ended without a word, as when the machine or the launcher is killed" in status["reason"]
    committed = status["last_commit"]["step"]
    refused("is not running", "scale", here, "--workers", "2")
    refused("is not running", "stop", here)

    done = tfleet("train", "--resume", "--steps", str(committed + 50), "--run-dir", here, "-o", "json")
    assert done.code == 0, done.err
    assert done.json()["step"] == committed + 50
    assert "goes on from commit" in done.err


def signal_everything_but(one: subprocess.Popen[str], run: Path, number: int) -> None:
    for pid in set(everything(run)) - {one.pid}:
        os.kill(pid, number)


def test_a_detached_job_that_is_refused_leaves_nothing(run: RunDir, tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    arguments = ("train", "mnist", *DETACH, "--steps", "10", "--data-dir", str(data), "--run-dir", str(run.path))
    done = tfleet(*arguments)
    assert (done.code, done.out) == (2, ""), done.err
    assert str(data) in done.err
    assert len(done.err.splitlines()) == 1
    assert not run.path.exists()
    # The launcher itself refuses: what is found before anything is started.
    run.create()
    run.write_job("task: mnist\n")
    done = tfleet(*arguments)
    assert (done.code, done.out) == (2, "")
    assert "holds an earlier job" in done.err
    assert not processes_of(run.path)
