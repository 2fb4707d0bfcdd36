"""Who takes part in a comparison: one call of each runs it to the end and returns its rates in the same words."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from measure import (
    HERE,
    RESULTS,
    child_environment,
    deploy_log_elapsed,
    deploy_log_samples,
    rate,
    run_json,
)

TFLEET = str(Path(sys.executable).parent / "tfleet")
WARMUP = 500
"""Global steps that are not measured."""

TUNING = RESULTS / "tf_graph_ps_tuning.json"


@dataclass(frozen=True)
class Contestant:
    """One program under comparison.

    Attributes:
        name: as it stands in the tables.
        run: runs it once; returns `steps_per_second`, `whole_seconds` and more.
        batches: batches in one of its global steps.
        command: what is run, for the reader.
    """

    name: str
    run: Callable[[], dict[str, Any]]
    batches: int
    command: str


def tfleet_train(arguments: Sequence[str], run: Path, timeout: float = 900) -> float:
    """Runs `tfleet train`; blocks.

    Args:
        arguments: what follows `tfleet train`.
        run: the run directory, which it makes.
        timeout: seconds.

    Returns:
        Seconds from command to exit.

    Raises:
        RuntimeError: when the job fails; with the end of what it said.
    """
    command = [TFLEET, "train", *arguments, "--run-dir", str(run)]
    began = time.perf_counter()
    done = subprocess.run(command, env=child_environment(), capture_output=True, text=True, timeout=timeout)
    whole = time.perf_counter() - began
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(command)} ended with {done.returncode}:\n{done.stderr[-2000:]}")
    return whole


def tfleet_result(arguments: Sequence[str]) -> dict[str, Any]:
    """Runs `tfleet train` in a run directory that is removed afterwards; blocks.

    Returns:
        steps_per_second, elapsed_seconds (training, as tfleet says), whole_seconds (from command to exit).
    """
    with tempfile.TemporaryDirectory(prefix="tfleet-bench-") as folder:
        whole = tfleet_train(arguments, Path(folder) / "run")
        log = (Path(folder) / "run" / "deploy.log").read_text(encoding="utf-8")
    speed = rate(deploy_log_samples(log), WARMUP)
    return {"steps_per_second": speed, "elapsed_seconds": deploy_log_elapsed(log), "whole_seconds": whole}


def tfleet_speed(arguments: Sequence[str]) -> float:
    """Runs `tfleet train` once; returns its global steps per second."""
    return float(tfleet_result(arguments)["steps_per_second"])


def tfleet(strategy: str, hidden_units: int, steps: int) -> Contestant:
    """Returns tfleet with 2 workers and 2 parameter servers."""
    arguments = ["mnist", "--workers", "2", "--ps", "2", "--strategy", strategy, "--steps", str(steps)]
    arguments += ["--batch-size", "20", "--param", f"hidden_units={hidden_units}"]
    return Contestant(
        name=f"tfleet {strategy}",
        run=lambda: tfleet_result(arguments),
        batches=2 if strategy == "sync" else 1,
        command=f"tfleet train {' '.join(arguments)}",
    )


def keras_fit(data: Path, per_execution: int, hidden_units: int, steps: int) -> Contestant:
    """Returns `keras.Model.fit` in one process."""
    arguments = [f"--steps={steps}", f"--hidden-units={hidden_units}", f"--steps-per-execution={per_execution}"]
    script = HERE / "peers" / "keras_fit.py"
    return Contestant(
        name="keras fit" + ("" if per_execution == 1 else f", {per_execution} steps a call"),
        run=lambda: run_json([str(script), f"--data={data}", *arguments]),
        batches=1,
        command=f"benchmarks/peers/keras_fit.py --data=... {' '.join(arguments)}",
    )


def tf_graph_ps(data: Path, hidden_units: int, steps: int) -> Contestant:
    """Returns TensorFlow's graph-mode parameter server, in the best variant that its tuning found."""
    arguments = [f"--steps={steps}", f"--warmup={WARMUP}", f"--hidden-units={hidden_units}", *best_variant()]
    script = HERE / "peers" / "tf_graph_ps.py"
    return Contestant(
        name="TensorFlow ps, graph mode",
        run=lambda: run_json([str(script), f"--data={data}", *arguments]),
        batches=1,
        command=f"benchmarks/peers/tf_graph_ps.py --data=... {' '.join(arguments)}",
    )


def best_variant(path: Path = TUNING) -> list[str]:
    """Returns the flags of the fastest variant in the tuning's result; none where it was not tuned yet."""
    if not path.exists():
        return []
    variants = json.loads(path.read_text(encoding="utf-8"))["variants"]
    best = max(variants, key=lambda variant: variant["steps_per_second"]["median"])
    return [f"--{key.replace('_', '-')}={value}" for key, value in best.items() if key != "steps_per_second"]
