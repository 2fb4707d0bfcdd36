"""A job for half an hour, with a random fault each 30 seconds: how much of its speed is left, and is its memory flat?

The workers are real but for the model, which is NumPy's, with 5 ms a batch; 2 workers, 2 ps, TCP by way of a proxy, a
commit each 10 s. The mix of faults: kill, stop, cut off, slow down, full disk, scale (`WEIGHTS`). The same job runs
undisturbed before and after, and the faster of the two counts, as other work on the machine comes and goes. Throughput
is batches that count in the end by seconds of training, those lost by rollbacks left out.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import sys
import tempfile
import threading
from pathlib import Path
from typing import Any, NoReturn

from measure import HERE, RESULTS, write_result
from processes import private_mb

sys.path.insert(0, str(HERE.parent / "tests" / "chaos"))

from chaos_events import read_events, replay
from chaos_job import ChaosJob, can_mount, replicas
from chaos_schedule import Action, Schedule, Shape
from chaos_verdict import judge

WEIGHTS = {"kill": 5, "stop": 2, "cut off": 2, "slow": 1, "fill disk": 1, "scale": 1}
COMMIT_SECONDS = 10.0
STEP_MS = 5.0
FIRST, LAST = 20.0, 20.0
"""Seconds before the first fault and after the last."""
SAMPLE = 2.0
SHARE = 0.7
"""Of the undisturbed throughput, that must be left."""
FLAT = 1.1
"""How many times as much memory a kind of process may have at the end."""
ENOUGH = 10.0
"""Minutes after which memory tells something: those who are started again begin small."""
LONG = 30.0
"""Minutes of which the results are written."""


def main() -> None:
    """Runs both jobs, writes `benchmarks/results/chaos_soak.json`; ends with 1 when something did not hold."""
    parse = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parse.add_argument("--minutes", type=float, default=LONG)
    parse.add_argument("--every", type=float, default=30.0, help="seconds between faults")
    parse.add_argument("--seed", type=int, default=random.randrange(10**6))
    parse.add_argument("--write", action="store_true", help="write the results of a shorter time too")
    parse.add_argument("--compare-again", action="store_true", help="run the last soak's undisturbed job once more")
    options = parse.parse_args()
    if options.compare_again:
        before = json.loads((RESULTS / "chaos_soak.json").read_text(encoding="utf-8"))
        options.minutes, options.every, options.seed = before["minutes"], before["every"], before["seed"]
        finish(options, faster(before["undisturbed"], undisturbed(options)), before["soak"])
    print(f"seed {options.seed}", file=sys.stderr, flush=True)
    seconds = 60 * options.minutes
    calm = undisturbed(options)
    rough = run(Schedule(shape(options), faults(options, seconds)), "soak")
    finish(options, faster(calm, undisturbed(options)), rough)


def shape(options: argparse.Namespace) -> Shape:
    """Returns the job."""
    return Shape(
        epochs=0, step_ms=STEP_MS, tcp=True, commit_every=0, commit_seconds=COMMIT_SECONDS, peer_timeout=3.0,
        restarts=1000, seed=options.seed % 1000,
    )  # fmt: skip


def undisturbed(options: argparse.Namespace) -> dict[str, Any]:
    """Plays the job without faults, for a minute at most."""
    seconds = min(60.0, 60 * options.minutes)
    return run(Schedule(shape(options), (Action({"second": seconds}, "end"),)), "undisturbed")


def faster(one: dict[str, Any], other: dict[str, Any]) -> dict[str, Any]:
    """Returns the run with the greater throughput."""
    return max(one, other, key=lambda run: float(run["throughput"]))


def finish(options: argparse.Namespace, calm: dict[str, Any], rough: dict[str, Any]) -> NoReturn:
    """Says and writes what came out; ends with 1 when something did not hold."""
    share = rough["throughput"] / calm["throughput"]
    wrong = [*calm["faults"], *rough["faults"]]
    wrong += [f"only {share:.0%} of the throughput is left"] * (share < SHARE)
    if options.minutes >= ENOUGH:
        grew = [role for role, mb in rough["memory_mb"].items() if mb["last"] > FLAT * mb["first"]]
        wrong += [f"memory of {role} grew" for role in grew]
    figures = {
        "kind": "chaos_soak",
        "minutes": options.minutes,
        "every": options.every,
        "seed": options.seed,
        "commit_seconds": COMMIT_SECONDS,
        "mix": WEIGHTS,
        "undisturbed": calm,
        "soak": rough,
        "share": round(share, 4),
        "faults": wrong,
    }
    if options.write or options.minutes >= LONG:
        again = [f"--minutes={options.minutes:g}", f"--every={options.every:g}", f"--seed={options.seed}"]
        print(f"written: {write_result('chaos_soak', ['benchmarks/soak.py', *again], figures)}")
    print(f"{options.minutes:g} minutes, {share:.0%} of the throughput; {'; '.join(wrong) or 'all holds'}")
    sys.exit(bool(wrong))


def faults(options: argparse.Namespace, seconds: float) -> tuple[Action, ...]:
    """Returns a fault each so many seconds, and the end."""
    rng, actions, at = random.Random(options.seed), [], FIRST
    weights = {do: weight for do, weight in WEIGHTS.items() if do != "fill disk" or can_mount()}
    while at < seconds - LAST:
        do = rng.choices(list(weights), list(weights.values()))[0]
        whom = rng.choice([("worker", 0), ("worker", 1), ("ps", 0), ("ps", 1)])
        length = {"stop": rng.choice([1.0, 5.0]), "cut off": rng.choice([1.0, 5.0]), "slow": 5.0, "fill disk": 5.0}
        actions.append(Action({"second": at}, do, whom, length.get(do, 0.0), rng.choice([1, 2, 3])))
        if do == "scale":  # for a while
            actions.append(Action({"second": at + options.every / 2}, do, workers=2))
        at += options.every
    return (*actions, Action({"second": seconds}, "end"))


def run(schedule: Schedule, name: str) -> dict[str, Any]:
    """Plays one job; returns its throughput, memory and faults."""
    with tempfile.TemporaryDirectory(prefix=f"tfleet-{name}-") as folder:
        job = ChaosJob(schedule, Path(folder) / "job")
        memory = Memory(job)
        memory.start()
        played = job.play()
        memory.ended.set()
        memory.join()
        verdict = judge(schedule, played, job.run, job.events)
        told = replay(read_events(job.events, 0), "ack")
        status = job.run.status()
    for line in (*verdict.done, *verdict.faults):
        print(f"{name}: {line}", file=sys.stderr, flush=True)
    ended = schedule.actions[-1].at["second"]
    return {
        "throughput": round(len(told.survived) / ended, 2),
        "batches": len(told.survived),
        "seconds": ended,
        "goodput": verdict.goodput,
        "rollbacks": verdict.rollbacks,
        "undone": told.undone,
        "lost": told.lost,
        "partial_updates": verdict.partial_updates,
        "accuracy": verdict.accuracy,
        "actions": len(verdict.done),
        "missed": len(verdict.missed),
        "memory_mb": memory.in_short(),
        "faults": verdict.faults,
        "phase": status.get("phase"),
    }


class Memory(threading.Thread):
    """Samples the private memory of a job's processes."""

    def __init__(self, job: ChaosJob) -> None:
        super().__init__(daemon=True)
        self.ended = threading.Event()
        self._job = job
        self._samples: dict[str, list[float]] = {}

    def run(self) -> None:
        """Looks each few seconds, until the job has ended."""
        while not self.ended.wait(SAMPLE):
            if not self._job.step:
                continue  # who still imports is small
            for pid, (role, _) in replicas(self._job.run, launchers=True):
                try:
                    self._samples.setdefault(role, []).append(private_mb(pid))
                except (OSError, ValueError, KeyError):
                    continue  # it has ended meanwhile

    def in_short(self) -> dict[str, dict[str, float]]:
        """Returns for each role the median of the first and the last quarter of its samples, in MB."""
        short = {}
        for role, values in self._samples.items():
            quarter = max(1, len(values) // 4)
            first, last = statistics.median(values[:quarter]), statistics.median(values[-quarter:])
            short[role] = {"first": round(first, 1), "last": round(last, 1), "max": round(max(values), 1)}
        return short


if __name__ == "__main__":
    main()
