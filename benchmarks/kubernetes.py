"""The figures of a job on the two-node cluster: start, accuracy, and how long it takes until a loss is made good.

Needs the cluster of `tests/e2e` (root, `../shared/cluster`): takes the one that runs, else starts one. Builds and loads
the images first. Each figure may be asked for alone (`--only`); the others keep the values that the result file has.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from contestants import TFLEET
from measure import (
    HERE,
    LOAD_AT_START,
    RESULTS,
    child_environment,
    deploy_log_samples,
    summary,
    today,
    write_result,
)

sys.path.insert(0, str(HERE.parent / "tests" / "e2e"))

from cluster import Cluster
from namespaces import Namespace
from releases import Release, node_of
from tasks_on_claim import PACED
from waiting import wait_until

NAME = "kubernetes"
STEPS = 2000
LOOK = 0.05
"""Seconds between two looks at a job: the resolution of the recovery times."""
HOST = "kubernetes.io/hostname"


def main() -> None:
    """Measures what is asked for and writes `benchmarks/results/kubernetes.json`."""
    parse = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parse.add_argument("--repeats", type=int, default=5)
    parse.add_argument("--only", action="append", choices=sorted(FIGURES), default=[])
    options = parse.parse_args()
    path = RESULTS / f"{NAME}.json"
    figures = json.loads(path.read_text(encoding="utf-8"))["figures"] if path.exists() else {}
    cluster = Cluster.find_or_start()
    try:
        cluster.build_images()
        cluster.load_images()
        for name in options.only or FIGURES:
            figures[name] = {**FIGURES[name](cluster, options), "date": today(), "load_at_start": LOAD_AT_START}
            print(f"{name}: {json.dumps(figures[name])}", flush=True)
            write_result(NAME, ["benchmarks/kubernetes.py"], {"kind": "kubernetes", "figures": figures})
    finally:
        if cluster.started:
            cluster.take_down()


def jobs(cluster: Cluster, options: argparse.Namespace) -> dict[str, Any]:
    """The same job here and on the cluster in turn: seconds from the command to the first step, and the accuracy."""
    first: dict[str, list[float]] = {"local": [], "cluster": []}
    accuracy: dict[str, list[float]] = {"local": [], "cluster": []}
    for seed in range(options.repeats):
        for where, run in (("local", local_job), ("cluster", cluster_job)):
            seconds, reached = run(cluster, seed)
            first[where].append(seconds)
            accuracy[where].append(reached)
    return {
        "first_step_local": summary(first["local"]),
        "first_step_cluster": summary(first["cluster"]),
        "first_step_more": summary([b - a for a, b in zip(first["local"], first["cluster"], strict=True)]),
        "accuracy_local": summary(accuracy["local"]),
        "accuracy_cluster": summary(accuracy["cluster"]),
        "points_between_means": round(100 * abs(mean(accuracy["local"]) - mean(accuracy["cluster"])), 2),
    }


def mean(values: list[float]) -> float:
    return sum(values) / len(values)


def local_job(_: Cluster, seed: int) -> tuple[float, float]:
    """Trains on this machine; returns seconds from the command to the first step, and the held-out accuracy."""
    with tempfile.TemporaryDirectory(prefix="tfleet-bench-") as folder:
        run = Path(folder) / "run"
        command = [TFLEET, "train", "mnist", "--workers", "2", "--ps", "2", "--steps", str(STEPS), "--seed", str(seed)]
        began = time.time()
        subprocess.run(
            [*command, "--run-dir", str(run)], env=child_environment(), check=True, capture_output=True, timeout=600
        )
        return figures_of(run, began)


def cluster_job(cluster: Cluster, seed: int) -> tuple[float, float]:
    """Trains on the cluster by `helm install`; returns the same as `local_job`."""
    with namespace_of(cluster) as namespace:
        release = Release(namespace, "digits")
        began = time.time()
        release.install("worker.number=2", "ps.number=2", f"job.steps={STEPS}", f"job.seed={seed}")
        conditions = release.wait_over(600)
        if "Complete" not in conditions["worker"]:
            raise RuntimeError(f"the job on the cluster ended with {conditions}:\n{namespace.describe()}")
        return figures_of(release.run_dir, began)


def figures_of(run: Path, began: float) -> tuple[float, float]:
    """Reads first step and accuracy out of a run directory; both clocks are this machine's."""
    first = min(moment for moment, _ in deploy_log_samples((run / "deploy.log").read_text(encoding="utf-8")))
    status = json.loads((run / "status.json").read_text(encoding="utf-8"))
    return first - began, float(status["evaluation"]["metrics"]["accuracy"])


