"""The share of the machine's limit that a job reaches, and where the rest goes.

The limit is (cores) / (CPU seconds of one gradient + one update of all parameters + one copy of them each way): what
no exchange could beat, were it free. Each of the three is measured in a process of its own, with the code that a job
runs, real digits, and parameters and gradients out of the middle of a training. Then a job trains, and the CPU time of
each of its processes, of all others, and of idle cores is set against its steps.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from contestants import TFLEET
from measure import child_environment, run_json, summary, write_result
from processes import Usage, machine_cpu, moment, replicas_below, usage

from tfleet.optimizers import OptimizerSpec
from tfleet.optimizers import build as build_optimizer
from tfleet.server.partition import Partition
from tfleet.spec.job import JobSpec
from tfleet.spec.layout import partition_bounds
from tfleet.strategies.memory import private

PS = 2
WORKERS = 2
MIDDLE = 500
"""Steps of training before anything is measured: at the start gradients are others."""
PARTS = ("gradient", "update", "copies")
CHUNKS = 5


def main() -> None:
    """Measures, writes `benchmarks/results/limit_<hidden units>.json`, and prints the figures."""
    parse = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parse.add_argument("--repeats", type=int, default=5)
    parse.add_argument("--hidden-units", type=int, default=100)
    parse.add_argument("--seconds", type=float, default=2, help="that each job is watched for")
    parse.add_argument("--part", choices=PARTS, help=argparse.SUPPRESS)
    parse.add_argument("--file", default="", help=argparse.SUPPRESS)
    options = parse.parse_args()
    if options.part:
        print(json.dumps({"cpu_seconds": MEASURES[options.part](options)}))
        return
    rounds = [measure_round(options, number) for number in range(options.repeats)]
    settings = {"hidden_units": options.hidden_units, "batch_size": 20, "workers": WORKERS, "ps": PS}
    figures = {"kind": "limit", "settings": settings, **compare(rounds)}
    path = write_result(f"limit_{options.hidden_units}", ["benchmarks/limit.py", *sys.argv[1:]], figures)
    print(table(figures))
    print(f"written: {path}")


def measure_round(options: argparse.Namespace, number: int) -> dict[str, Any]:
    """Measures the three parts, a job under async, and one under sync."""
    with tempfile.TemporaryDirectory(prefix="tfleet-bench-data-") as folder:
        own = [__file__, f"--hidden-units={options.hidden_units}", f"--file={folder}/middle.npz"]
        found: dict[str, Any] = {part: run_json([*own, f"--part={part}"])["cpu_seconds"] for part in PARTS}
    for strategy in ("async", "sync"):
        found[strategy] = watch_job(strategy, options)
    print(f"round {number + 1}: {json.dumps(found)}", file=sys.stderr, flush=True)
    return found


# --- the three parts, each in a process of its own -------------------------------------------------------------------


def cpu_seconds(work: Callable[[int], Any], calls: int) -> float:
    """Returns the CPU seconds of one call, all threads together: the median of some chunks of `calls` calls."""
    for number in range(calls // 5):
        work(number)
    chunks = []
    for _ in range(CHUNKS):
        began = time.process_time()
        for number in range(calls):
            work(number)
        chunks.append((time.process_time() - began) / calls)
    return statistics.median(chunks)


def gradient(options: argparse.Namespace) -> float:
    """CPU seconds of one gradient on a full batch; leaves parameters and gradients for the other parts in a file."""
    from tfleet.worker.keras_setup import set_up

    set_up(1, 0)
    from tfleet.worker.built import Built

    built = Built(JobSpec.parse({"task": "mnist", "params": {"hidden_units": options.hidden_units}}))
    start, state, _ = built.gradient.initial()
    parameters = aligned(start)
    partition = Partition(0, len(start), build_optimizer(built.optimizer.spec), [])
    partition.parameters[:] = start
    batches = [built.read(built.indices(0, number)) for number in range(200)]
    for step in range(MIDDLE):
        values = built.gradient(parameters, state, batches[step % len(batches)], 0, step)
        partition.apply(values.gradient, built.optimizer.learning_rate(step))
        parameters[:] = partition.parameters
    gradients = [built.gradient(parameters, state, batch, 0, 0).gradient.copy() for batch in batches[:20]]
    seconds = cpu_seconds(lambda n: built.gradient(parameters, state, batches[n % len(batches)], 0, n), 500)
    slots = {f"slot_{name}": values for name, values in partition.slots.items()}
    spec = json.dumps(built.optimizer.spec.to_json())
    np.savez(options.file, parameters=parameters, gradients=np.stack(gradients), optimizer=spec, **slots)
    return seconds


def aligned(values: np.ndarray) -> np.ndarray:
    """Returns a copy at an address that TensorFlow takes without copying once more, as a worker's exchange does."""
    copy = private(len(values))
    copy[:] = values
    return copy


