"""Tuning of a peer: every variant of its flags is measured in turn, and the fastest takes part in comparisons."""

from __future__ import annotations

import itertools
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from measure import RESULTS, run_json, summary, write_result

Axes = Mapping[str, Sequence[Any]]
"""The values that are tried for each flag, by the flag's name."""


def flags(variant: Mapping[str, Any]) -> list[str]:
    """Returns a variant as flags of a command line."""
    return [f"--{name.replace('_', '-')}={value}" for name, value in variant.items()]


def tune(script: str, axes: Axes, common: Sequence[str], repeats: int, about: dict[str, Any]) -> None:
    """Measures every combination of `axes`, `repeats` times each; writes and prints the table.

    Args:
        script: of the peer.
        axes: what is varied.
        common: flags that stay, without `--data`, which every machine has elsewhere.
        repeats: rounds; each runs every variant once.
        about: `name` of the result file, `program` as it stands on the page, `data` file, `settings`.
    """
    variants = [dict(zip(axes, values, strict=True)) for values in itertools.product(*axes.values())]
    rates: list[list[float]] = [[] for _ in variants]
    for _ in range(repeats):
        for variant, own in zip(variants, rates, strict=True):
            result = run_json([script, f"--data={about['data']}", *common, *flags(variant)])
            own.append(result["steps_per_second"])
            print(" ".join(flags(variant)), f"{own[-1]:.0f} steps/s", file=sys.stderr, flush=True)
    rows = [{**variant, "steps_per_second": summary(own)} for variant, own in zip(variants, rates, strict=True)]
    rows.sort(key=lambda row: -row["steps_per_second"]["median"])
    command = [f"benchmarks/peers/{Path(script).name}", "--data=...", f"--tune={repeats}", *common]
    figures = {"kind": "tuning", "program": about["program"], "settings": about["settings"], "variants": rows}
    write_result(about["name"], command, figures)
    for row in rows:
        print(row)


def best_variant(name: str, folder: Path = RESULTS) -> list[str]:
    """Returns the flags of the fastest variant in a tuning's result; none where it was not tuned yet."""
    path = folder / f"{name}.json"
    if not path.exists():
        return []
    variants = json.loads(path.read_text(encoding="utf-8"))["variants"]
    best = max(variants, key=lambda variant: variant["steps_per_second"]["median"])
    return flags({key: value for key, value in best.items() if key != "steps_per_second"})
