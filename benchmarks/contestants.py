"""Who takes part in a comparison: one call of each runs it to the end and returns its rates in the same words."""

from __future__ import annotations

import os
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
    child_environment,
    deploy_log_elapsed,
    deploy_log_samples,
    rate,
    run_json,
)
from tuning import best_variant

TFLEET = str(Path(sys.executable).parent / "tfleet")
WARMUP = 500
"""Global steps that are not measured."""

TORCH = "TFLEET_BENCH_TORCH"
"""Names a Python that has PyTorch; not set: that of `make bench-torch`, where there is one."""


class Missing(Exception):
    """A program under comparison is not on this machine; says what to do."""


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
    flags = [f"--steps={steps}", f"--hidden-units={hidden_units}", f"--steps-per-execution={per_execution}"]
    name = "keras fit" + ("" if per_execution == 1 else f", {per_execution} steps a call")
    return peer(name, "keras_fit.py", data, flags)


def tf_graph_ps(data: Path, hidden_units: int, steps: int) -> Contestant:
    """Returns TensorFlow's graph-mode parameter server, in the best variant that its tuning found."""
    flags = [f"--steps={steps}", *peer_flags(hidden_units), *best_variant(f"tf_graph_ps_{hidden_units}_tuning")]
    return peer("TensorFlow ps, graph mode", "tf_graph_ps.py", data, flags)


def tf2_ps(data: Path, steps_a_call: int, hidden_units: int, steps: int) -> Contestant:
    """Returns TensorFlow 2's ParameterServerStrategy, in the best variant that its tuning found."""
    best = best_variant(f"tf2_ps_{steps_a_call}_a_call_{hidden_units}_tuning")
    flags = [f"--steps={steps}", *peer_flags(hidden_units), f"--steps-a-call={steps_a_call}", *best]
    name = "TensorFlow ParameterServerStrategy" + ("" if steps_a_call == 1 else f", {steps_a_call} steps a call")
    return peer(name, "tf2_ps.py", data, flags)


def torch_ddp(data: Path, hidden_units: int, steps: int) -> Contestant:
    """Returns PyTorch DDP with 2 ranks, in the best variant that its tuning found.

    Raises:
        Missing: when there is no PyTorch.
    """
    flags = [f"--steps={steps}", *peer_flags(hidden_units), *best_variant(f"torch_ddp_{hidden_units}_tuning")]
    return peer("PyTorch DDP", "torch_ddp.py", data, flags, batches=2, python=torch_python())


def peer_flags(hidden_units: int) -> list[str]:
    """Returns the flags that all peers with several processes are given alike."""
    return [f"--warmup={WARMUP}", f"--hidden-units={hidden_units}"]


def peer(
    name: str, script: str, data: Path, flags: list[str], *, batches: int = 1, python: str = sys.executable
) -> Contestant:
    """Returns a script of `peers/`."""
    path = str(HERE / "peers" / script)
    return Contestant(
        name=name,
        run=lambda: run_json([path, f"--data={data}", *flags], python=python),
        batches=batches,
        command=f"benchmarks/peers/{script} --data=... {' '.join(flags)}",
    )


def torch_python() -> str:
    """Returns the Python that has PyTorch.

    Raises:
        Missing: when there is none, or it cannot import PyTorch.
    """
    python = os.environ.get(TORCH) or str(HERE.parent / ".venv-torch" / "bin" / "python")
    if not Path(python).exists():
        raise Missing(f"no Python with PyTorch: call `make bench-torch`, or set {TORCH}")
    if subprocess.run([python, "-c", "import torch, numpy"], capture_output=True).returncode != 0:
        raise Missing("the Python that is named for PyTorch cannot import torch and numpy: call `make bench-torch`")
    return python