def worker_killed(cluster: Cluster, options: argparse.Namespace) -> dict[str, Any]:
    """Seconds until the process of a worker trains again after SIGKILL, against what it takes to start one."""
    starts: list[float] = []
    backs: list[float] = []
    for _ in range(options.repeats):
        with namespace_of(cluster) as namespace:
            release = Release(namespace, "killed")
            release.install(*PACED, "job.steps=0", "worker.number=2", "ps.number=1")
            wait_until(lambda release=release: worker_1(release)["steps"] > 0, "worker 1 to train")  # type: ignore[misc]
            # Two losses: what the one took from process start is what the other, from the kill, is compared with.
            starts.append(kill_worker(release)[0])
            backs.append(kill_worker(release)[1])
    return {
        "start_seconds": summary(starts),
        "back_seconds": summary(backs),
        "more_seconds": summary([back - start for start, back in zip(starts, backs, strict=True)]),
    }


def kill_worker(release: Release) -> tuple[float, float]:
    """Kills the process of worker 1; returns how long it takes until it trains again.

    Returns:
        Seconds since its new process began, and seconds since the kill.
    """
    restarts = worker_1(release)["restarts"]
    (victim,) = worker_processes(release)
    killed = time.monotonic()
    os.kill(victim, signal.SIGKILL)

    def trains() -> bool:
        row = worker_1(release)
        return row["restarts"] > restarts and row["steps"] > 0 and row["state"] in ("joined", "working")

    (process,) = wait_until(lambda: worker_processes(release) - {victim}, "a new process", 60, LOOK)
    wait_until(trains, "worker 1 to train again", 60, LOOK)
    return age(process), time.monotonic() - killed


def worker_1(release: Release) -> dict[str, Any]:
    rows = [m for m in release.status().get("members", []) if m["role"] == "worker" and m["index"] == 1]
    return rows[0] if rows else {"restarts": 0, "steps": 0, "state": "lost"}


def worker_processes(release: Release) -> set[int]:
    """The processes of worker 1 of a release that live; the nodes share this machine's processes."""
    wanted = {"tfleet.worker", f"/mnt/tfleet/{release.name}", "1"}
    found = set()
    for folder in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            if folder.name.isdigit() and wanted <= set((folder / "cmdline").read_bytes().decode().split("\0")):
                found.add(int(folder.name))
    return found


def age(pid: int) -> float:
    """Seconds since a process began, to a hundredth."""
    began = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19])
    return time.clock_gettime(time.CLOCK_BOOTTIME) - began / os.sysconf("SC_CLK_TCK")


def node_killed(cluster: Cluster, options: argparse.Namespace) -> dict[str, Any]:
    """Seconds from the power-off of a node with the ps on it until the next step is made."""
    seconds: list[float] = []
    for _ in range(min(3, options.repeats)):
        with namespace_of(cluster) as namespace, tempfile.NamedTemporaryFile("w", suffix=".json") as values:
            term = {"matchExpressions": [{"key": HOST, "operator": "In", "values": ["node-2"]}]}
            prefer = {"preferredDuringSchedulingIgnoredDuringExecution": [{"weight": 100, "preference": term}]}
            ps = {"number": 1, "affinity": {"nodeAffinity": prefer}}
            json.dump({"ps": ps, "worker": {"number": 1, "nodeSelector": {HOST: "node-1"}}}, values)
            values.flush()
            release = Release(namespace, "node")
            release.install("-f", values.name, *PACED, "job.steps=0")
            generation = release.wait_for_step(50)["generation"]
            if node_of(release.pod("ps")) != "node-2":
                raise RuntimeError("the ps is not on the node that is to be killed")
            began = time.time()
            cluster.kill("node-2")
            try:
                seconds.append(wait_for_new_steps(release, generation) - began)
            finally:
                cluster.heal()
    return {"seconds": summary(seconds)}


def wait_for_new_steps(release: Release, generation: int) -> float:
    """Returns the moment when a job is seen to make steps in a later generation."""
    base: int | None = None

    def stepping() -> bool:
        nonlocal base
        now = release.status()
        if now.get("generation", 0) > generation and now["phase"] == "training":
            base = now["step"] if base is None else base
            return bool(now["step"] > base)
        return False

    wait_until(stepping, "training to go on", 180, LOOK)
    return time.time()


@contextmanager
def namespace_of(cluster: Cluster) -> Iterator[Namespace]:
    """A fresh restricted namespace."""
    made = Namespace(cluster)
    try:
        yield made
    finally:
        made.delete()


FIGURES: dict[str, Callable[[Cluster, argparse.Namespace], dict[str, Any]]] = {
    "jobs": jobs,
    "worker_killed": worker_killed,
    "node_killed": node_killed,
}

if __name__ == "__main__":
    main()
