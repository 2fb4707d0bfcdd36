"""A worker without TensorFlow, as a program: the real session and exchange, and a gradient made by NumPy.

python numpy_worker.py RUN INDEX ADDRESS TASK MILLISECONDS
"""

from __future__ import annotations

import os
import sys
import time
from collections import deque

import numpy as np
from arithmetic import RATE, TASKS

from tfleet.spec.errors import JobFailed
from tfleet.spec.job import JobSpec
from tfleet.spec.rundir import OVER, RunDir
from tfleet.strategies import strategy
from tfleet.strategies.exchange import Rejoin, Step
from tfleet.wire.auth import read_token
from tfleet.wire.client import ConnectionLost
from tfleet.wire.frames import Order
from tfleet.worker.session import Session

AGAIN = 0.05


class NumpyWorker:
    """Takes part in a job until it is over, whoever is lost meanwhile."""

    def __init__(self, run: RunDir, index: int, address: str, task: str, milliseconds: float) -> None:
        self.run_dir, self.index, self.address = run, index, address
        self.spec = JobSpec.load(run.job_file)
        self.task = TASKS[task]()
        self.pause = milliseconds / 1000
        self.parent = os.getppid()

    def run(self) -> int:
        while True:
            session = None
            try:
                token, limit = read_token(self.run_dir.token_file), self.spec.peer_timeout
                session = Session(self.address, token, "worker", self.index, patience=1.0, peer_timeout=limit)
                return self.train(session)
            except (ConnectionLost, Rejoin):
                outcome = session.outcome() if session else {}
                if "exit_code" in outcome:
                    return int(outcome["exit_code"])
            finally:
                if session:
                    session.close()
            if os.getppid() != self.parent:  # whoever has started this job is gone
                return 1
            status = self.run_dir.status()
            if status.get("phase") in OVER:
                return int(status["exit_code"])
            time.sleep(AGAIN)

    def train(self, session: Session) -> int:
        layout = self.task.plan.layout
        session.first.call("describe", plan=self.task.plan.to_json())
        self.start(session)
        session.attach()
        chosen = strategy(self.spec.strategy).of(self.spec)
        exchange = chosen.exchange(session, layout, self.spec, self.task.optimizer)
        leases, take = deque(), exchange.pull()
        while take.order is not Order.OVER:
            leases.extend(take.leases)
            if leases:
                lease = leases.popleft()
                time.sleep(self.pause)
                gradient = self.task.gradient(exchange.parameters, lease.epoch, lease.batch)
                samples = self.task.samples(lease.epoch, lease.batch)
                metrics = np.array([2.0 * samples, samples], np.float32)
                step = Step(gradient, exchange.state + np.float32(1), 1.0, metrics, True)
                place = (lease.epoch, lease.batch, lease.batches)
                take = exchange.push(step, RATE, samples, *place, held=len(leases))
                continue
            if take.order is Order.FINALISE:
                asked, _ = session.first.call("finalise")
                session.first.call("finalised", export=str(asked["commit"]))
            take = exchange.pull()
        return int(session.outcome()["exit_code"])

    def start(self, session: Session) -> None:
        while session.first.call("start")[0]["initialise"]:
            initial = self.task.initial()
            for channel, (low, high) in zip(
                (session.first, *session.others), self.task.plan.layout.bounds(self.spec.ps), strict=True
            ):
                who = {"generation": session.generation, "member": session.member}
                channel.call("set", initial[low:high].data.cast("B"), **who)
            session.first.call("initialised", np.zeros(2, np.float32).data.cast("B"))


def main() -> int:
    path, index, address, task, milliseconds = sys.argv[1:]
    try:
        return NumpyWorker(RunDir.at(path), int(index), address, task, float(milliseconds)).run()
    except JobFailed as error:
        print(f"worker {index}: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    code = main()
    sys.stdout.flush()
    os._exit(code)
