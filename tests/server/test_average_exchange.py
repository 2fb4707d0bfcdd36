"""The real exchange of average, in a simulated job: a worker's loop without TensorFlow."""

import numpy as np
import pytest
from simulated_fleet import Fleet
from simulated_worker import Linear
from test_fleet_average import alone, close, rounds_of

from tfleet.optimizers import OptimizerSpec
from tfleet.spec.errors import TfleetError
from tfleet.spec.layout import partition_bounds
from tfleet.strategies.average import AverageExchange
from tfleet.strategies.exchange import Step
from tfleet.wire.client import Channel, Frame
from tfleet.wire.frames import BY_SOCKET, Kind, Order, pack_push

MOMENTUM = OptimizerSpec("sgd", {"momentum": 0.9}, weight_decay=0.1)


class FleetChannel(Channel):
    """A channel whose wait for a frame lets the simulated job go on."""

    def __init__(self, fleet, line):
        self.fleet, self.line = fleet, line

    def send(self, kind, meta=b"", *payload):
        self.line.send(kind, meta, *payload)

    def receive(self, into=None):
        self.fleet.run(until=lambda: self.line.ready)
        frame = self.line.take()
        if into is not None and len(into) == len(frame.payload):
            into[:] = frame.payload
            return Frame(frame.kind, frame.meta, into)
        return frame


class RealWorker:
    """What `TrainingLoop` does, with the gradient of a simulated task; joins beside the simulated workers."""

    def __init__(self, fleet, index, clock=lambda: 0.0):
        self.fleet, self.task = fleet, fleet.task
        self.first = FleetChannel(fleet, fleet.connect(0))
        joined, _ = self.first.call("join", role="worker", index=index)
        self.member, self.generation = joined["member"], joined["generation"]
        self.others = [FleetChannel(fleet, fleet.connect(i)) for i in range(1, fleet.spec.ps)]
        self.first.call("describe", plan=self.task.plan.to_json())
        self.start()
        for channel in self.others:
            channel.call("attach", member=self.member, generation=self.generation)
        plan = self.task.plan
        self.exchange = AverageExchange(self, plan.layout, fleet.spec, self.task.optimizer, clock)
        self.updates, self.steps, self.batches = [], [], []

    def start(self):
        while self.first.call("start")[0]["initialise"]:
            bounds = partition_bounds(self.task.parameters, self.fleet.spec.ps)
            for channel, (low, high) in zip((self.first, *self.others), bounds, strict=True):
                channel.call("set", self.task.initial()[low:high].tobytes(), generation=self.generation)
            self.first.call("initialised", np.array([0.0, 0.0, 3.0, 4.0], np.float32).tobytes())

    def compute(self, lease):
        """One batch, as `TrainingLoop._compute` does it."""
        exchange, task = self.exchange, self.task
        gradient = task.gradient(exchange.parameters, lease.epoch, lease.batch)
        gradient.flags.writeable = False
        samples = len(task.rows(lease.epoch, lease.batch))
        metrics = np.array([2.0 * samples, samples], np.float32)
        self.updates.append(exchange.updates)
        self.steps.append(exchange.step)
        self.batches.append((lease.epoch, lease.batch))
        step = Step(gradient, exchange.state + 1, 2.0, metrics, True)
        return exchange.push(step, task.rate, samples, lease.epoch, lease.batch, lease.batches, 0)

    def train(self, until=lambda: False):
        take = self.exchange.pull()
        while take.order is not Order.OVER and not until():
            if take.leases:
                take = self.compute(take.leases[0])
                continue
            if take.order is Order.FINALISE:
                asked, _ = self.first.call("finalise")
                self.first.call("finalised", export=str(asked["commit"]))
            take = self.exchange.pull()
        return take


@pytest.fixture
def job(tmp_path):
    """Returns a function that starts a job with the simulated workers of these numbers."""
    fleets = []

    def start(*simulated, optimizer=MOMENTUM, workers=2, **spec):
        task = Linear(50, 4, optimizer=optimizer)
        spec = {"ps": 2, "steps": -1, "workers": workers, "strategy": "average", **spec}
        fleets.append(Fleet(tmp_path / str(len(fleets)), task, **spec))
        for index in simulated:
            fleets[-1].start(index)
        return fleets[-1]

    yield start
    for fleet in fleets:
        fleet.close()


@pytest.mark.parametrize("ps", [1, 2, 3])
@pytest.mark.parametrize(("local_steps", "rounds"), [(0, 2), (1, 9), (4, 6)])
@pytest.mark.parametrize("simulated", [(), (1,)])
def test_it_comes_to_what_one_process_does(job, ps, local_steps, rounds, simulated):
    fleet = job(*simulated, ps=ps, local_steps=local_steps, rounds=rounds)
    RealWorker(fleet, 0).train()
    assert fleet.job.phase == "done"
    made = rounds_of(rounds, 2, local_steps)
    parameters, slots = alone(fleet.task, made)
    assert close(fleet.parameters(), parameters)
    assert close(np.concatenate([ps.partition.slots["momentum"] for ps in fleet.ps]), slots["momentum"])
    assert fleet.job.status()["ledger"]["acknowledged"] == sum(len(run) for runs in made for run in runs)
    assert np.abs(parameters).max() > 0.1


