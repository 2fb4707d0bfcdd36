"""The section of docs/measurements.md on embeddings whose rows travel, from the result of sparse.py."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

Spread = Callable[[dict[str, Any], str], str]


def sparse_section(result: dict[str, Any], spread: Spread, origin: str) -> str:
    """Returns the section.

    Args:
        result: of a result file of the kind `sparse`.
        spread: makes text of a median with its range, given a format.
        origin: the sentence on where and when it was measured.
    """
    cases = result["cases"]
    base = cases[0]
    compared = "".join(
        f"| {optimizer} | {_cell(cases, spread, optimizer=optimizer, sparse='exact', like=base)} "
        f"| {_cell(cases, spread, optimizer=optimizer, sparse='never', like=base)} | {spread(ratio, '{:.0f}')} |\n"
        for optimizer, ratio in result["faster"].items()
    )
    return (
        f"\n## Embeddings: {base['rows']:,} x 64, {base['touched']:,} rows touched by a batch, 1 worker, 1 ps\n"
        f"\nMedian (least to greatest) of {result['repeats']} rounds, milliseconds a step.\n"
        f"\n| optimizer | touched rows travel | the whole table travels | times faster |\n"
        f"| --- | --- | --- | --- |\n{compared}"
        f"\n| rows touched (of {base['rows']:,}) | milliseconds a step |\n| --- | --- |\n"
        f"{_growth(cases, spread, 'touched', 'rows', base)}"
        f"\n| rows of the table ({base['touched']:,} touched) | milliseconds a step |\n| --- | --- |\n"
        f"{_growth(cases, spread, 'rows', 'touched', base)}{origin}"
    )


def _cell(cases: list[dict[str, Any]], spread: Spread, like: dict[str, Any], **wanted: str) -> str:
    wanted_values = {"rows": like["rows"], "touched": like["touched"], **wanted}
    case = next(c for c in cases if all(c[key] == value for key, value in wanted_values.items()))
    return spread(case["milliseconds"], "{:,.2f}")


def _growth(cases: list[dict[str, Any]], spread: Spread, varied: str, fixed: str, base: dict[str, Any]) -> str:
    found = [
        case
        for case in cases
        if (case["sparse"], case["optimizer"], case[fixed]) == (base["sparse"], base["optimizer"], base[fixed])
    ]
    found.sort(key=lambda case: case[varied])
    return "".join(f"| {case[varied]:,} | {spread(case['milliseconds'], '{:,.2f}')} |\n" for case in found)