def update(options: argparse.Namespace) -> float:
    """CPU seconds of one update of all parameters, over as many partitions as the job has."""
    middle = np.load(options.file)
    spec = OptimizerSpec.from_json(json.loads(str(middle["optimizer"])))
    bounds = partition_bounds(len(middle["parameters"]), PS)
    partitions = [Partition(low, high, build_optimizer(spec), []) for low, high in bounds]
    for partition in partitions:
        own = slice(partition.low, partition.high)
        slots = {name: middle[f"slot_{name}"][own] for name in partition.slots}
        partition.load(middle["parameters"][own], slots, MIDDLE)
    gradients = [[g[low:high].copy() for low, high in bounds] for g in middle["gradients"]]

    def work(number: int) -> None:
        for partition, own in zip(partitions, gradients[number % len(gradients)], strict=True):
            partition.apply(own, 0.001)

    return cpu_seconds(work, 500)


def copies(options: argparse.Namespace) -> float:
    """CPU seconds of one copy of all parameters each way."""
    values = np.load(options.file)["parameters"]
    there, back = np.empty_like(values), np.empty_like(values)

    def work(_: int) -> None:
        np.copyto(there, values)
        np.copyto(back, there)

    return cpu_seconds(work, 500)


MEASURES: dict[str, Callable[[argparse.Namespace], float]] = {"gradient": gradient, "update": update, "copies": copies}


# --- the job ---------------------------------------------------------------------------------------------------------


