"""Many workers on one machine: real parameter servers, and workers that sleep where others compute.

An emulated worker is a process without TensorFlow: it joins the job, leases batches, sleeps, and pushes a gradient of
random numbers, through the same session and exchange as a real one. Two questions:

- share: 64 and 128 workers with a step of 20 ms: how near do the global steps come to workers / 20 ms?
- growth: with no sleep at all, how do the time of a step, the CPU time of both sides and the memory of a ps grow with
  parameters, workers and ps? On the transport of one machine, and on TCP, of which `model.py` makes predictions.
"""

from __future__ import annotations

import argparse
import contextlib
import multiprocessing
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from measure import child_environment, summary, write_result
from processes import Usage, moment, private_mb, usage
from replicas import addresses

from tfleet.optimizers import OptimizerSpec
from tfleet.server.plan import TrainingPlan
from tfleet.spec.environment import ReplicaEnvironment
from tfleet.spec.errors import JobFailed
from tfleet.spec.job import JobSpec
from tfleet.spec.layout import Layout, Variable, partition_bounds
from tfleet.spec.rundir import RunDir
from tfleet.strategies import strategy
from tfleet.strategies.exchange import Step
from tfleet.wire.auth import read_token
from tfleet.worker.session import Session

BATCH = 20
SLOTS = 2
"""Vectors that Adam keeps beside the parameters."""
POOL = 4
"""Buffers of a ps."""
PATIENCE = 60.0


@dataclass(frozen=True)
class Point:
    """What is measured once.

    Attributes:
        transport: local (what tfleet takes on one machine) or tcp (loopback, without shared memory).
        parameters: float32 of the model.
        workers: emulated.
        ps: real.
        step_ms: milliseconds that a worker sleeps in place of a gradient.
    """

    transport: str
    parameters: int
    workers: int
    ps: int
    step_ms: float = 0.0


SHARE = [Point("local", 80_000, workers, 2, 20.0) for workers in (64, 128)]
"""Points of the share of the ideal."""


def growth() -> list[Point]:
    """Returns the points of the growth, along each axis, and some off the axes."""
    shapes = [(p, 2, 2) for p in (10_000, 30_000, 100_000, 300_000, 1_000_000, 3_000_000, 10_000_000)]
    shapes += [(80_000, w, 2) for w in (1, 2, 4, 8, 16, 32, 64)]
    shapes += [(1_000_000, 2, p) for p in (1, 3, 4)]
    shapes += [(200_000, 4, 3), (600_000, 8, 2), (2_000_000, 4, 4)]
    return [Point(transport, *shape) for transport in ("local", "tcp") for shape in shapes]


def main() -> None:
    """Measures, writes `benchmarks/results/emulated.json`, and prints the figures."""
    parse = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parse.add_argument("--repeats", type=int, default=5, help="of the share; the growth is measured once")
    parse.add_argument("--seconds", type=float, default=1, help="that each point is watched for")
    parse.add_argument("--only", choices=["share", "growth"], help="do not measure the other; write no result file")
    options = parse.parse_args()
    share = [] if options.only == "growth" else measure_share(options)
    rows = [] if options.only == "share" else [measure_point(point, options.seconds) for point in growth()]
    if not options.only:
        figures = {"kind": "emulated", "repeats": options.repeats, "share": share, "growth": rows}
        print(f"written: {write_result('emulated', ['benchmarks/emulated.py', *sys.argv[1:]], figures)}")


def measure_share(options: argparse.Namespace) -> list[dict[str, Any]]:
    """Returns the share of the ideal for each of `SHARE`, the points one after the other in each round."""
    shares: dict[Point, list[float]] = {point: [] for point in SHARE}
    for _ in range(options.repeats):
        for point, values in shares.items():
            ideal = point.workers / (point.step_ms / 1000)
            values.append(measure_point(point, options.seconds)["steps_per_second"] / ideal)
    return [{**asdict(point), "share": summary(values)} for point, values in shares.items()]


def measure_point(point: Point, seconds: float) -> dict[str, Any]:
    """Runs a job of this shape; returns its steps a second, CPU microseconds a step, and private MB of a ps.

    CPU of the ps is of all of them together. The memory is that of the largest ps; `goal_mb` what it may be.
    """
    with tempfile.TemporaryDirectory(prefix="tfleet-emulated-") as folder, job(point, RunDir.at(folder)) as members:
        servers, workers = members
        run = Path(folder)
        wait_for_all(point.workers, run)
        first, before = moment(run), [total(servers), total(workers)]
        time.sleep(seconds)
        second, after = moment(run), [total(servers), total(workers)]
        memory = max(private_mb(pid) for pid in servers)
    steps = second["step"] - first["step"]
    cpu = [(b.user + b.system - a.user - a.system) / steps for a, b in zip(before, after, strict=True)]
    row = {
        **asdict(point),
        "steps_per_second": round(steps / (second["updated"] - first["updated"]), 2),
        "ps_cpu_us": round(1e6 * cpu[0], 1),
        "worker_cpu_us": round(1e6 * cpu[1], 1),
        "ps_private_mb": round(memory, 2),
        "goal_mb": round(memory_goal(point), 2),
    }
    print(row, file=sys.stderr, flush=True)
    return row


