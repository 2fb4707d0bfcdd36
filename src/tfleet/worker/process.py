"""The process of a worker or an evaluator, from its environment to its exit code."""

from __future__ import annotations

import os
import secrets
import signal
import sys
import threading
import time
import traceback
from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from tfleet.spec.environment import JOB_FILE, TOKEN_FILE, ReplicaEnvironment, Whereabouts, restarts_of
from tfleet.spec.errors import ExitCode, TfleetError
from tfleet.spec.job import JobSpec
from tfleet.spec.lifeline import end_at_once, watch_lifeline
from tfleet.spec.rundir import RunDir, outcome_of
from tfleet.spec.scheduling import prefer_throughput
from tfleet.strategies import strategy
from tfleet.strategies.exchange import Rejoin
from tfleet.strategies.rows import RowExchange
from tfleet.wire.auth import read_token
from tfleet.wire.client import ConnectionLost
from tfleet.wire.secure import tls_of
from tfleet.worker.session import Session, guarded, short_of_memory

if TYPE_CHECKING:
    from tfleet.worker.built import Built

AGAIN = 0.1
"""Seconds between two tries to be a member."""
LIFELINE_GRACE = 30.0
"""Seconds after the launcher's death in which a process that trains must have ended by itself."""


class Over(Exception):
    """The job is over, as status.json tells: ps 0 could not."""

    def __init__(self, exit_code: int) -> None:
        super().__init__()
        self.exit_code = exit_code


