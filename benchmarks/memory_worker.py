"""The memory of a worker: its peak in a job of 2 + 2, against one process of `keras.Model.fit` with the same model.

Both are whole runs on the same samples: they train, evaluate on the held-out digits and export. Of the two workers the
larger one counts, which is the one that evaluates and exports.

Measured is the peak of resident memory as the kernel keeps it (VmHWM): private and shared pages, each in full. So the
code of TensorFlow, and the memory that a worker shares with the ps, count for a worker as if nobody else had them.
Proportional memory (PSS) would divide them among the processes that map them, of which a job has more.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from contestants import TFLEET
from digits import write_digits
from measure import HERE, child_environment, summary, write_result
from processes import high_water_mark, replicas_below

WORKER, KERAS = "tfleet worker", "keras fit"
GOAL = 1.1
"""A worker may have one Keras process and 10 %."""
PAUSE = 0.05
"""Seconds between two looks at a peak; it only grows, so nothing is missed but what comes right before an exit."""


def main() -> None:
    """Measures, writes `benchmarks/results/memory_worker.json`, and prints the figures."""
    parse = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parse.add_argument("--repeats", type=int, default=5)
    parse.add_argument("--steps", type=int, default=3000)
    parse.add_argument("--hidden-units", type=int, default=100)
    options = parse.parse_args()
    commands = command_lines(options)
    rounds = []
    with tempfile.TemporaryDirectory(prefix="tfleet-bench-") as folder:
        data = write_digits(Path(folder) / "digits.npz")
        for number in range(options.repeats):
            run, export = Path(folder) / f"run-{number}", Path(folder) / f"export-{number}"
            job = [TFLEET, *commands[WORKER], f"--run-dir={run}"]
            fit = [sys.executable, *commands[KERAS], f"--data={data}", f"--export={export}"]
            both = {WORKER: lambda job=job: largest_worker(job), KERAS: lambda fit=fit: peak_of(fit)}  # type: ignore[misc]
            order = [WORKER, KERAS] if number % 2 == 0 else [KERAS, WORKER]
            rounds.append({name: both[name]() for name in order})
            print(f"round {number + 1}: {rounds[-1]}", file=sys.stderr, flush=True)
    settings = {"hidden_units": options.hidden_units, "steps": options.steps, "batch_size": 20, "workers": 2, "ps": 2}
    figures = {"kind": "memory", "settings": settings, **compare(commands, rounds)}
    path = write_result("memory_worker", ["benchmarks/memory_worker.py", *sys.argv[1:]], figures)
    print(f"a worker / one Keras process: {figures['ratio']['median']:.2f}, may be {GOAL}\nwritten: {path}")


def command_lines(options: argparse.Namespace) -> dict[str, list[str]]:
    """Returns what follows the program's name, but for the places of files, by program."""
    job = ["train", "mnist", "--workers=2", "--ps=2", f"--steps={options.steps}", "--batch-size=20"]
    fit = [f"--steps={options.steps}", f"--hidden-units={options.hidden_units}", "--batch-size=20"]
    return {
        WORKER: [*job, f"--param=hidden_units={options.hidden_units}"],
        KERAS: [str((HERE / "peers" / "keras_fit.py").relative_to(HERE.parent)), *fit],
    }


def largest_worker(command: Sequence[str]) -> float:
    """Runs a job to its end; returns the peak of that worker which needed the most, in MB."""
    peaks: dict[int, float] = {}

    def look(launcher: int) -> None:
        for name, pid in replicas_below(launcher).items():
            if name.startswith("worker-"):
                peaks[pid] = max(peaks.get(pid, 0.0), high_water_mark(pid))

    watch(command, look)
    return max(peaks.values())


def peak_of(command: Sequence[str]) -> float:
    """Runs a program to its end; returns its peak in MB."""
    peaks = [0.0]
    watch(command, lambda pid: peaks.append(high_water_mark(pid)))
    return max(peaks)


def watch(command: Sequence[str], look: Any) -> None:
    """Runs a program, and calls `look` with its process id again and again until it ends.

    Raises:
        RuntimeError: when it fails.
    """
    out = subprocess.DEVNULL
    with subprocess.Popen(command, env=child_environment(), stdout=out, stderr=out, cwd=HERE.parent) as process:
        while process.poll() is None:
            look(process.pid)
            time.sleep(PAUSE)
    if process.returncode != 0:
        raise RuntimeError(f"{' '.join(command)} ended with {process.returncode}")


def compare(commands: Mapping[str, Sequence[str]], rounds: Sequence[Mapping[str, float]]) -> dict[str, Any]:
    """Makes the figures: the peak of each, and how many Keras processes a worker is, within each round."""
    shown = {WORKER: ["tfleet", *commands[WORKER]], KERAS: ["python", *commands[KERAS], "--data=...", "--export=..."]}
    return {
        "repeats": len(rounds),
        "goal": GOAL,
        "programs": [
            {"name": name, "command": " ".join(shown[name]), "peak_mb": summary([r[name] for r in rounds])}
            for name in (WORKER, KERAS)
        ],
        "ratio": summary([r[WORKER] / r[KERAS] for r in rounds]),
    }


if __name__ == "__main__":
    main()