@pytest.mark.parametrize("optimizer", [MOMENTUM, OptimizerSpec("adam"), OptimizerSpec("rmsprop", {"centered": True})])
@pytest.mark.parametrize("local_steps", [0, 3])
def test_a_worker_alone_has_the_bits_of_one_process(job, optimizer, local_steps):
    fleet = job(workers=1, optimizer=optimizer, local_steps=local_steps, rounds=3, ps=3)
    worker = RealWorker(fleet, 0)
    worker.train()
    parameters, slots = alone(fleet.task, rounds_of(3, 1, local_steps))
    assert fleet.parameters().tobytes() == parameters.tobytes()
    for name, values in slots.items():
        assert np.concatenate([ps.partition.slots[name] for ps in fleet.ps]).tobytes() == values.tobytes()
    assert worker.updates == worker.steps == list(range(len(worker.updates)))
    assert fleet.job.state.tolist() == [len(worker.updates)] * 2


def test_schedules_go_by_the_updates_of_one_worker_and_charts_by_all_of_them(job):
    fleet = job(1, workers=2, local_steps=3, rounds=6)
    worker = RealWorker(fleet, 0)
    worker.train()
    expected = {}
    updates, step = 0, 0
    for runs in rounds_of(6, 2, 3):
        for run in runs:
            for number, key in enumerate(run):
                expected[key] = (updates + number, step + number * len(runs))
        updates += max(map(len, runs))
        step += sum(map(len, runs))
    assert [*zip(worker.updates, worker.steps, strict=True)] == [expected[key] for key in worker.batches]


def test_it_tells_how_far_it_is_once_a_second(job):
    now = iter(np.arange(0.0, 1000.0, 0.25))
    fleet = job(workers=1, rounds=1)
    worker = RealWorker(fleet, 0, clock=lambda: next(now))
    told = []
    worker.train(until=lambda: told.append(fleet.job.told_step) or len(worker.batches) == 13)
    assert told[:2] == [0, 0]
    assert sorted(set(told)) == [0, 4, 8, 12, 13]
    assert fleet.job.step == 13
    assert fleet.job.progress.metrics() == {"loss": 2.0}


def test_a_run_that_others_have_done_is_left(job):
    fleet = job(1, workers=1, local_steps=8, rounds=2)  # one run a round: the other worker has it, then a copy of it
    fleet.run(until=lambda: fleet.job.ledger and fleet.job.ledger.counts()["leased"] == 8)
    fleet.workers[0].stopped = True
    worker = RealWorker(fleet, 0, clock=lambda: fleet.loop.time)
    take = worker.exchange.pull()
    assert fleet.job.ledger.copies == 1
    for _ in range(3):
        take = worker.compute(take.leases[0])
    fleet.workers[0].stopped = False
    fleet.run(until=lambda: fleet.job.step == 8)
    fleet.kill(fleet.workers[0])
    fleet.loop.advance(1.0)
    take = worker.compute(take.leases[0])  # told, and answered that it is in vain
    assert take.leases[0].batch == 8
    assert worker.exchange.parameters.tobytes() == fleet.parameters().tobytes()
    while take.leases:
        take = worker.compute(take.leases[0])
    assert take.order is Order.FINALISE
    assert close(fleet.parameters(), alone(fleet.task, rounds_of(2, 1, 8))[0])


def test_a_worker_that_leaves_ends_its_batch_and_no_more(job):
    fleet = job(workers=1, local_steps=8, rounds=2)
    worker = RealWorker(fleet, 0)
    take = worker.exchange.pull()
    take = worker.compute(take.leases[0])
    worker.exchange.want = 0
    take = worker.compute(take.leases[0])
    assert (take.leases, take.order, len(worker.batches)) == ((), Order.NONE, 2)
    worker.first.call("leave", reason="")
    fleet.start(1)
    fleet.run()
    assert close(fleet.parameters(), alone(fleet.task, rounds_of(2, 1, 8))[0])


def test_a_push_of_another_size_is_refused(job):
    fleet = job(workers=1, local_steps=2, rounds=2)
    worker = RealWorker(fleet, 0)
    worker.exchange.pull()
    fleet.settle()
    meta = pack_push(worker.exchange._meta(0.1, 4, 0, 0, 1)._replace(slot=BY_SOCKET))
    worker.first.send(Kind.PUSH, meta, bytes(4 * (fleet.ps[0].partition.size + 4)))  # a gradient: the slots lack
    with pytest.raises(TfleetError, match="this partition takes"):
        worker.first.result(worker.first.receive())
    assert not fleet.job.members.workers
