"""A worker that was silent for too long pushes all the same: real ps refuse it, count it, and nothing changes by it."""

from __future__ import annotations

import numpy as np
import pytest
from arithmetic import RATE, TASKS
from numpy_jobs import NumpyJob, wait

from tfleet.strategies import strategy
from tfleet.strategies.exchange import Rejoin, Step
from tfleet.wire.auth import read_token
from tfleet.wire.client import ConnectionLost
from tfleet.worker.session import Session

pytestmark = pytest.mark.processes


def joined(job, index):
    """Returns a worker's session and exchange, made in this process."""
    task, spec = TASKS[job.task](), job.spec
    token = read_token(job.run.token_file)
    session = Session(job.hosts[0], token, "worker", index, patience=30.0, peer_timeout=spec.peer_timeout)
    session.first.call("describe", plan=task.plan.to_json())
    assert session.first.call("start")[0]["initialise"] is False
    session.attach()
    return session, strategy(spec.strategy).of(spec).exchange(session, task.plan.layout, spec, task.optimizer)


def test_a_late_push_is_refused_by_every_ps_and_counted(tmp_path):
    each = {"every_seconds": 0, "every_steps": 20, "keep": 3}
    with NumpyJob(tmp_path, peer_timeout=3.0, checkpoint=each).start(workers=1) as job:
        job.trains(20)
        session, exchange = joined(job, 1)
        (lease, *_) = exchange.pull().leases
        session.heart.stop()
        wait(lambda: [row for row in job.status("fenced", []) if row["index"] == 1], job.describe)
        why = session.outcome()["why"]
        assert why.startswith("worker 1 is dropped: silent for more than 3 s, since 2")
        assert why in job.status("notes")
        task = TASKS[job.task]()
        gradient = task.gradient(exchange.parameters, lease.epoch, lease.batch)
        step = Step(gradient, exchange.state + np.float32(1), 1.0, np.ones(2, np.float32), True)
        place = (lease.epoch, lease.batch, lease.batches)
        with pytest.raises((Rejoin, ConnectionLost)):
            exchange.push(step, RATE, task.samples(lease.epoch, lease.batch), *place, held=0)
        session.close()
        # ps 0 has closed the connection, ps 1 answers that it is out.
        wait(lambda: job.status("counts")["late_pushes"] == 1, job.describe)
        assert job.status("counts")["given_back"] >= 1
        assert set(job.end().values()) == {0}
        ledger = job.status("ledger")
        assert (ledger["partial_updates"], ledger["duplicates"]) == (0, 0)
        newest, refused = job.reader.newest()
        assert (newest.step, refused) == (job.status("step"), [])
        job.check(newest)
