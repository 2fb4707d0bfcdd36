"""The sections of docs/measurements.md on random faults; `write_measurements.py` calls them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

Spread = Callable[[dict[str, Any], str], str]

RECOVERY = (
    ("worker", "back_seconds", "A worker's process killed: until a batch of it counts again, seconds", "{:.2f}"),
    ("worker", "start_seconds", "Of which the start of its new process: to its first batch that counts", "{:.2f}"),
    ("worker", "more_seconds", "The rest: until its death is noticed and it is started", "{:.2f}"),
    ("ps_0", "back_seconds", "ps 0 killed: until a batch of the next generation counts, seconds", "{:.2f}"),
    ("ps_1", "back_seconds", "Another ps killed: the same", "{:.2f}"),
    ("ps_1", "load_seconds", "Of which reading the commit takes", "{:.4f}"),
)


def schedules_section(result: dict[str, Any], spread: Spread) -> str:
    """Returns what came of the random schedules, without the sentence on where it was measured."""
    columns = result["columns"].split(",")
    rows = [dict(zip(columns, row.split(","), strict=True)) for row in result["rows"]]
    light = sum(row["worker"] == "light" for row in rows)
    actions = ", ".join(f"{count} {do}" for do, count in result["actions"].items())
    asked = f" of {result['asked']} that were asked for" if result["asked"] > result["schedules"] else ""
    accuracies = ""
    for row in result["undisturbed"]:
        groups = [(row["mean"], row["accuracy"]), (row.get("disturbed_mean"), row.get("disturbed"))]
        cells = [
            cell
            for mean, values in groups
            for cell in ([len(values["values"]), f"{mean:.4f}", spread(values, "{:.4f}")] if values else [0, "", ""])
        ]
        accuracies += f"| {row['kind']} | {' | '.join(map(str, cells))} |\n"
    return (
        f"\n## Random faults\n\n{result['schedules']} random schedules{asked}, seed {result['seed']}: "
        f"**{result['hold']} hold**. In {light} of them the model is NumPy's and all else of the workers is real; the "
        f"other {len(rows) - light} have TensorFlow workers. What was done: {actions}. Rollbacks: "
        f"{sum(int(row['rollbacks']) for row in rows)}; members lost: {sum(int(row['lost']) for row in rows)}; partial "
        f"updates in final models: {sum(int(row['partial']) for row in rows)}. Goodput (batches that count in the end, "
        f"of all that were taken): {spread(result['goodput'], '{:.1%}')}.\n\n"
        "| kind | undisturbed runs | mean accuracy | median (range) | schedules | mean accuracy | median (range) |\n"
        f"|{' --- |' * 7}\n{accuracies}"
    )


def soak_section(result: dict[str, Any]) -> str:
    """Returns the figures of the soak, likewise."""
    mix, soak = ", ".join(f"{do} {weight}" for do, weight in result["mix"].items()), result["soak"]
    memory = "".join(
        f"| {role} | {mb['first']:.1f} | {mb['last']:.1f} | {mb['max']:.1f} |\n"
        for role, mb in soak["memory_mb"].items()
    )
    return (
        f"\n## Soak\n\n{result['minutes']:g} minutes, a random fault each {result['every']:g} s (weights: {mix}), a "
        f"commit each {result['commit_seconds']:g} s; 2 workers with a NumPy model of 5 ms a batch, 2 ps, TCP: "
        f"{soak['throughput']:,.0f} batches/s count, undisturbed {result['undisturbed']['throughput']:,.0f}: "
        f"**{result['share']:.0%}**. {soak['actions']} faults, {soak['rollbacks']} rollbacks, {soak['lost']} members "
        f"lost, {soak['batches']:,} batches each acknowledged once, {soak['undone']:,} undone and done again.\n\n"
        "| private MB | first quarter, median | last quarter, median | greatest |\n| --- | --- | --- | --- |\n"
        f"{memory}"
    )


def recovery_section(result: dict[str, Any], spread: Spread) -> str:
    """Returns the recovery times, likewise."""
    rows = "".join(f"| {text} | {spread(result[part][key], form)} |\n" for part, key, text, form in RECOVERY)
    return (
        "\n## Recovery on this machine\n\nMNIST with TensorFlow, 2 workers, 2 ps, SIGKILL. "
        f"{result['repeats']} times each.\n\n| what | median (least to greatest) |\n| --- | --- |\n{rows}"
    )
