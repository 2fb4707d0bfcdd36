"""Whole runs, from command to exit: `tfleet train` against `keras.Model.fit` in one process over as many batches.

tfleet does it twice, with the default strategy and with `average`, whose workers meet every 50 batches. All train,
evaluate on the held-out digits and export. Every round runs each of them once, begins with another one
than the round before, and measures `import tensorflow` in a process of its own, which is the floor under every start.
"""

from __future__ import annotations

import argparse
import itertools
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from contestants import tfleet_train
from digits import write_digits
from measure import HERE, child_environment, deploy_log_samples, run_json, summary, write_result

from tfleet.data.digits import load_digits
from tfleet.strategies.average import Average
from tfleet.strategies.ledger import batches_in_epoch

OURS = "tfleet train"
AVERAGE = "tfleet train, average"
LOCAL_STEPS, WORKERS, BATCH = 50, 2, 20
PER_EXECUTION = (1, 10, 50)
BEST = "the best keras fit of the round"

Round = Mapping[str, Mapping[str, float]]
"""By program: `whole_seconds`, for tfleet `first_step`; under `start`: `import_tensorflow`."""


def main() -> None:
    """Measures, writes `benchmarks/results/whole_<hidden units>.json`, and prints the figures."""
    parse = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parse.add_argument("--repeats", type=int, default=5)
    parse.add_argument("--steps", type=int, default=20000)
    parse.add_argument("--hidden-units", type=int, default=100)
    options = parse.parse_args()
    with tempfile.TemporaryDirectory(prefix="tfleet-bench-data-") as folder:
        programs, commands = runners(write_digits(Path(folder) / "digits.npz"), options)
        rounds = [measure_round(programs, number) for number in range(options.repeats)]
    settings = {"hidden_units": options.hidden_units, "steps": options.steps, "batch_size": BATCH}
    settings |= {"workers": WORKERS, "ps": 2}
    figures = {"kind": "whole", "settings": settings, **compare(commands, rounds)}
    path = write_result(f"whole_{options.hidden_units}", ["benchmarks/whole.py", *sys.argv[1:]], figures)
    print(table(figures))
    print(f"written: {path}")


def runners(data: Path, options: argparse.Namespace) -> tuple[dict[str, Callable[[], Any]], dict[str, str]]:
    """Returns what runs each program once, and its command for the reader, by name."""
    common = ["mnist", "--workers", str(WORKERS), "--ps", "2", "--batch-size", str(BATCH)]
    common += ["--param", f"hidden_units={options.hidden_units}"]
    rounds = str(rounds_for(options.steps, batches_in_epoch(len(load_digits().x_train), BATCH)))
    ours = {
        OURS: [*common, "--strategy", "async", "--steps", str(options.steps)],
        AVERAGE: [*common, "--strategy", "average", "--local-steps", str(LOCAL_STEPS), "--rounds", rounds],
    }
    programs: dict[str, Callable[[], Any]] = {
        name: lambda train=train: run_tfleet(train)  # type: ignore[misc]
        for name, train in ours.items()
    }
    commands = {name: f"tfleet train {' '.join(train)}" for name, train in ours.items()}
    for per_execution in PER_EXECUTION:
        name = "keras fit" + ("" if per_execution == 1 else f", {per_execution} steps a call")
        flags = [f"--steps={options.steps}", f"--hidden-units={options.hidden_units}"]
        flags += [f"--steps-per-execution={per_execution}"]
        programs[name] = lambda flags=flags: run_keras(data, flags)  # type: ignore[misc]
        commands[name] = f"benchmarks/peers/keras_fit.py --data=... {' '.join(flags)} --export=..."
    programs["start"] = run_import
    return programs, commands


def rounds_for(steps: int, batches: int) -> int:
    """Returns the rounds of `average` in which at least `steps` batches are trained, of so many in an epoch."""
    return next(r for r in itertools.count(1) if (Average(LOCAL_STEPS, r).steps(batches, WORKERS) or 0) >= steps)


def run_tfleet(arguments: Sequence[str]) -> dict[str, float]:
    """Trains; returns seconds from the command to its exit, and to its first step."""
    with tempfile.TemporaryDirectory(prefix="tfleet-bench-") as folder:
        began = time.time()
        whole = tfleet_train(arguments, Path(folder) / "run")
        samples = deploy_log_samples((Path(folder) / "run" / "deploy.log").read_text(encoding="utf-8"))
    return {"whole_seconds": whole, "first_step": min(samples)[0] - began}


def run_keras(data: Path, flags: Sequence[str]) -> dict[str, float]:
    """Trains; returns seconds from the command to its exit."""
    with tempfile.TemporaryDirectory(prefix="tfleet-bench-") as folder:
        script = str(HERE / "peers" / "keras_fit.py")
        result = run_json([script, f"--data={data}", *flags, f"--export={folder}/1"])
        if not Path(folder, "1", "saved_model.pb").exists():
            raise RuntimeError("keras fit left no exported model")
    return {"whole_seconds": result["whole_seconds"]}


def run_import() -> dict[str, float]:
    """Returns the seconds of `import tensorflow` in a fresh process, from its command to its exit."""
    began = time.perf_counter()
    command = [sys.executable, "-c", "import tensorflow"]
    subprocess.run(command, env=child_environment(), check=True, capture_output=True)
    return {"import_tensorflow": time.perf_counter() - began}


def measure_round(programs: Mapping[str, Callable[[], Any]], number: int) -> Round:
    """Runs each program once, beginning with another one each round; returns their results by name."""
    names = list(programs)
    begin = number % len(names)
    results = {}
    for name in [*names[begin:], *names[:begin]]:
        results[name] = programs[name]()
        print(f"round {number + 1}: {name}: {results[name]}", file=sys.stderr, flush=True)
    return results


def compare(commands: Mapping[str, str], rounds: Sequence[Round]) -> dict[str, Any]:
    """Makes the figures: seconds of each program, how many times longer than each of tfleet's, and tfleet's start."""
    seconds = {name: [r[name]["whole_seconds"] for r in rounds] for name in commands}
    ours = [name for name in commands if name in (OURS, AVERAGE)]
    peers = [name for name in commands if name not in ours]
    against = {name: seconds[name] for name in peers}
    against[BEST] = [min(values) for values in zip(*(seconds[name] for name in peers), strict=True)]
    first = [r[OURS]["first_step"] for r in rounds]
    imports = [r["start"]["import_tensorflow"] for r in rounds]
    return {
        "repeats": len(rounds),
        "programs": [{"name": n, "command": commands[n], "whole_seconds": summary(seconds[n])} for n in commands],
        "ratios": [
            {"of": name, "to": own, "ratio": summary([a / b for a, b in zip(values, seconds[own], strict=True)])}
            for name, values in against.items()
            for own in ours
        ],
        "start": {
            "first_step": summary(first),
            "import_tensorflow": summary(imports),
            "first_step_more": summary([a - b for a, b in zip(first, imports, strict=True)]),
        },
    }


def table(figures: Mapping[str, Any]) -> str:
    """Returns the figures as text for the terminal."""
    lines = [f"{row['name']:32}{row['whole_seconds']['median']:8.1f} s" for row in figures["programs"]]
    lines += [f"{row['of']} / {row['to']}: {row['ratio']['median']:.2f}" for row in figures["ratios"]]
    lines += [f"{name}: {values['median']:.2f} s" for name, values in figures["start"].items()]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
