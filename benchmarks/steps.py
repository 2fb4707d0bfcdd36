"""Global steps per second of tfleet, `keras.Model.fit`, TensorFlow's parameter servers and PyTorch DDP, side by side.

All train the same MLP (784-100-10 unless told otherwise) with Adam on batches of 20. Every round runs each of them
once, one after the other, and begins with another one than the round before, so that a slow minute of the machine
hits all alike. Medians of the rounds are compared, and the ratios within the rounds tell the spread.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from contestants import WARMUP, Contestant, Missing, keras_fit, tf2_ps, tf_graph_ps, tfleet, torch_ddp
from digits import write_digits
from measure import summary, write_result


def main() -> None:
    """Measures, writes `benchmarks/results/<name>.json`, and prints the tables."""
    parse = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parse.add_argument("--repeats", type=int, default=5)
    parse.add_argument(
        "--scale", type=float, default=1, help="more steps for everybody, so that all measure longer; less: fewer"
    )
    parse.add_argument("--hidden-units", type=int, default=100)
    parse.add_argument("--without", action="append", default=[], help="leave out those whose name holds this")
    parse.add_argument("--name", default="", help="of the result file; default: steps_<hidden units>")
    options = parse.parse_args()
    with tempfile.TemporaryDirectory(prefix="tfleet-bench-data-") as folder:
        field, missing = contestants(write_digits(Path(folder) / "digits.npz"), options)
        rounds = [measure_round(field, number) for number in range(options.repeats)]
    figures = {**compare(field, rounds), "missing": missing}
    settings = {"hidden_units": options.hidden_units, "batch_size": 20, "workers": 2, "ps": 2, "warmup": WARMUP}
    name = options.name or f"steps_{options.hidden_units}"
    command = ["benchmarks/steps.py", *sys.argv[1:]]
    path = write_result(name, command, {"kind": "steps", "settings": settings, **figures})
    print(table(figures))
    print(f"written: {path}")


def contestants(data: Path, options: argparse.Namespace) -> tuple[list[Contestant], list[dict[str, str]]]:
    """Returns all who take part, and who does not, with the reason.

    Each makes as many steps as take it some seconds: a slow one needs fewer for the same certainty.
    """
    units = options.hidden_units
    speed = options.scale * min(1.0, 300 / units)

    def steps(count: int) -> int:
        return WARMUP + round(count * speed)

    makers: dict[str, Callable[[], Contestant]] = {
        "tfleet async": lambda: tfleet("async", units, steps(7000)),
        "tfleet sync": lambda: tfleet("sync", units, steps(4000)),
        "keras fit": lambda: keras_fit(data, 1, units, steps(4000)),
        "keras fit, 10 steps a call": lambda: keras_fit(data, 10, units, steps(6000)),
        "keras fit, 50 steps a call": lambda: keras_fit(data, 50, units, steps(8000)),
        "TensorFlow ps, graph mode": lambda: tf_graph_ps(data, units, steps(1000)),
        "TensorFlow ParameterServerStrategy": lambda: tf2_ps(data, 1, units, steps(600)),
        "TensorFlow ParameterServerStrategy, 50 steps a call": lambda: tf2_ps(data, 50, units, steps(1500)),
        "PyTorch DDP": lambda: torch_ddp(data, units, steps(2000)),
    }
    field, missing = [], []
    for name, make in makers.items():
        if any(word in name for word in options.without):
            missing.append({"name": name, "why": "left out by --without"})
            continue
        try:
            field.append(make())
        except Missing as why:
            missing.append({"name": name, "why": str(why)})
            print(f"{name} takes no part: {why}", file=sys.stderr, flush=True)
    return field, missing


def measure_round(field: Sequence[Contestant], number: int) -> dict[str, dict[str, Any]]:
    """Runs each contestant once, beginning with another one each round; returns their results by name."""
    begin = number % len(field)
    results = {}
    for contestant in [*field[begin:], *field[:begin]]:
        results[contestant.name] = contestant.run()
        speed = results[contestant.name]["steps_per_second"]
        print(f"round {number + 1}: {contestant.name}: {speed:.0f} steps/s", file=sys.stderr, flush=True)
    return results


def compare(field: Sequence[Contestant], rounds: Sequence[dict[str, dict[str, Any]]]) -> dict[str, Any]:
    """Makes the figures of the result file: each contestant's rates, and ratios to each that is not tfleet."""
    rows = []
    for contestant in field:
        own = [results[contestant.name] for results in rounds]
        steps = [result["steps_per_second"] for result in own]
        rows.append(
            {
                "name": contestant.name,
                "command": contestant.command,
                "versions": own[0].get("versions", {}),
                "steps_per_second": summary(steps),
                "batches_per_second": summary([value * contestant.batches for value in steps]),
                "whole_seconds": summary([result["whole_seconds"] for result in own]),
            }
        )
    return {"repeats": len(rounds), "contestants": rows, "ratios": ratios(field, rounds)}


def ratios(field: Sequence[Contestant], rounds: Sequence[dict[str, dict[str, Any]]]) -> list[dict[str, Any]]:
    """Returns batches per second of each tfleet contestant over those of each peer, round by round."""
    found = []
    for own in (c for c in field if c.name.startswith("tfleet")):
        for peer in (c for c in field if not c.name.startswith("tfleet")):
            values = [
                r[own.name]["steps_per_second"] * own.batches / (r[peer.name]["steps_per_second"] * peer.batches)
                for r in rounds
            ]
            found.append({"of": own.name, "to": peer.name, "ratio": summary(values)})
    return found


def table(figures: dict[str, Any]) -> str:
    """Returns the figures as text for the terminal."""
    lines = [f"{'':52}{'steps/s':>9}{'min':>9}{'max':>9}{'batches/s':>11}{'whole s':>9}"]
    for row in figures["contestants"]:
        steps, batches, whole = (row[key] for key in ("steps_per_second", "batches_per_second", "whole_seconds"))
        lines.append(
            f"{row['name']:52}{steps['median']:9.0f}{steps['min']:9.0f}{steps['max']:9.0f}"
            f"{batches['median']:11.0f}{whole['median']:9.1f}"
        )
    lines.append("")
    for row in figures["ratios"]:
        ratio = row["ratio"]
        lines.append(f"{row['of']} / {row['to']}: {ratio['median']:.2f} ({ratio['min']:.2f} to {ratio['max']:.2f})")
    lines += [f"{row['name']} took no part: {row['why']}" for row in figures.get("missing", [])]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
