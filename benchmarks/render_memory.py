"""The section of docs/measurements.md on the memory of a worker, from the result of memory_worker.py."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


def memory_section(result: dict[str, Any], spread: Callable[[dict[str, Any], str], str], origin: str) -> str:
    """Returns the section.

    Args:
        result: of a result file of the kind `memory`.
        spread: makes text of a median with its range, given a format.
        origin: the sentence on where and when it was measured.
    """
    settings, ratio, goal = result["settings"], result["ratio"], result["goal"]
    rows = "".join(f"| {row['name']} | {spread(row['peak_mb'], '{:,.0f}')} |\n" for row in result["programs"])
    reached = "reached" if ratio["median"] <= goal else "not reached"
    return (
        f"\n## Memory of a worker: MLP 784-{settings['hidden_units']}-10, {settings['workers']} workers, "
        f"{settings['ps']} ps\n\nPeak resident memory (private and shared pages, each in full) of the larger worker, "
        "against one process of `keras.Model.fit`; both evaluate on the held-out digits and export. Median (least to "
        f"greatest) of {result['repeats']} rounds.\n\n| program | peak, MB |\n| --- | --- |\n{rows}"
        f"\nThe worker has {spread(ratio, '{:.3f}')} times the memory of the Keras process of its round; the goal, at "
        f"most {goal:g} times, is {reached}.\n\n"
        + "".join(f"- {row['name']}: `{row['command']}`\n" for row in result["programs"])
        + origin
    )
