"""What each strategy reaches and how fast it is: held-out accuracy and speed over the same samples, for some seeds.

All train the MLP 784-100-10 with Adam on batches of 20, 2 workers and 2 ps. For the accuracy each sees every sample
`--epochs` times, for the speed `--speed-epochs` times: a longer run, since start and end of a short one weigh too much.
Every seed runs all of them one after the other, and begins with another one than the seed before.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from contestants import WARMUP, tfleet_result, tfleet_train
from figures import held_out_accuracy
from measure import summary, write_result

from tfleet.data.digits import load_digits
from tfleet.strategies.ledger import batches_in_epoch

BATCH, WORKERS, PS, UNITS = 20, 2, 2, 100
LOCAL_STEPS = (1, 50, 0)
"""Of the strategy average; 0: each worker's part of the epoch."""


@dataclass(frozen=True)
class Entrant:
    """One strategy with its settings.

    Attributes:
        name: as it stands in the table.
        strategy: as in `JobSpec`.
        local_steps: of average.
    """

    name: str
    strategy: str
    local_steps: int = 0

    @property
    def batches(self) -> int:
        """Batches in one global step."""
        return WORKERS if self.strategy == "sync" else 1

    def arguments(self, epochs: int, batches: int) -> list[str]:
        """Returns what follows `tfleet train` for so many passes over data of so many batches."""
        given = ["mnist", "--workers", str(WORKERS), "--ps", str(PS), "--strategy", self.strategy]
        given += ["--batch-size", str(BATCH), "--param", f"hidden_units={UNITS}"]
        if self.strategy != "average":
            return [*given, "--epochs", str(epochs)]
        rounds = math.ceil(batches / (WORKERS * self.local_steps)) if self.local_steps else 1
        return [*given, "--local-steps", str(self.local_steps), "--rounds", str(epochs * rounds)]


FIELD = (
    Entrant("async", "async"),
    Entrant("bounded", "bounded"),
    Entrant("sync", "sync"),
    *(Entrant(f"average, local_steps {count}", "average", count) for count in LOCAL_STEPS),
)


def main() -> None:
    """Measures, writes `benchmarks/results/strategies.json`, and prints the figures."""
    parse = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parse.add_argument("--seeds", type=int, default=3, help="0, 1, ...")
    parse.add_argument("--epochs", type=int, default=5, help="passes over the data for the accuracy")
    parse.add_argument("--speed-epochs", type=int, default=40, help="passes over the data for the speed")
    parse.add_argument("--without", action="append", default=[], help="leave out those whose name holds this")
    options = parse.parse_args()
    field = [entrant for entrant in FIELD if not any(word in entrant.name for word in options.without)]
    batches = batches_in_epoch(len(load_digits().x_train), BATCH)
    rounds = [measure(field, seed, options.epochs, options.speed_epochs, batches) for seed in range(options.seeds)]
    settings = {"hidden_units": UNITS, "batch_size": BATCH, "workers": WORKERS, "ps": PS, "warmup": WARMUP}
    settings |= {"epochs": options.epochs, "speed_epochs": options.speed_epochs, "batches_in_epoch": batches}
    rows = compare(field, rounds, options.epochs, batches)
    figures = {"kind": "strategies", "settings": settings, "seeds": options.seeds, "strategies": rows}
    path = write_result("strategies", ["benchmarks/strategies.py", *sys.argv[1:]], figures)
    print(json.dumps(rows, indent=1))
    print(f"written: {path}")


def measure(
    field: Sequence[Entrant], seed: int, epochs: int, speed_epochs: int, batches: int
) -> dict[str, dict[str, float]]:
    """Runs each once for its accuracy and once for its speed; returns both by name."""
    begin = seed % len(field)
    found = {}
    for entrant in [*field[begin:], *field[:begin]]:
        with tempfile.TemporaryDirectory(prefix="tfleet-bench-") as folder:
            tfleet_train([*entrant.arguments(epochs, batches), "--seed", str(seed)], Path(folder) / "run")
            accuracy = held_out_accuracy(Path(folder) / "run")
        result = tfleet_result([*entrant.arguments(speed_epochs, batches), "--seed", str(seed)])
        found[entrant.name] = {"accuracy": accuracy, "steps_per_second": result["steps_per_second"]}
        print(f"seed {seed}: {entrant.name}: {found[entrant.name]}", file=sys.stderr, flush=True)
    return found


def compare(
    field: Sequence[Entrant], rounds: Sequence[dict[str, dict[str, float]]], epochs: int, batches: int
) -> list[dict[str, Any]]:
    """Returns one row for each: medians and ranges over the seeds."""
    rows = []
    for entrant in field:
        own = [results[entrant.name] for results in rounds]
        steps = [result["steps_per_second"] for result in own]
        rows.append(
            {
                "name": entrant.name,
                "command": f"tfleet train {' '.join(entrant.arguments(epochs, batches))}",
                "accuracy": summary([result["accuracy"] for result in own]),
                "steps_per_second": summary(steps),
                "batches_per_second": summary([value * entrant.batches for value in steps]),
            }
        )
    return rows


if __name__ == "__main__":
    main()