class WorkerProcess:
    """One worker or evaluator.

    Args:
        role: worker or evaluator.
        index: its number; -1: ps 0 gives one to a guest.
        run: the run directory.
        address: of ps 0, for a guest: a worker that was started by hand and has no replica environment.
    """

    def __init__(self, role: str, index: int, run: RunDir, address: str = "") -> None:
        self._role = role
        self._index = index
        self._run = run
        self._guest = secrets.token_hex(8) if address else ""
        self._spec = JobSpec.load(os.environ.get(JOB_FILE) or run.job_file)
        self._first = address or _first_of(os.environ)
        self._token = read_token(os.environ.get(TOKEN_FILE) or run.token_file)
        self._tls = tls_of(self._spec, environ=os.environ)
        self._draining = threading.Event()
        self._training = False
        self._generation = 0
        self._restarts = restarts_of(os.environ)
        self._built: Built | None = None

    def run(self) -> int:
        """Blocks until the job is over; returns the exit code."""
        signal.signal(signal.SIGTERM, lambda *_: self._terminated())
        # A launcher decides what Ctrl-C means; a guest has none.
        signal.signal(signal.SIGINT, (lambda *_: self._terminated()) if self._guest else signal.SIG_IGN)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, (signal.SIGTERM, signal.SIGINT))  # `tfleet join` has them wait
        prefer_throughput()
        watch_lifeline(self._orphaned)
        end = time.monotonic() + self._spec.join_timeout
        try:
            while True:
                code = self._join(max(0.0, end - time.monotonic()))
                if code is not None:
                    return code
                if not self._lost_at_once:
                    end = time.monotonic() + self._spec.join_timeout
                self._pause(AGAIN)
        except Over as over:
            return over.exit_code

    def _join(self, patience: float) -> int | None:
        """Is a member of the job once; returns the exit code, or None when it was lost and may join again."""
        session: Session | None = None
        self._lost_at_once = True
        try:
            session = Session(
                self._first,
                self._token,
                self._role,
                self._index,
                patience=patience,
                peer_timeout=self._spec.peer_timeout,
                tls=self._tls,
                restarts=self._restarts,
                draining=self._draining,
                pause=self._pause,
                guest=self._guest,
            )
            self._generation, self._lost_at_once = session.generation, False
            if self._guest:
                self._index = session.index
                print(f"tfleet: joined {self._spec.task} as worker {self._index}", flush=True)
            member = session
            return guarded(member, lambda: self._take_part(member))
        except (ConnectionLost, Rejoin) as error:
            if self._draining.is_set():
                return ExitCode.INTERRUPTED
            if session is None and patience == 0:
                raise
            outcome = session.outcome() if session else {}
            if "exit_code" in outcome:
                return int(outcome["exit_code"])
            why = outcome.get("why") or str(error) or "it was out of the job"
            print(f"tfleet: {self._role} {self._index} joins again: {why}", flush=True)
            return None
        finally:
            self._training = False
            if session:
                session.close()

    def _pause(self, seconds: float) -> None:
        """Waits before the next try to join, unless ps 0 has ended the job and is not there to tell."""
        code = outcome_of(self._run.status(), self._generation) if self._generation else None
        if code is not None:
            raise Over(code)
        time.sleep(seconds)

    def _terminated(self) -> None:
        """Leaves after the batch at hand; at once where there is none, and a guest that is asked twice."""
        twice = self._guest and self._draining.is_set()
        self._draining.set()
        if twice or not self._training:
            os._exit(ExitCode.INTERRUPTED)

    def _take_part(self, session: Session) -> int:
        from tfleet.worker.keras_setup import set_up

        if self._built is None:
            set_up(self._spec.threads, self._spec.seed)
        from tfleet.worker.built import Built
        from tfleet.worker.evaluator import follow
        from tfleet.worker.loop import TrainingLoop
        from tfleet.worker.recorder import Recorder

        built = self._built = self._built or Built(self._spec)
        if self._role == "evaluator":
            return follow(session, built, self._run, self._draining)
        session.first.call("describe", plan=built.plan.to_json())
        resumed = self._start(session, built)
        session.attach()
        chosen, layout = strategy(self._spec.strategy), built.plan.layout
        exchange = chosen.exchange(session, layout, self._spec, built.optimizer.spec)
        if layout.sparse:
            exchange.rows = RowExchange(session, layout, self._spec.ps)
        remarks = [*built.gradient.tables.remarks, exchange.remark]
        if layout.sparse and self._spec.overlap == "always":
            remarks.append("overlap=always has no effect: rows of an embedding are fetched between two batches")
        for remark in filter(None, remarks):
            session.first.call("remark", text=remark)
        recorder = Recorder(self._spec.summary, self._run, self._index, built, session.heart)
        if resumed >= 0:
            recorder.purge(resumed + 1)
        self._training = True
        try:
            return TrainingLoop(session, built, exchange, self._run, recorder, self._draining).run()
        finally:
            recorder.close()

    def _start(self, session: Session, built: Built) -> int:
        """Waits for the start, initialising if asked to; returns the step that the job goes on from, or -1."""
        while True:
            answer, payload = session.first.call("start")
            if not answer["initialise"]:
                break
            parameters, state, frozen = built.gradient.initial()
            bounds = built.plan.layout.bounds(self._spec.ps)
            for channel, (low, high) in zip((session.first, *session.others), bounds, strict=True):
                who = {"generation": session.generation, "member": session.member}
                channel.call("set", parameters[low:high].data.cast("B"), **who)
            session.first.call("initialised", np.concatenate([state, frozen]).data.cast("B"))
        built.gradient.assign_frozen(np.frombuffer(payload, np.float32))
        return int(answer["resumed"])

    def _orphaned(self) -> None:
        """The launcher has died: ps 0 ends those who train; whoever looks for ps 0 may look for long."""
        if self._training:
            time.sleep(LIFELINE_GRACE)
        end_at_once()


def _first_of(environ: Mapping[str, str]) -> str:
    """Returns the address of ps 0, from the replica environment."""
    return Whereabouts.of(0, ReplicaEnvironment.from_environ(environ).ps_hosts, environ).first


def main(role: str, index: int, run: RunDir, address: str = "") -> int:
    """Runs a worker or evaluator; what ends it is told in one sentence, a defect with its traceback."""
    try:
        code = WorkerProcess(role, index, run, address).run()
        if address:
            left: dict[int, str] = {ExitCode.DONE: "the job is done", ExitCode.INTERRUPTED: "left the job"}
            print(f"tfleet: {left.get(code, 'the job has failed')}", flush=True)
        return code
    except TfleetError as error:
        print(f"tfleet: {error}", file=sys.stderr, flush=True)
        return int(error.exit_code)
    except Exception as error:
        if short := short_of_memory(f"{role} {index}", error):
            print(f"tfleet: {short}", file=sys.stderr, flush=True)
        else:
            traceback.print_exc()
        return ExitCode.FAILED