def memory_goal(point: Point) -> float:
    """Returns how many MB a ps may have: its own, parameters and slots, and a pool of buffers, whatever the workers."""
    most = max(high - low for low, high in partition_bounds(point.parameters, point.ps))
    return 60 + 4 * most * (1 + SLOTS + POOL) / 1e6


def total(pids: list[int]) -> Usage:
    """Returns what processes have used together."""
    return sum((usage(pid) for pid in pids), Usage(0, 0, 0, 0))


def wait_for_all(workers: int, run: Path) -> None:
    """Blocks until every worker has made some steps.

    Raises:
        RuntimeError: when they do not within `PATIENCE`.
    """
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        rows = moment(run).get("members", [])
        if sum(row["steps"] >= 3 for row in rows) >= workers:
            return
    raise RuntimeError(f"not all of {workers} workers have made steps within {PATIENCE} s")


# --- the processes ---------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def job(point: Point, run: RunDir) -> Iterator[tuple[list[int], list[int]]]:
    """Starts the ps and the workers of a job without end; yields their process ids; ends them."""
    run.create()
    run.make_token()
    spec = job_spec(point)
    run.job_file.write_text(spec.dump(), encoding="utf-8")
    hosts = tuple(addresses(point.ps))
    if point.transport == "local":
        hosts = tuple(f"unix:@tfleet-bench-{os.getpid()}-{host}" for host in hosts)
    places = tuple(f"unix:@none-{number}" for number in range(point.workers))
    fork = multiprocessing.get_context("fork")
    servers = [start_ps(index, hosts, places, run) for index in range(point.ps)]
    workers = [fork.Process(target=work, args=(index, hosts[0], point, run)) for index in range(point.workers)]
    try:
        for process in workers:
            process.start()
        yield [server.pid for server in servers], [process.pid or 0 for process in workers]
    finally:
        for member in (*workers, *servers):
            member.kill()
        for process in workers:
            process.join()
        for server in servers:
            server.wait()


def job_spec(point: Point) -> JobSpec:
    """Returns the job: no end, no commits, as many workers as there are."""
    return JobSpec.parse(
        {
            "task": "mnist",
            "workers": point.workers,
            "ps": point.ps,
            "steps": 0,
            "shared_memory": "auto" if point.transport == "local" else "never",
            "checkpoint": {"every_seconds": 0},
            "elastic": {"max": max(64, point.workers)},
        }
    )


def start_ps(index: int, hosts: tuple[str, ...], places: tuple[str, ...], run: RunDir) -> subprocess.Popen[bytes]:
    """Starts a parameter server as a launcher does."""
    who = ReplicaEnvironment("ps", index, hosts, places).variables()
    env = {**child_environment(), **who, "OPENBLAS_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "tfleet.server", "--index", str(index), "--run-dir", str(run.path)]
    return subprocess.Popen(command, env=env, stdout=subprocess.DEVNULL)


def work(index: int, address: str, point: Point, run: RunDir) -> None:
    """Is an emulated worker until it is ended."""
    assert not {"tensorflow", "keras"} & set(sys.modules)
    spec = job_spec(point)
    # Whoever has no connection to a ps that is ended asks again until it is ended too.
    with contextlib.suppress(JobFailed):
        token = read_token(run.token_file)
        session = Session(address, token, "worker", index, patience=PATIENCE, peer_timeout=PATIENCE)
        layout = Layout((Variable("emulated", (point.parameters,)),))
        plan = TrainingPlan(layout, OptimizerSpec("adam").to_json(), 100 * BATCH, BATCH, BATCH, 0, evaluates=False)
        session.first.call("describe", plan=plan.to_json())
        initialise(session, point)
        session.attach()
        exchange = strategy(spec.strategy).exchange(session, layout, point.ps)
        random = np.random.default_rng(index)
        gradient = 1e-3 * random.standard_normal(point.parameters, np.float32)
        metrics = np.array([BATCH, BATCH], np.float32)
        step = Step(gradient, np.zeros(0, np.float32), 1.0, metrics, True)
        take = exchange.pull()
        while True:
            if not take.leases:
                take = exchange.pull()
                continue
            time.sleep(point.step_ms / 1000)
            lease = take.leases[0]
            take = exchange.push(step, 1e-3, BATCH, lease.epoch, lease.batch, lease.batches)


def initialise(session: Session, point: Point) -> None:
    """Waits for the start; sets parameters of zero if asked to."""
    while session.first.call("start")[0]["initialise"]:
        bounds = partition_bounds(point.parameters, point.ps)
        for channel, (low, high) in zip((session.first, *session.others), bounds, strict=True):
            who = {"generation": session.generation, "member": session.member}
            channel.call("set", np.zeros(high - low, np.float32).data.cast("B"), **who)
        session.first.call("initialised")


if __name__ == "__main__":
    main()
