"""Runs one replica in a pod: `python -m tfleet.backends.pod --run-dir RUN [--resume]`.

Kubernetes would start a pod again after ten seconds and more; this supervisor starts the replica's process again at
once, within the job's budget. Its own exit code is what the chart's Jobs act upon:

- worker: 0 done or stopped, 1 the job is over and has failed, 2 wrong input, 130 asked to leave (SIGTERM).
- ps and evaluator: 0 once the job is over, well or badly, since the workers carry the result; 1 when their budget is
  spent, and Kubernetes is to try; 130 asked to leave. A ps has a commit made before it leaves.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

from tfleet.backends.hanging import HANGS, Hanging
from tfleet.backends.logtail import LogTail, last_line
from tfleet.backends.pod_run import PodRun, last_word
from tfleet.backends.processes import Child, Children
from tfleet.backends.replicas import replica_command, tuning
from tfleet.backends.restarts import Restarts
from tfleet.server import control
from tfleet.server.refusal import refuse
from tfleet.spec.environment import (
    JOB_FILE,
    JOB_NAME,
    POD_NAME,
    RESTARTS,
    TOKEN_FILE,
    VARIABLES,
    WORKER_HOSTS,
    ReplicaEnvironment,
    Whereabouts,
    grace_of,
)
from tfleet.spec.errors import ExitCode, TfleetError, WrongInput
from tfleet.spec.job import JobSpec
from tfleet.spec.rundir import RunDir
from tfleet.wire.address import Address
from tfleet.wire.auth import read_token
from tfleet.wire.secure import tls_of

if TYPE_CHECKING:
    from tfleet.wire.tls import Tls

TICK = 0.1
"""Seconds between two looks at the replica."""
LOOK_EVERY = 2.0
"""Seconds between two looks at what an upgrade has changed, at a ps that may hang, and at a job that may be over."""
TERMINATION_LOG = Path("/dev/termination-log")
RESERVE = 5.0
"""Seconds of the grace period that are kept to end in: the rest is for the commit of a ps, or the batch of a worker."""


class Pod:
    """The supervisor of one replica.

    Args:
        run: the run directory.
        resume: go on with an earlier job in it.

    Raises:
        WrongInput: when the environment or the job file cannot be used.
    """

    def __init__(self, run: RunDir, resume: bool) -> None:
        self._me = ReplicaEnvironment.from_environ(os.environ)
        self._run = run
        self._resume = resume
        self._token = read_token(os.environ.get(TOKEN_FILE) or run.token_file)
        self._shared = PodRun(run, self._token)
        job_file = Path(os.environ.get(JOB_FILE) or run.job_file)
        self._workers_file = job_file.with_name("workers")
        self._spec = JobSpec.load(job_file)
        self._first = Whereabouts.of(0, self._me.ps_hosts, os.environ)
        self._restarts = Restarts(self._spec.restarts)
        self._hanging = Hanging(self._spec.peer_timeout)
        self._log = run.log(self._me.role, self._me.index)
        self._tail = LogTail({self._me.name: self._log}, from_end=True)
        self._grace = grace_of(os.environ)
        self._tls: Tls | None = None
        self._asked = False
        self._asked_at = self._end_by = 0.0
        self._refused_scale = ""

    @property
    def _leads(self) -> bool:
        return self._me.role == "ps" and self._me.index == 0

    def run(self) -> int:
        """Blocks until the replica has ended for good; returns the exit code of the pod."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._terminated)
        try:
            # Of one Secret for all: who cannot use it can tell nobody, and need not.
            self._tls = tls_of(self._spec, self._first.announce)
        except WrongInput as error:
            _tell(str(error))
            return ExitCode.WRONG_INPUT if self._me.role == "worker" else ExitCode.DONE
        try:
            self._shared.check()
            if (code := self._shared.over()) is not None:
                return self._closing(code)
            if self._leads:
                self._resume = self._shared.adopt(self._spec, self._resume)
        except WrongInput as error:
            return self._refuse(str(error))
        with Children() as children:
            try:
                return self._keep_up(children)
            finally:
                children.end()
                self._echo(last=True)

    def _keep_up(self, children: Children) -> int:
        while True:
            child = self._start(children)
            code = self._watch(child)
            over = self._shared.over()
            # ps 0 that refuses says so in the status too, but those who wait for it do not look there.
            if over is not None and not (self._leads and code == ExitCode.WRONG_INPUT):
                return self._closing(over)
            if self._asked:
                return ExitCode.INTERRUPTED
            if code == ExitCode.DONE:
                return ExitCode.DONE
            reason = last_line(child.log)
            if code == ExitCode.WRONG_INPUT:
                return self._refuse(reason.removeprefix("tfleet: "))
            epitaph = f"{child} {child.outcome()}{_why(child, reason)}"
            if not self._restarts.died(self._me.name, time.monotonic()):
                return self._spent(child, epitaph)
            count = self._restarts.count(self._me.name)
            child.tell(f"{epitaph} and is started again (restart {count} of {self._spec.restarts})")
            while not self._asked and not self._restarts.due(time.monotonic()):
                time.sleep(TICK)
            if self._asked:
                return ExitCode.INTERRUPTED

    def _start(self, children: Children) -> Child:
        role, index, count = self._me.role, self._me.index, self._restarts.count(self._me.name)
        # ps 0 goes by the job as it was submitted first, which is in the run directory; an upgrade changes the other.
        kept = [name for name in VARIABLES if name in os.environ and not (self._leads and name == JOB_FILE)]
        env = {
            **{name: value for name, value in tuning(role, self._spec).items() if name not in os.environ},
            **{name: os.environ[name] for name in kept},
            RESTARTS: str(count),
        }
        self._hanging.forget(index)
        resume = self._resume or count > 0
        return children.start(role, index, replica_command(role, index, self._run.path, resume), env, self._log)

    def _watch(self, child: Child) -> int:
        """Blocks until the replica has ended; returns its exit code."""
        leaving, look_at = False, time.monotonic() + LOOK_EVERY
        while child.poll() is None:
            self._echo()
            if self._asked and not leaving:
                leaving = True
                self._leave(child)
            elif leaving and time.monotonic() >= self._end_by:
                child.tell(f"{child} did not end within its grace period of {self._grace:g} s, and is killed")
                child.kill()
            elif not self._asked and time.monotonic() >= look_at:
                self._look(child)
                look_at = time.monotonic() + LOOK_EVERY
            time.sleep(TICK)
        assert child.code is not None
        return child.code

    def _look(self, child: Child) -> None:
        if self._me.role != "ps":
            return
        status = self._shared.status()
        if self._hanging.look(self._me.index, status, time.monotonic()):
            child.tell(f"{child} lives but does not answer, and is killed")
            child.kill(HANGS)
        if self._leads and status.get("phase") == "training":
            self._scale(int(status.get("workers_wanted", 0)))

    def _scale(self, wanted: int) -> None:
        """Tells ps 0 how many workers an upgrade of the release has asked for."""
        try:
            asked = self._workers_file.read_text(encoding="ascii").strip()
        except OSError:
            return
        if not asked.isdigit() or int(asked) == wanted or asked == self._refused_scale:
            return
        try:
            self._call("scale", workers=int(asked))
        except WrongInput as error:
            self._refused_scale = asked
            print(f"tfleet: {error}", flush=True)
        except TfleetError:
            pass  # ps 0 is busy or just being started again: it is asked again

    def _leave(self, child: Child) -> None:
        """Has the replica leave: a worker after its batch, a ps once a commit holds what it has."""
        if self._me.role != "ps":
            child.terminate()
            return
        patience = min(control.PATIENCE, self._left() / 2)
        try:
            self._call("commit", patience=patience, timeout=max(TICK, self._left() - patience))
        except TfleetError as error:
            if self._leads or not self._committed_meanwhile():
                print(f"tfleet: no commit before {child} leaves: {error}", flush=True)
        child.kill()

    def _left(self) -> float:
        """Seconds until this pod has to end."""
        return max(TICK, self._end_by - time.monotonic())

    def _committed_meanwhile(self) -> bool:
        """Waits for a commit that this ps did not get to ask for: where all pods leave, ps 0 may be hard to find.

        It has one made itself then, and needs this ps for it.
        """
        while time.monotonic() < self._end_by:
            status = self._shared.status()
            if status.get("phase") != "training":
                return False
            if (status.get("last_commit") or {}).get("time", 0.0) >= self._asked_at:
                return True
            time.sleep(TICK)
        return False

    def _spent(self, child: Child, epitaph: str) -> int:
        """The budget of this pod is spent: a worker waits for the job's end, so that its index is not spent too."""
        times = self._spec.restarts
        reason = f"{epitaph} after {times} restart{'s' * (times != 1)}"
        child.tell(reason)
        self._echo()
        if self._me.role != "worker":
            return ExitCode.FAILED
        heard = time.monotonic()
        while not self._asked:
            if (over := self._shared.over()) is not None:
                return self._closing(over)
            with contextlib.suppress(TfleetError):
                self._call("spent", index=self._me.index, reason=reason)
                heard = time.monotonic()
            if time.monotonic() - heard > self._spec.join_timeout:
                return ExitCode.FAILED
            self._sleep(LOOK_EVERY)
        return ExitCode.INTERRUPTED

    def _closing(self, over: int) -> int:
        """The job is over: returns the pod's exit code."""
        if self._leads or self._me.role == "worker":
            last_word(TERMINATION_LOG, self._shared.status())
        if self._me.role != "worker":
            return ExitCode.DONE
        # An interrupted job cannot be gone on with by its own pods: to Kubernetes it has failed.
        return ExitCode.FAILED if over == ExitCode.INTERRUPTED else over

    def _refuse(self, sentence: str) -> int:
        """Wrong input: everybody is told, so that the Job of the workers fails at once."""
        _tell(sentence)
        if self._leads:
            here, patience = Address.parse(self._first.listen), self._spec.join_timeout
            refuse(here, self._token, sentence, patience, lambda: self._asked, self._tls)
            return ExitCode.DONE
        try:
            self._call("fail", message=sentence, exit_code=int(ExitCode.WRONG_INPUT))
        except WrongInput:
            pass  # ps 0 knows: it refuses everybody
        except TfleetError:
            return ExitCode.WRONG_INPUT
        # A ps or evaluator that Kubernetes started again would wait for a ps 0 that has ended.
        return ExitCode.WRONG_INPUT if self._me.role == "worker" else ExitCode.DONE

    def _call(self, name: str, **values: Any) -> None:
        # A pod that is about to end is no longer behind the service: ps 0 is asked where it listens.
        here = Address("localhost", Address.parse(self._first.listen).port)
        address = here if self._leads else Address.parse(self._first.first)
        control.call(address, self._token, name, tls=self._tls, **values)

    def _sleep(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        while not self._asked and time.monotonic() < end:
            time.sleep(TICK)

    def _echo(self, last: bool = False) -> None:
        """Repeats the replica's log as the output of the pod."""
        for line in self._tail.read(last):
            print(line.partition(" | ")[2], flush=True)

    def _terminated(self, number: int, frame: FrameType | None) -> None:
        if not self._asked:
            self._asked_at = time.time()
            self._end_by = time.monotonic() + max(TICK, self._grace - RESERVE)
        self._asked = True


def _tell(sentence: str) -> None:
    print(f"tfleet: {sentence}", file=sys.stderr, flush=True)
    last_word(TERMINATION_LOG, {"phase": "failed", "exit_code": int(ExitCode.WRONG_INPUT), "reason": sentence})


def _why(child: Child, last: str) -> str:
    """Says what else is known of a process that died: its last line, or what helps where memory was short."""
    if "memory" in child.killed:
        return " (then raise limit.memory of its role)"
    return f" ({last})" if (child.code or 0) > 0 and last else ""


def scaled_away(environ: Mapping[str, str]) -> bool:
    """Whether this is a worker that an upgrade has removed while its pod was being started.

    It is no wrong input, which would fail the whole job: Kubernetes is about to delete the pod.
    """
    ordinal = environ.get(POD_NAME, "").rpartition("-")[2]
    hosts = [host for host in environ.get(WORKER_HOSTS, "").split(",") if host.strip()]
    return environ.get(JOB_NAME) == "worker" and ordinal.isdigit() and bool(hosts) and int(ordinal) >= len(hosts)


def main() -> int:
    """Runs the supervisor; wrong input becomes one sentence and exit code 2."""
    parser = argparse.ArgumentParser(prog="tfleet.backends.pod")
    parser.add_argument("--run-dir", required=True)
    parser.add_argument("--resume", action="store_true")
    arguments = parser.parse_args()
    if scaled_away(os.environ):
        print("tfleet: this worker is not wanted any more", flush=True)
        return int(ExitCode.INTERRUPTED)
    try:
        return int(Pod(RunDir.at(arguments.run_dir), arguments.resume).run())
    except TfleetError as error:
        print(f"tfleet: {error}", file=sys.stderr, flush=True)
        last_word(TERMINATION_LOG, {"phase": "failed", "exit_code": int(error.exit_code), "reason": str(error)})
        return int(error.exit_code)


if __name__ == "__main__":
    sys.exit(main())
