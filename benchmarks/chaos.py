"""Many random schedules against real jobs: kills, stops, cuts, slow-downs, full disks, scaling; all must hold.

Undisturbed runs come first, at least 20 of each kind, for the accuracy to compare with. A schedule that does not hold
is shrunk and kept in tests/chaos/kept, where every later `make test` plays it. Every twentieth schedule, and the last,
has real TensorFlow workers; those of all others are real but for the model, which is NumPy's. Results are written once
there are 200 schedules; with fewer, accuracies are compared with the undisturbed runs of the last such time.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import statistics
import sys
import tempfile
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import replace
from pathlib import Path
from typing import Any

from measure import HERE, RESULTS, summary, write_result

sys.path.insert(0, str(HERE.parent / "tests" / "chaos"))

from chaos_job import can_mount
from chaos_schedule import Schedule, Shape, random_schedule
from chaos_shrink import keep, shrink
from chaos_verdict import Verdict, run_schedule

MANY = 200
"""Schedules of which the results are written."""
EVERY = 20
"""One schedule of so many has TensorFlow."""
NEAR = 0.005
"""How near the mean accuracy of the schedules must be to that of the undisturbed runs."""
BELOW = 0.02
"""How far one schedule may be below it."""
ENOUGH = 10
"""Schedules of which a mean says something."""
KINDS = {
    "async": Shape(),
    "sync": Shape(strategy="sync"),
    "tensorflow": Shape(worker="tensorflow", epochs=60, commit_every=3000),
}
"""Undisturbed jobs; bounded is compared with async, of which it is a variant."""
COLUMNS = (
    "number", "worker", "strategy", "workers", "ps", "tcp", "actions", "missed", "holds", "accuracy", "goodput",
    "seconds", "rollbacks", "undone", "lost", "partial",
)  # fmt: skip


def main() -> None:
    """Plays, prints each outcome, writes `results/chaos_schedules.json`; ends with 1 when something did not hold."""
    parse = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parse.add_argument("--schedules", type=int, default=MANY)
    parse.add_argument("--seed", type=int, default=random.randrange(10**6))
    parse.add_argument("--undisturbed", type=int, default=20, help="runs of each kind")
    parse.add_argument("--at-once", type=int, default=4, help="jobs that run at once: they sleep most of their time")
    parse.add_argument("--write", action="store_true", help="write the results of fewer than 200 schedules too")
    options = parse.parse_args()
    print(f"seed {options.seed}: again with --seed {options.seed}", file=sys.stderr, flush=True)
    whole = options.write or options.schedules >= MANY
    with tempfile.TemporaryDirectory(prefix="tfleet-chaos-") as folder:
        known = {} if whole else stored()
        undisturbed, verdicts = play(options, Path(folder), known)
    figures = in_short(options, undisturbed, verdicts)
    faults = figures["faults"]
    if whole:
        print(f"written: {write_result('chaos_schedules', ['benchmarks/chaos.py', *sys.argv[1:]], figures)}")
    print(f"{len(verdicts)} schedules, {figures['hold']} hold; {'; '.join(faults) or 'accuracies too'}")
    sys.exit(bool(faults) or figures["hold"] < len(verdicts))


def kind_of(job: Shape) -> str:
    """Returns which undisturbed runs a job is compared with."""
    return "tensorflow" if job.worker == "tensorflow" else "sync" if job.strategy == "sync" else "async"


def stored() -> dict[str, list[float]]:
    """Returns the accuracies of undisturbed runs of the last time, or nothing."""
    path = RESULTS / "chaos_schedules.json"
    if not path.exists():
        return {}
    return {row["kind"]: row["accuracy"]["values"] for row in json.loads(path.read_text())["undisturbed"]}


def play(
    options: argparse.Namespace, folder: Path, known: dict[str, list[float]]
) -> tuple[dict[str, list[float]], dict[int, Verdict]]:
    """Plays undisturbed jobs, with other orders of the data, and the random schedules; Ctrl-C ends it early.

    Returns:
        Accuracies of undisturbed runs by kind, and the verdicts by number.
    """
    disk, last = can_mount(), options.schedules - 1
    schedules: dict[tuple[str, int], Schedule] = {}
    for number in range(options.schedules):
        worker = "tensorflow" if number % EVERY == EVERY - 1 or number == last else "light"
        schedules["", number] = random_schedule(options.seed, number, worker=worker, disk=disk)
    for kind in {kind_of(schedule.job) for schedule in schedules.values()} - set(known):
        schedules |= {(kind, seed): Schedule(replace(KINDS[kind], seed=seed)) for seed in range(options.undisturbed)}
    # Mixed, so that a run that is ended early has some of everything, and both kinds meet the same load of the machine.
    order = random.Random(options.seed).sample(sorted(schedules), len(schedules))
    undisturbed = {kind: list(values) for kind, values in known.items()}
    verdicts = {}
    for (kind, number), verdict in at_once(options.at_once, {key: schedules[key] for key in order}, folder):
        said = "holds" if not verdict.faults else verdict.faults
        print(f"{kind} {number}: {said}", line(number, verdict), file=sys.stderr, flush=True)
        if verdict.faults:
            print(schedules[kind, number].dumps(), *verdict.done, sep="\n", file=sys.stderr, flush=True)
        if kind:
            undisturbed.setdefault(kind, []).append(verdict.accuracy)
            continue
        verdicts[number] = verdict
    for number in [number for number, verdict in verdicts.items() if verdict.faults]:
        smallest = shrink(schedules["", number], fails_in(folder / f"shrinking-{number}"))
        print(f"kept: {keep(smallest, f'seed-{options.seed}-number-{number}')}", file=sys.stderr, flush=True)
    return undisturbed, verdicts


def at_once(count: int, schedules: dict[Any, Schedule], folder: Path) -> Iterable[tuple[Any, Verdict]]:
    """Yields verdicts as they come, with the keys of their schedules; removes what the jobs wrote.

    Ctrl-C, once, lets those end that have begun, and begins no more.
    """

    def one(number: int, schedule: Schedule) -> Verdict:
        place = folder / str(number)
        try:
            return run_schedule(schedule, place)
        finally:
            shutil.rmtree(place, ignore_errors=True)

    with ThreadPoolExecutor(count) as pool:
        futures = {pool.submit(one, n, schedule): key for n, (key, schedule) in enumerate(schedules.items())}
        stop = signal.signal(signal.SIGINT, lambda *_: [future.cancel() for future in futures])
        try:
            for future in as_completed(futures):
                if not future.cancelled():
                    yield futures[future], future.result()
        finally:
            signal.signal(signal.SIGINT, stop)


def fails_in(folder: Path) -> Callable[[Schedule], bool]:
    """Returns a function that plays a schedule in a new folder and tells whether it fails."""
    numbers = iter(range(10**6))

    def fails(schedule: Schedule) -> bool:
        return bool(run_schedule(schedule, folder / str(next(numbers))).faults)

    return fails


def line(number: int, verdict: Verdict) -> str:
    """Returns the outcome as values of `COLUMNS`, separated by commas."""
    schedule = Schedule.from_json(verdict.schedule)
    job = schedule.job
    values = (
        number, job.worker, job.strategy, job.workers, job.ps, int(job.tcp), len(verdict.done), len(verdict.missed),
        int(not verdict.faults), round(verdict.accuracy, 4), verdict.goodput, verdict.seconds, verdict.rollbacks,
        verdict.steps_undone, verdict.deaths, verdict.partial_updates,
    )  # fmt: skip
    return ",".join(map(str, values))


def in_short(
    options: argparse.Namespace, undisturbed: dict[str, list[float]], verdicts: dict[int, Verdict]
) -> dict[str, Any]:
    """Returns the figures, with what is wrong with the accuracies as `faults`."""
    rows, faults = [], []
    by_kind: dict[str, list[float]] = {kind: [] for kind in KINDS}
    for verdict in verdicts.values():
        if verdict.accuracy >= 0:
            by_kind[kind_of(Schedule.from_json(verdict.schedule).job)].append(verdict.accuracy)
    for kind, calm in sorted(undisturbed.items()):
        found, mean = by_kind[kind], statistics.mean(calm)
        rows.append({"kind": kind, "mean": round(mean, 5), "accuracy": summary(calm)})
        if not found:
            continue
        rows[-1] |= {"disturbed_mean": round(statistics.mean(found), 5), "disturbed": summary(found)}
        if min(len(found), len(calm)) >= ENOUGH and abs(statistics.mean(found) - mean) > NEAR:
            faults.append(f"{kind}: the mean accuracy is {statistics.mean(found):.4f}, undisturbed it is {mean:.4f}")
        if min(found) < mean - BELOW:
            faults.append(f"{kind}: an accuracy of {min(found):.4f} is more than 2 points below {mean:.4f}")
    done = [action.split(": ")[2].split(" ")[0] for verdict in verdicts.values() for action in verdict.done]
    return {
        "kind": "chaos_schedules",
        "seed": options.seed,
        "asked": options.schedules,
        "schedules": len(verdicts),
        "hold": sum(not verdict.faults for verdict in verdicts.values()),
        "faults": faults,
        "undisturbed": rows,
        "actions": {do: done.count(do) for do in sorted(set(done))},
        "goodput": summary([verdict.goodput for verdict in verdicts.values()]),
        "columns": ",".join(COLUMNS),
        "rows": [line(number, verdict) for number, verdict in sorted(verdicts.items())],
    }


if __name__ == "__main__":
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    main()
