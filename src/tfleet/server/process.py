"""The process of one ps: puts the parts together, runs the loop, and leaves with the right exit code."""

from __future__ import annotations

import json
import os
import signal
import time
from typing import Any

from tfleet.checkpoint.store import Store
from tfleet.server.coordinator import Coordinator
from tfleet.server.replica import PsReplica
from tfleet.server.watch import Watch
from tfleet.spec.environment import TOKEN_FILE, ReplicaEnvironment
from tfleet.spec.errors import ExitCode, JobFailed
from tfleet.spec.job import JobSpec
from tfleet.spec.lifeline import end_at_once, watch_lifeline
from tfleet.spec.rundir import RunDir, write_atomically
from tfleet.wire import client
from tfleet.wire.address import Address
from tfleet.wire.auth import read_token
from tfleet.wire.frames import Kind, pack_json
from tfleet.wire.loop import Loop
from tfleet.wire.server import Server

STATUS_EVERY = 0.5
"""Seconds between two writings of status.json."""


class Process:
    """One ps, from its environment to its exit code."""

    def __init__(self, index: int, run: RunDir, resume: bool) -> None:
        environment = ReplicaEnvironment.from_environ(os.environ)
        self._hosts = list(environment.ps_hosts)
        self._token = read_token(os.environ.get(TOKEN_FILE) or run.token_file)
        self._run = run
        self._spec = JobSpec.load(run.job_file)
        self._loop = Loop()
        self._store = Store(run.checkpoints)
        self._replica = PsReplica(index, self._loop, self._store)
        listener = Address.parse(self._hosts[index]).listen()
        self._server = Server(self._loop, listener, self._token, self._replica)
        self._index = index
        self._resume = resume

    def run(self) -> int:
        """Blocks until the job is over; returns the exit code."""
        return self._run_first() if self._index == 0 else self._run_other()

    def _run_first(self) -> int:
        job = Coordinator(
            self._spec, self._run, self._loop, self._replica, self._store, self._hosts, self._resume, time.time
        )
        watch = Watch(job)
        latest: list[dict[str, Any]] = [job.status()]

        def publish() -> None:
            latest[0] = job.status()
            write_status(self._run, latest[0])
            if job.phase == "training" and job.progress and job.ledger and job.step:
                job.progress.write_metrics(
                    "train",
                    job.step,
                    job.ledger.epoch,
                    job.progress.metrics(),
                    steps_per_second=round(job.progress.steps_per_second, 1),
                )

        http = None
        if self._spec.status_port:
            from tfleet.server.http_status import StatusServer

            host = Address.parse(self._hosts[0]).host or "127.0.0.1"
            http = StatusServer(host, self._spec.status_port, self._token, lambda: latest[0])
        publish()
        self._loop.call_every(STATUS_EVERY, publish)
        self._on_signal(lambda: job.ending.ask("interrupt", "ps 0 was asked to end (SIGTERM)"))
        watch_lifeline(
            lambda: self._loop.call_from_thread(lambda: job.ending.ask("interrupt", "the launcher has died"))
        )
        print("tfleet: ps 0 is ready", flush=True)
        self._loop.run()
        publish()
        self._tell_others(job)
        if http:
            http.close()
        if job.progress:
            job.progress.close()
        return ExitCode.FAILED if watch.abandoned else ExitCode.DONE

    def _tell_others(self, job: Coordinator) -> None:
        for index in range(1, self._spec.ps):
            if job.links.has(index):
                job.links.ask(index, "over", job.ending.over or {}, lambda _: None)
        self._loop.call_later(0.05, self._loop.stop)
        self._loop.run()

    def _run_other(self) -> int:
        joined = False
        # Later the launcher's death ends the job, by ps 0; until then nobody would tell this ps.
        watch_lifeline(lambda: None if joined else end_at_once())
        channel = client.connect(Address.parse(self._hosts[0]), self._token, patience=self._spec.join_timeout)
        channel.call("join", role="ps", index=self._index)
        leaving = {"code": int(ExitCode.FAILED), "why": "the connection to ps 0 is lost"}

        def over(values: dict[str, Any]) -> None:
            leaving.update(code=int(ExitCode.DONE), why=f"the job is over: {values.get('phase')}")
            self._loop.stop()

        def interrupt() -> None:
            connection.send(
                Kind.CALL,
                pack_json(
                    {"call": "end", "how": "interrupt", "reason": f"ps {self._index} was asked to end (SIGTERM)"}
                ),
            )

        self._replica.on_over = over
        joined = True
        connection = self._replica.coordinator = self._server.adopt(channel.detach())
        connection.on_close = lambda _: self._loop.stop()
        self._on_signal(interrupt)
        print(f"tfleet: ps {self._index} is ready", flush=True)
        self._loop.run()
        if leaving["code"]:
            raise JobFailed(f"ps {self._index} ends: {leaving['why']}")
        return ExitCode.DONE

    def _on_signal(self, action: Any) -> None:
        def caught(_number: int, _frame: object) -> None:
            self._loop.call_from_thread(action)

        signal.signal(signal.SIGTERM, caught)
        signal.signal(signal.SIGINT, caught)


def write_status(run: RunDir, status: dict[str, Any]) -> None:
    """Replaces status.json; a full disk must not end the job, so it is passed over until the next time."""
    try:
        write_atomically(run.status_file, json.dumps(status, indent=1))
    except OSError as error:
        print(f"tfleet: status.json could not be written: {error.strerror}", flush=True)
