"""What all benchmarks share: one definition of global steps per second, medians, the machine, result files.

Every program under comparison leaves samples `(unix time, global step)`. `rate` makes global steps per second from
them in the same way for all: from the first sample at or after the warm-up to the last one. Start-up, compilation and
whatever comes after the last step are outside; the time of the whole program is reported beside it.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Iterable, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
RESULTS = HERE / "results"

Sample = tuple[float, int]
"""Unix time in seconds, global step at that time."""

SHORTEST = 1.0
"""Seconds that the measured part of a run must last: samples come in bursts, so less would measure a burst."""

STEP_LINE = re.compile(r"^(?P<time>\d+(?:\.\d+)?): Worker \d+: training step \d+ done \(global step: (?P<step>\d+)\)")
ELAPSED_LINE = re.compile(r"^Training elapsed time: (?P<seconds>\d+(?:\.\d+)?) s", re.MULTILINE)


def rate(samples: Iterable[Sample], warmup: int) -> float:
    """Returns global steps per second between the first sample at or after step `warmup` and the last sample.

    Args:
        samples: in any order; of samples with the same step the earliest counts.
        warmup: global steps that are not measured.

    Raises:
        ValueError: when samples after the warm-up are too few, or too near to each other, to tell.
    """
    measured = [sample for sample in sorted(samples, key=lambda s: (s[1], s[0])) if sample[1] >= warmup]
    if not measured or measured[-1][1] == measured[0][1]:
        raise ValueError(f"no two samples after the warm-up of {warmup} steps: run more steps")
    first = measured[0]
    last = next(sample for sample in measured if sample[1] == measured[-1][1])
    if last[0] - first[0] < SHORTEST:
        raise ValueError(f"the steps after the warm-up took only {last[0] - first[0]:.2f} s: run more steps")
    return (last[1] - first[1]) / (last[0] - first[0])


def deploy_log_samples(text: str) -> list[Sample]:
    """Reads the samples out of a `deploy.log`."""
    matches = (STEP_LINE.match(line) for line in text.splitlines())
    return [(float(m["time"]), int(m["step"])) for m in matches if m]


def deploy_log_elapsed(text: str) -> float:
    """Reads the training time in seconds out of a `deploy.log`.

    Raises:
        ValueError: when it has no such line.
    """
    match = ELAPSED_LINE.search(text)
    if not match:
        raise ValueError("the deploy.log has no line 'Training elapsed time': the job did not end well")
    return float(match["seconds"])


def summary(values: Sequence[float]) -> dict[str, Any]:
    """Returns median, least, greatest and all values, rounded to five digits."""

    def short(value: float) -> float:
        return float(f"{value:.5g}")

    return {
        "median": short(statistics.median(values)),
        "min": short(min(values)),
        "max": short(max(values)),
        "values": [short(value) for value in values],
    }


def memory_gib() -> float:
    """Returns the memory of this machine in GiB."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30


def machine() -> dict[str, Any]:
    """Names the machine by cores and memory only."""
    return {"cores": len(os.sched_getaffinity(0)), "memory_gib": round(memory_gib())}


def versions() -> dict[str, str]:
    """Returns the versions of everything that the figures depend on; what is not installed is left out."""
    found = {"python": platform.python_version()}
    for name in ("tfleet", "tensorflow-cpu", "tensorflow", "keras", "torch", "numpy"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def today() -> str:
    """Returns the date in UTC."""
    return time.strftime("%Y-%m-%d", time.gmtime())


def write_result(name: str, command: Sequence[str], figures: dict[str, Any], folder: Path = RESULTS) -> Path:
    """Writes one result file.

    Args:
        name: file name without its ending.
        command: arguments after `python`, that make this file again; paths relative to the repository.
        figures: plain values.
        folder: where to.

    Returns:
        The path of the file.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.json"
    values = {
        "name": name,
        "command": ["python", *command],
        "date": today(),
        "machine": machine(),
        "load_at_start": LOAD_AT_START,
        "versions": versions(),
        **figures,
    }
    path.write_text(json.dumps(values, indent=1) + "\n", encoding="utf-8")
    return path


LOAD_AT_START = round(os.getloadavg()[0], 2)
"""Load average of the last minute before the benchmark began: tells whether the machine was otherwise idle."""


def child_environment() -> dict[str, str]:
    """Returns the environment for measured programs: no proxies (gRPC would use them for loopback), few messages."""
    env = {key: value for key, value in os.environ.items() if not key.lower().endswith("_proxy")}
    return {**env, "KERAS_BACKEND": "tensorflow", "TF_CPP_MIN_LOG_LEVEL": "2", "CUDA_VISIBLE_DEVICES": "-1"}


def peer_parser(
    description: str | None, *, steps: int, warmup: int, roles: Sequence[str] = ()
) -> argparse.ArgumentParser:
    """Returns a parser with what every peer is asked for; it adds what is its own.

    Args:
        description: of the peer.
        steps: how many it trains by default.
        warmup: how many of them are not measured by default.
        roles: of the replicas that it starts from itself; empty: it has no ps and workers.
    """
    parse = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parse.add_argument(
        "--data", required=True, help="npz file (see digits.py) with x [N, 784] float32 in 0..1 and y [N] int64"
    )
    parse.add_argument("--steps", type=int, default=steps, help="global steps")
    parse.add_argument("--warmup", type=int, default=warmup, help="global steps that are not measured")
    parse.add_argument("--batch-size", type=int, default=20, help="of each worker")
    parse.add_argument("--hidden-units", type=int, default=100)
    parse.add_argument("--learning-rate", type=float, default=0.001)
    if roles:
        parse.add_argument("--ps", type=int, default=2)
        parse.add_argument("--workers", type=int, default=2)
        parse.add_argument("--role", choices=["", *roles], default="", help=argparse.SUPPRESS)
        parse.add_argument("--index", type=int, default=0, help=argparse.SUPPRESS)
        parse.add_argument("--cluster", default="", help=argparse.SUPPRESS)
    return parse


def run_json(arguments: Sequence[str], timeout: float = 1800, python: str = sys.executable) -> dict[str, Any]:
    """Runs a Python script that prints one JSON object as its last line; blocks.

    Args:
        arguments: script and its arguments.
        timeout: seconds.
        python: the interpreter.

    Returns:
        That object, with `whole_seconds`, the time from start to exit, added.

    Raises:
        RuntimeError: when the script fails; with the end of what it said.
    """
    began = time.perf_counter()
    done = subprocess.run(
        [python, *arguments], env=child_environment(), capture_output=True, text=True, timeout=timeout
    )
    whole = time.perf_counter() - began
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(arguments)} ended with {done.returncode}:\n{done.stderr[-2000:]}")
    values: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return {**values, "whole_seconds": whole}
