"""Whole runs, from command to exit: `tfleet train` against `keras.Model.fit` in one process over as many batches.

Both train, evaluate on the held-out digits and export. Every round runs each of them once, begins with another one
than the round before, and measures `import tensorflow` in a process of its own, which is the floor under every start.
"""

from __future__ import annotations

import argparse
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

OURS = "tfleet train"
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
    parse.add_argument("--strategy", default="async")
    options = parse.parse_args()
    with tempfile.TemporaryDirectory(prefix="tfleet-bench-data-") as folder:
        programs, commands = runners(write_digits(Path(folder) / "digits.npz"), options)
        rounds = [measure_round(programs, number) for number in range(options.repeats)]
    settings = {"hidden_units": options.hidden_units, "steps": options.steps, "batch_size": 20, "workers": 2, "ps": 2}
    figures = {"kind": "whole", "settings": settings, **compare(commands, rounds)}
    path = write_result(f"whole_{options.hidden_units}", ["benchmarks/whole.py", *sys.argv[1:]], figures)
    print(table(figures))
    print(f"written: {path}")


def runners(data: Path, options: argparse.Namespace) -> tuple[dict[str, Callable[[], Any]], dict[str, str]]:
    """Returns what runs each program once, and its command for the reader, by name."""
    train = ["mnist", "--workers", "2", "--ps", "2", "--strategy", options.strategy, "--steps", str(options.steps)]
    train += ["--batch-size", "20", "--param", f"hidden_units={options.hidden_units}"]
    programs: dict[str, Callable[[], Any]] = {OURS: lambda: run_tfleet(train)}
    commands = {OURS: f"tfleet train {' '.join(train)}"}
    for per_execution in PER_EXECUTION:
        name = "keras fit" + ("" if per_execution == 1 else f", {per_execution} steps a call")
        flags = [f"--steps={options.steps}", f"--hidden-units={options.hidden_units}"]
        flags += [f"--steps-per-execution={per_execution}"]
        programs[name] = lambda flags=flags: run_keras(data, flags)  # type: ignore[misc]
        commands[name] = f"benchmarks/peers/keras_fit.py --data=... {' '.join(flags)} --export=..."
    programs["start"] = run_import
    return programs, commands


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
    """Makes the figures: seconds of each program, how many times longer than tfleet's, and tfleet's start."""
    seconds = {name: [r[name]["whole_seconds"] for r in rounds] for name in commands}
    peers = [name for name in commands if name != OURS]
    against = {name: seconds[name] for name in peers}
    against[BEST] = [min(values) for values in zip(*(seconds[name] for name in peers), strict=True)]
    first = [r[OURS]["first_step"] for r in rounds]
    imports = [r["start"]["import_tensorflow"] for r in rounds]
    return {
        "repeats": len(rounds),
        "programs": [{"name": n, "command": commands[n], "whole_seconds": summary(seconds[n])} for n in commands],
        "ratios": [
            {"of": name, "ratio": summary([a / b for a, b in zip(values, seconds[OURS], strict=True)])}
            for name, values in against.items()
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
    lines += [f"{row['of']} / {OURS}: {row['ratio']['median']:.2f}" for row in figures["ratios"]]
    lines += [f"{name}: {values['median']:.2f} s" for name, values in figures["start"].items()]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
