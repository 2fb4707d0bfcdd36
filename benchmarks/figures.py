"""The other figures of tfleet: accuracy, the demo, what a parameter server costs, the command line, summaries.

Each figure is measured on its own and may be asked for alone (`--only`); figures that are not asked for keep the
values that the result file has.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
from contestants import TFLEET, tfleet_speed, tfleet_train
from measure import HERE, LOAD_AT_START, RESULTS, child_environment, summary, today, write_result
from processes import high_water_mark

from tfleet.spec.environment import ReplicaEnvironment
from tfleet.spec.job import JobSpec
from tfleet.spec.rundir import RunDir

NAME = "figures"
MLP = ["mnist", "--workers", "2", "--ps", "2", "--steps", "2000", "--batch-size", "20", "--param", "hidden_units=100"]
CNN = ["mnist", "--workers", "2", "--ps", "2", "--steps", "1500", "--batch-size", "50", "--param", "model=cnn"]


def main() -> None:
    """Measures what is asked for and writes `benchmarks/results/figures.json`."""
    parse = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parse.add_argument("--repeats", type=int, default=5)
    parse.add_argument("--seeds", type=int, default=3, help="seeds for the accuracies: 0, 1, ...")
    parse.add_argument("--only", action="append", choices=sorted(FIGURES), default=[])
    options = parse.parse_args()
    path = RESULTS / f"{NAME}.json"
    figures = json.loads(path.read_text(encoding="utf-8"))["figures"] if path.exists() else {}
    for name in options.only or FIGURES:
        figures[name] = {**FIGURES[name](options), "date": today(), "load_at_start": LOAD_AT_START}
        print(f"{name}: {json.dumps(figures[name])}", flush=True)
    write_result(NAME, ["benchmarks/figures.py"], {"kind": "figures", "figures": figures})


def accuracy_async(options: argparse.Namespace) -> dict[str, Any]:
    """Held-out accuracy of the MLP under async."""
    return accuracy([*MLP, "--strategy", "async"], options.seeds)


def accuracy_sync(options: argparse.Namespace) -> dict[str, Any]:
    """Held-out accuracy of the MLP under sync."""
    return accuracy([*MLP, "--strategy", "sync"], options.seeds)


def accuracy_cnn(options: argparse.Namespace) -> dict[str, Any]:
    """Held-out accuracy of the convolutional network."""
    return accuracy(CNN, options.seeds)


def accuracy(arguments: list[str], seeds: int) -> dict[str, Any]:
    """Trains once a seed; returns the held-out accuracies that the runs reported."""
    values = []
    for seed in range(seeds):
        with tempfile.TemporaryDirectory(prefix="tfleet-bench-") as folder:
            tfleet_train([*arguments, "--seed", str(seed)], Path(folder) / "run")
            values.append(held_out_accuracy(Path(folder) / "run"))
    return {"command": f"tfleet train {' '.join(arguments)}", "seeds": seeds, "accuracy": summary(values)}


def held_out_accuracy(run: Path) -> float:
    """Reads the last held-out accuracy out of a run directory's `status.json`.

    Raises:
        KeyError: when there is none.
    """
    status = json.loads((run / "status.json").read_text(encoding="utf-8"))
    return float(status["evaluation"]["metrics"]["accuracy"])


def demo(options: argparse.Namespace) -> dict[str, Any]:
    """Seconds that `make demo` takes once the environment is there."""
    command = ["make", "--no-print-directory", "demo"]
    subprocess.run([*command[:-1], "venv"], cwd=HERE.parent, check=True, capture_output=True)
    return {"command": " ".join(command), "seconds": summary([timed(command) for _ in range(options.repeats)])}


def help_text(options: argparse.Namespace) -> dict[str, Any]:
    """Seconds of `tfleet --help`, and whether it imports TensorFlow."""
    question = "import sys, tfleet.cli.main; print('tensorflow' in sys.modules or 'keras' in sys.modules)"
    answer = subprocess.run([sys.executable, "-c", question], capture_output=True, text=True, check=True)
    seconds = [timed([TFLEET, "--help"]) for _ in range(2 * options.repeats)]
    return {"seconds": summary(seconds), "imports_tensorflow": answer.stdout.strip() == "True"}


def timed(command: list[str]) -> float:
    """Returns the seconds that a command takes; raises when it fails."""
    began = time.perf_counter()
    subprocess.run(command, cwd=HERE.parent, check=True, capture_output=True, env=child_environment())
    return time.perf_counter() - began


def parameter_server(options: argparse.Namespace) -> dict[str, Any]:
    """Seconds from the start of a ps process until it is ready, by itself and in a job, and the most memory it had."""
    ready: list[float] = []
    peak: list[float] = []
    for _ in range(options.repeats):
        with running(MLP) as (launcher, run):
            seen = watch_servers(launcher, run)
        ready += [values["ready"] for values in seen.values()]
        peak += [values["peak_mb"] for values in seen.values()]
    alone = [start_of_one_server() for _ in range(options.repeats)]
    return {
        "ready_seconds": summary(alone),
        "ready_seconds_of_two": summary(ready),
        "peak_rss_mb": summary(peak),
    }


def start_of_one_server() -> float:
    """Returns the seconds from the start of one ps until it says that it is ready, nothing else being started."""
    with tempfile.TemporaryDirectory() as folder:
        run = RunDir.at(folder)
        run.create()
        run.make_token()
        run.job_file.write_text(JobSpec.parse({"task": "mnist", "workers": 1, "ps": 1}).dump(), encoding="utf-8")
        hosts = (f"unix:@tfleet-bench-{os.getpid()}",)
        who = ReplicaEnvironment("ps", 0, hosts, hosts).variables()
        command = [sys.executable, "-m", "tfleet.server", "--index", "0", "--run-dir", folder]
        env = {**child_environment(), **who, "PYTHONUNBUFFERED": "1", "OPENBLAS_NUM_THREADS": "1"}
        start = time.perf_counter()
        with subprocess.Popen(command, env=env, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            line = next((line for line in process.stdout if "ready" in line), "")
            seconds = time.perf_counter() - start
            process.kill()
    if not line:
        raise RuntimeError("the ps ended before it was ready")
    return seconds


@contextmanager
def running(arguments: list[str]) -> Iterator[tuple[psutil.Process, Path]]:
    """Starts `tfleet train`; yields its process and run directory; waits for its end.

    Raises:
        RuntimeError: when the job fails.
    """
    with tempfile.TemporaryDirectory(prefix="tfleet-bench-") as folder:
        run = Path(folder) / "run"
        command = [TFLEET, "train", *arguments, "--run-dir", str(run)]
        with subprocess.Popen(command, env=child_environment(), stdout=subprocess.DEVNULL) as process:
            yield psutil.Process(process.pid), run
            if process.wait() != 0:
                raise RuntimeError(f"{' '.join(command)} ended with {process.returncode}")


def watch_servers(launcher: psutil.Process, run: Path, pause: float = 0.005) -> dict[int, dict[str, float]]:
    """Watches the ps processes of a job until the launcher has ended.

    Returns:
        For each process id: seconds from its start until its log says that it is ready, and its peak resident memory
        in MB (10^6 bytes, VmHWM of the kernel).
    """
    seen: dict[int, dict[str, float]] = {}
    while launcher.is_running() and launcher.status() != psutil.STATUS_ZOMBIE:
        for process, index in servers(launcher):
            values = seen.setdefault(process.pid, {})
            try:
                if "ready" not in values and says_ready(run / "logs" / f"ps-{index}.log"):
                    values["ready"] = time.time() - process.create_time()
                values["peak_mb"] = high_water_mark(process.pid) or values.get("peak_mb", 0.0)
            except (psutil.Error, OSError):
                continue
        time.sleep(pause)
    return seen


def servers(launcher: psutil.Process) -> list[tuple[psutil.Process, int]]:
    """Returns the ps processes below the launcher, each with its index."""
    found = []
    try:
        for process in launcher.children(recursive=True):
            environment = process.environ()
            if environment.get("JOB_NAME") == "ps":
                found.append((process, int(environment["POD_NAME"].rpartition("-")[2])))
    except psutil.Error:
        return []
    return found


def says_ready(log: Path) -> bool:
    """Tells whether the log of a ps has its line of being ready."""
    return log.exists() and " is ready" in log.read_text(encoding="utf-8", errors="replace")


def summaries(options: argparse.Namespace) -> dict[str, Any]:
    """How much slower the step loop is with TensorBoard summaries than without: 1 - with / without."""
    arguments = [*MLP[:5], "--steps", "20000", *MLP[7:]]
    slower = []
    for number in range(options.repeats):
        with_them, without = (
            (lambda: tfleet_speed(arguments)),
            (lambda: tfleet_speed([*arguments, "--summary-every=0"])),
        )
        # Who goes first changes from round to round, so that a machine that warms up favours neither.
        speeds = [run() for run in ((with_them, without) if number % 2 else (without, with_them))]
        on, off = speeds if number % 2 else reversed(speeds)
        slower.append(1 - on / off)
    return {"command": f"tfleet train {' '.join(arguments)} [--summary-every=0]", "slower_by": summary(slower)}


FIGURES: dict[str, Callable[[argparse.Namespace], dict[str, Any]]] = {
    "accuracy_async": accuracy_async,
    "accuracy_sync": accuracy_sync,
    "accuracy_cnn": accuracy_cnn,
    "demo": demo,
    "parameter_server": parameter_server,
    "help": help_text,
    "summaries": summaries,
}

if __name__ == "__main__":
    os.chdir(HERE.parent)
    main()
