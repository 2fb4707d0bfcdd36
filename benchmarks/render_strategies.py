"""The section of docs/measurements.md on what the strategies reach; `write_measurements.py` calls it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


def strategies_section(result: dict[str, Any], spread: Callable[[dict[str, Any], str], str]) -> str:
    """Returns the table of accuracies and speeds, without the sentence on where it was measured.

    Args:
        result: what `strategies.py` wrote.
        spread: gives a median with its range, by a format.
    """
    settings = result["settings"]
    lines = [
        f"\n## Strategies: MLP 784-{settings['hidden_units']}-10, batch {settings['batch_size']}, Adam, "
        f"{settings['workers']} workers, {settings['ps']} ps\n",
        f"\nHeld-out accuracy after {settings['epochs']} passes over the data of {settings['batches_in_epoch']} "
        f"batches, speed over {settings['speed_epochs']} passes: median (least to greatest) of {result['seeds']} "
        "seeds.\n",
        "\n| strategy | accuracy | global steps/s | batches/s |\n| --- | --- | --- | --- |\n",
    ]
    for row in result["strategies"]:
        cells = (
            row["name"],
            spread(row["accuracy"], "{:.4f}"),
            spread(row["steps_per_second"], "{:,.0f}"),
            spread(row["batches_per_second"], "{:,.0f}"),
        )
        lines.append(f"| {' | '.join(cells)} |\n")
    return "".join([*lines, "\n", *(f"- {row['name']}: `{row['command']}`\n" for row in result["strategies"])])