def watch_job(strategy: str, options: argparse.Namespace) -> dict[str, Any]:
    """Trains until it was watched long enough; returns global steps a second, and by role what a step used.

    Raises:
        RuntimeError: when the job ends before.
    """
    with tempfile.TemporaryDirectory(prefix="tfleet-bench-") as folder:
        run = Path(folder) / "run"
        command = [TFLEET, "train", "mnist", f"--workers={WORKERS}", f"--ps={PS}", f"--strategy={strategy}"]
        command += ["--steps=0", "--batch-size=20", f"--param=hidden_units={options.hidden_units}", f"--run-dir={run}"]
        with subprocess.Popen(
            command, env=child_environment(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        ) as job:
            try:
                while moment(run).get("step", 0) < MIDDLE:
                    if job.poll() is not None:
                        raise RuntimeError(f"{' '.join(command)} ended with {job.returncode}")
                first = look(job.pid, run)
                time.sleep(options.seconds)
                second = look(job.pid, run)
            finally:
                job.terminate()
                job.wait(60)
    return between(first, second)


def look(launcher: int, run: Path) -> dict[str, Any]:
    """Returns time, step, and what each role and the machine have used until now."""
    status = moment(run)
    roles: dict[str, Usage] = {"launcher": usage(launcher)}
    for name, pid in replicas_below(launcher).items():
        role = name.rpartition("-")[0]
        roles[role] = roles[role] + usage(pid) if role in roles else usage(pid)
    busy, idle = machine_cpu()
    return {"time": status["updated"], "step": status["step"], "roles": roles, "busy": busy, "idle": idle}


def between(first: Mapping[str, Any], second: Mapping[str, Any]) -> dict[str, Any]:
    """Returns steps a second and, a step, what every role used, what others used, and what was idle."""
    steps = second["step"] - first["step"]
    roles = {name: used.since(first["roles"][name]) for name, used in second["roles"].items()}
    own = sum(used.user + used.system for used in roles.values())
    return {
        "steps_per_second": steps / (second["time"] - first["time"]),
        "roles": {name: {k: v / steps for k, v in vars(used).items()} for name, used in roles.items()},
        "others": max(0.0, second["busy"] - first["busy"] - own) / steps,
        "idle": (second["idle"] - first["idle"]) / steps,
    }


# --- figures ---------------------------------------------------------------------------------------------------------


def compare(rounds: list[dict[str, Any]], cores: int = len(os.sched_getaffinity(0))) -> dict[str, Any]:
    """Makes the figures: the parts, the limit, the share of it in each round, and what a step of async used."""
    floors = [sum(r[part] for part in PARTS) for r in rounds]
    speeds = [r["async"]["steps_per_second"] for r in rounds]
    return {
        "repeats": len(rounds),
        "cores": cores,
        "parts": {part: summary([1e6 * r[part] for r in rounds]) for part in PARTS},
        "limit": summary([cores / floor for floor in floors]),
        "steps_per_second": summary(speeds),
        "share": summary([speed * floor / cores for speed, floor in zip(speeds, floors, strict=True)]),
        "sync_steps_per_second": summary([r["sync"]["steps_per_second"] for r in rounds]),
        "sync_overhead_ms": summary([1e3 * (1 / r["sync"]["steps_per_second"] - r["gradient"]) for r in rounds]),
        "rest": rest(rounds),
        "switches": {
            role: {kind: summary([r["async"]["roles"][role][kind] for r in rounds]) for kind in ("waits", "forced")}
            for role in ("worker", "ps")
        },
    }


def rest(rounds: list[dict[str, Any]]) -> dict[str, Any]:
    """Returns where the core time of an async step goes, microseconds; the parts of the limit taken out of each role.

    The two copies stand with the exchange, since both sides of it copy.
    """
    rows: dict[str, list[float]] = {}
    for one in rounds:
        job = one["async"]
        roles = job["roles"]
        for name, seconds in {
            "workers, own code, beyond the gradient": roles["worker"]["user"] - one["gradient"],
            "workers, kernel": roles["worker"]["system"],
            "ps, own code, beyond the update": roles["ps"]["user"] - one["update"],
            "ps, kernel": roles["ps"]["system"],
            "launcher": roles["launcher"]["user"] + roles["launcher"]["system"],
            "other processes": job["others"],
            "idle": job["idle"],
        }.items():
            rows.setdefault(name, []).append(1e6 * seconds)
    return {name: summary(values) for name, values in rows.items()}


def table(figures: Mapping[str, Any]) -> str:
    """Returns the figures as text for the terminal."""
    lines = [f"{part}: {values['median']:.0f} us of CPU" for part, values in figures["parts"].items()]
    lines += [
        f"limit: {figures['limit']['median']:.0f} steps/s; async reaches {figures['steps_per_second']['median']:.0f}, "
        f"which is {figures['share']['median']:.0%}; where the rest goes, us a step on {figures['cores']} cores:",
        *(f"  {name}: {values['median']:.0f}" for name, values in figures["rest"].items()),
        *(
            f"  context switches a step, {role}: {kinds['waits']['median']:.1f} by waiting, "
            f"{kinds['forced']['median']:.1f} forced"
            for role, kinds in figures["switches"].items()
        ),
        f"sync: {figures['sync_steps_per_second']['median']:.0f} steps/s, "
        f"{figures['sync_overhead_ms']['median']:.2f} ms a step beyond the gradient",
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
