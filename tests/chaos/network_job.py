"""A job over two machines: ps 0 and worker 0 on one, ps 1 and worker 1 on the other, each under a pod's supervisor."""

from __future__ import annotations

import os
import secrets
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from chaos_events import Tail
from chaos_job import Played
from chaos_schedule import Schedule, Shape
from chaos_verdict import Verdict, judge
from network_nodes import ADDRESSES, Network

from tfleet.spec.environment import EVENTS
from tfleet.spec.job import JobSpec
from tfleet.spec.rundir import RunDir

HERE = Path(__file__).parent
PORT = 2222
SLOW_PORT = 2223
PLACES = {"ps-0": "a", "worker-0": "a", "ps-1": "b", "worker-1": "b"}


class NetworkJob:
    """The replicas of one job; `close` ends what is left of them.

    Args:
        folder: empty; everything is below it.
        shape: of the job: two workers, two ps.
        limit: seconds after which it hangs.
        delay: milliseconds that the other machine's way to ps 0 takes longer, each way.
    """

    def __init__(self, folder: Path, shape: Shape, limit: float, delay: float = 0.0) -> None:
        self.run = RunDir.at(folder / "run")
        self.network = Network()
        self._folder, self._shape, self._delay = folder, shape, delay
        self._end = time.monotonic() + limit
        self._events = folder / "events"
        self._tail = Tail(self._events / "ps-0.jsonl")
        self._step = 0
        self._pods: dict[str, subprocess.Popen[bytes]] = {}
        self._proxy: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Starts every replica, as the chart does."""
        self._events.mkdir(parents=True)
        (self._folder / "token").write_text(secrets.token_hex(32))
        (self._folder / "job.yaml").write_text(self._spec().dump())
        (self._folder / "workers").write_text("2")
        if self._delay:
            ways = (f"{ADDRESSES['a']}:{SLOW_PORT}", f"{ADDRESSES['a']}:{PORT}", str(self._delay))
            command = self.network.command("a", sys.executable, str(HERE / "delay_proxy.py"), *ways)
            self._proxy = subprocess.Popen(command, stdout=subprocess.PIPE)
            assert self._proxy.stdout is not None
            assert self._proxy.stdout.readline() == b"ready\n"
        for name, node in PLACES.items():
            self._start(name, node)

    def wait_for_step(self, step: int) -> None:
        """Blocks until ps 0 has counted so many batches."""
        while self._step < step:
            self._step = max([self._step, *(values[-1] for kind, _, *values in self._tail.read() if kind == "ack")])
            assert not any(pod.poll() for pod in self._pods.values()), f"a replica has ended: {self._said()}"
            self._look(f"step {step}; it is at {self._step}")

    def wait(self) -> Verdict:
        """Blocks until every replica has ended; returns what is to be said of the job."""
        began = time.monotonic()
        while None in (codes := [pod.poll() for pod in self._pods.values()]):
            self._look(f"the end; {dict(zip(PLACES, codes, strict=True))}")
        played = Played(codes=[int(any(codes))], expected=[0], seconds=time.monotonic() - began)
        return judge(Schedule(self._shape), played, self.run, self._events)

    def close(self) -> None:
        """Ends everything at once."""
        for process in (*self._pods.values(), self._proxy):
            if process:
                process.kill()
                process.wait()
        # Replicas follow their supervisor by the lifeline.
        self.network.close()

    def _spec(self) -> JobSpec:
        shape = self._shape
        light = {"step_ms": str(shape.step_ms)} if shape.worker == "light" else {"hidden_units": "32"}
        values: dict[str, Any] = {
            "task": "mnist",
            "params": light,
            "workers": shape.workers,
            "ps": shape.ps,
            "strategy": shape.strategy,
            "epochs": shape.epochs,
            "peer_timeout": shape.peer_timeout,
            "restarts": shape.restarts,
            "checkpoint": {"every_steps": shape.commit_every, "every_seconds": shape.commit_seconds},
            "summary": {"every_steps": 0},
            "join_timeout": 120,
        }
        return JobSpec.parse(values)

    def _start(self, name: str, node: str) -> None:
        role = name.partition("-")[0]
        hosts = ",".join(f"{ADDRESSES[place]}:{PORT}" for place in ("a", "b"))
        first = SLOW_PORT if self._delay and node == "b" else PORT
        env = {
            **os.environ,
            "JOB_NAME": role,
            "POD_NAME": f"digits-{name}",
            "PS_HOSTS": hosts,
            "WORKER_HOSTS": "digits-worker-0.invalid:2222,digits-worker-1.invalid:2222",
            "TFLEET_TOKEN_FILE": str(self._folder / "token"),
            "TFLEET_JOB_FILE": str(self._folder / "job.yaml"),
            "TFLEET_RENDEZVOUS": f"{ADDRESSES['a']}:{first}",
            "TFLEET_POD_IP": ADDRESSES[node],
            "OPENBLAS_NUM_THREADS": "1",
            EVENTS: str(self._events),
            "CHAOS_LIGHT": "1" if self._shape.worker == "light" else "0",
        }
        command = self.network.command(node, sys.executable, str(HERE / "network_pod.py"))
        with (self._folder / f"{name}.out").open("wb") as out:
            arguments = [*command, "--run-dir", str(self.run.path)]
            self._pods[name] = subprocess.Popen(arguments, env=env, stdout=out, stderr=subprocess.STDOUT)

    def _look(self, what: str) -> None:
        if time.monotonic() > self._end:
            raise AssertionError(f"a hang, waiting for {what}: {self._said()}")
        time.sleep(0.02)

    def _said(self) -> dict[str, str]:
        return {path.stem: path.read_text()[-1500:] for path in sorted(self._folder.glob("*.out"))}
