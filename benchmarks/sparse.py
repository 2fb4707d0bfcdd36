"""Steps per second with a large embedding: touched rows against the whole table, and what the cost grows with.

One worker and one ps train `sparse_task.py`. Each round runs every case once, beginning with another one than the
round before. The first table compares `--sparse exact` with `--sparse never` for each optimizer that is exact, the
second varies the rows that a batch touches, the third the rows of the table.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from contestants import tfleet_train
from measure import HERE, deploy_log_samples, rate, summary, write_result

TASK = f"{HERE / 'sparse_task.py'}:task"
ROWS = 1_000_000
TOUCHED = 2000
OPTIMIZERS = ("sgd", "adagrad", "rmsprop")


@dataclass(frozen=True)
class Case:
    """One job.

    Attributes:
        sparse: as the job says.
        optimizer: of the model.
        rows: of the table, 64 wide.
        touched: indices in a batch, nearly all different.
        steps: of the job.
    """

    sparse: str
    optimizer: str
    rows: int
    touched: int
    steps: int

    def run(self) -> float:
        """Returns milliseconds a step; blocks."""
        arguments = [TASK, "--sparse", self.sparse, "--workers", "1", "--ps", "1", "--steps", str(self.steps)]
        for name in ("optimizer", "rows", "touched"):
            arguments += ["--param", f"{name}={getattr(self, name)}"]
        with tempfile.TemporaryDirectory(prefix="tfleet-bench-") as folder:
            run = Path(folder) / "run"
            tfleet_train([*arguments, "--summary-every", "0"], run)
            log = (run / "deploy.log").read_text(encoding="utf-8")
        return 1000 / rate(deploy_log_samples(log), self.steps // 6)


def main() -> None:
    """Measures, writes `benchmarks/results/sparse.json`, and prints what it found."""
    parse = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parse.add_argument("--repeats", type=int, default=5)
    parse.add_argument("--steps", type=int, default=3000, help="of a job whose rows travel")
    parse.add_argument("--dense-steps", type=int, default=20, help="of a job whose whole table travels")
    parse.add_argument("--name", default="sparse", help="of the result file")
    options = parse.parse_args()
    cases = all_cases(options.steps, options.dense_steps)
    rounds = []
    for number in range(options.repeats):
        begin = number % len(cases)
        found = {}
        for case in [*cases[begin:], *cases[:begin]]:
            found[case] = case.run()
            print(f"round {number + 1}: {case}: {found[case]:.2f} ms a step", file=sys.stderr, flush=True)
        rounds.append(found)
    path = write_result(options.name, ["benchmarks/sparse.py", *sys.argv[1:]], figures(cases, rounds))
    print(f"written: {path}")


def all_cases(steps: int, dense_steps: int) -> list[Case]:
    """Returns every case once."""
    compared = [Case(s, o, ROWS, TOUCHED, n) for o in OPTIMIZERS for s, n in (("exact", steps), ("never", dense_steps))]
    by_touched = [Case("exact", "sgd", ROWS, touched, steps) for touched in (200, 600, 6000, 20_000)]
    by_rows = [Case("exact", "sgd", rows, TOUCHED, steps) for rows in (10_000, 100_000, 2_000_000)]
    return [*compared, *by_touched, *by_rows]


def figures(cases: list[Case], rounds: list[dict[Case, float]]) -> dict[str, Any]:
    """Returns what the result file says: the milliseconds of each case, and how much faster rows are, by optimizer."""
    rows = [{**asdict(case), "milliseconds": summary([found[case] for found in rounds])} for case in cases]
    faster = {}
    for optimizer in OPTIMIZERS:
        exact, never = (
            next(c for c in cases if (c.optimizer, c.sparse, c.rows, c.touched) == (optimizer, mode, ROWS, TOUCHED))
            for mode in ("exact", "never")
        )
        faster[optimizer] = summary([found[never] / found[exact] for found in rounds])
    return {"kind": "sparse", "repeats": len(rounds), "cases": rows, "faster": faster}


if __name__ == "__main__":
    main()
