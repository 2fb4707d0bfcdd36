"""A local job that nobody follows: a launcher in a session of its own, which no terminal can end.

`python -m tfleet.api.detached --run-dir RUN [--resume]` reads the job from its standard input, starts it, says so in
a line of JSON, and from then on writes into `logs/launcher.log` what `tfleet train` would have shown. It is the same
launcher: it starts replicas again within their budgets, and SIGTERM has it make a last commit.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import yaml

from tfleet.api.follow import INTERVAL, Interrupts, Outcome
from tfleet.api.progress import Printer
from tfleet.api.run import local_backend, start_and_follow
from tfleet.backends.base import Job, Plan
from tfleet.backends.local_job import LocalJob
from tfleet.spec.errors import ExitCode, JobFailed, TfleetError, WrongInput, error_for
from tfleet.spec.job import JobSpec
from tfleet.spec.rundir import RunDir


def start_detached(plan: Plan) -> Outcome:
    """Starts a local job that lives on without this process; blocks until its first step is done.

    Ctrl-C before that ends the job.

    Returns:
        How the job ended, where it did so meanwhile; else a detached outcome with code 0.

    Raises:
        TfleetError: when it cannot be started, as `Backend.start` says.
    """
    interrupts = Interrupts()
    with interrupts.caught():
        launcher = _launch(plan)
        assert launcher.stdout is not None
        with launcher.stdout:
            outcome = until_started(LocalJob(RunDir.at(plan.run_dir)), interrupts)
            # A job that was refused has left nothing in its run directory: the launcher knows why.
            line = "" if outcome.detached else launcher.stdout.readline()
    if line:
        told = json.loads(line)
        return Outcome(ExitCode(told["exit_code"]), told["status"])
    return outcome


def until_started(job: Job, interrupts: Interrupts, sleep: Callable[[float], None] = time.sleep) -> Outcome:
    """Blocks until a job has done its first step, or has ended; an interrupt asks it to end.

    Args:
        job: the started job.
        interrupts: the signals caught since before it was started.
        sleep: waits for a time in seconds.

    Raises:
        KeyboardInterrupt: at the second Ctrl-C.
    """
    asked = False
    while (code := job.poll()) is None:
        status = job.status()
        if status.get("step", 0) > 0 and not asked:
            return Outcome(ExitCode.DONE, status, detached=True)
        if interrupts.count and not asked:
            asked = True
            with contextlib.suppress(WrongInput):
                job.end("interrupt", f"interrupted by {interrupts.last} while it was started")
        sleep(INTERVAL)
    return Outcome(code, job.status())


def _launch(plan: Plan) -> subprocess.Popen[str]:
    """Starts the launcher, and returns it once it has started the replicas."""
    command = [sys.executable, "-m", "tfleet.api.detached", "--run-dir", str(plan.run_dir)]
    launcher = subprocess.Popen(
        [*command, "--resume"] if plan.resume else command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert launcher.stdin is not None
    assert launcher.stdout is not None
    with contextlib.suppress(BrokenPipeError), launcher.stdin:
        launcher.stdin.write(plan.spec.dump())
    line = launcher.stdout.readline()
    if not line:
        raise JobFailed(f"the launcher ended with code {launcher.wait()} before it had started the job")
    told = json.loads(line)
    if "error" in told:
        raise error_for(int(told["exit_code"]), str(told["error"]))
    return launcher


def main() -> int:
    """Is the launcher; returns the exit code of the job."""
    parser = argparse.ArgumentParser(prog="tfleet.api.detached")
    parser.add_argument("--run-dir", type=Path, required=True)
    parser.add_argument("--resume", action="store_true")
    arguments = parser.parse_args()
    run, caller = RunDir.at(arguments.run_dir), os.dup(1)

    def open_display() -> Printer:
        log = _opened(run.launcher_log)
        _tell(caller, {"started": os.getpid()})
        # Whoever started this process may go, and its terminal too.
        for stream, handle in ((0, os.open(os.devnull, os.O_RDONLY)), (1, log), (2, log)):
            os.dup2(handle, stream)
        return Printer(lambda line: print(line, flush=True))

    try:
        spec = JobSpec.parse(yaml.safe_load(sys.stdin))
        backend = local_backend()
        outcome = start_and_follow(backend.plan(spec, run.path, arguments.resume), backend, open_display)
        _tell(caller, {"exit_code": int(outcome.code), "status": outcome.status})
        return int(outcome.code)
    except TfleetError as error:
        code, reason = int(error.exit_code), str(error)
        _tell(caller, {"error": reason, "exit_code": code, "status": {"phase": "failed", "reason": reason}})
        return code


def _tell(caller: int, values: Mapping[str, Any]) -> None:
    """Tells whoever started this process, if it is still there."""
    with contextlib.suppress(OSError):
        os.write(caller, json.dumps(values).encode() + b"\n")


def _opened(log: Path) -> int:
    try:
        return os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
    except OSError as error:
        raise WrongInput(f"{log} cannot be written: {error.strerror}; correct that, or leave --detach out") from None


if __name__ == "__main__":
    sys.exit(main())
