"""Draws docs/images/growth-*.svg out of `emulated.json`, with the lines of the cost model; needs matplotlib."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from measure import HERE, RESULTS
from model import Cost, of_row

IMAGES = HERE.parent / "docs" / "images"
PLOTS: tuple[tuple[str, str, str, Callable[[dict[str, Any]], bool]], ...] = (
    ("growth-parameters", "parameters", "2 workers, 2 ps", lambda r: (r["workers"], r["ps"]) == (2, 2)),
    ("growth-workers", "workers", "80,000 parameters, 2 ps", lambda r: (r["parameters"], r["ps"]) == (80_000, 2)),
    ("growth-ps", "ps", "1,000,000 parameters, 2 workers", lambda r: (r["parameters"], r["workers"]) == (1_000_000, 2)),
)


def main() -> None:
    """Writes the images."""
    measured = json.loads((RESULTS / "emulated.json").read_text(encoding="utf-8"))
    model = json.loads((RESULTS / "model.json").read_text(encoding="utf-8"))
    costs = {t["transport"]: Cost(**t["cost"]) for t in model["transports"]}
    IMAGES.mkdir(exist_ok=True)
    for name, axis, title, chosen in PLOTS:
        rows = [row for row in measured["growth"] if chosen(row)]
        draw(IMAGES / f"{name}.svg", axis, title, rows, costs, model["cores"])
    memory(IMAGES / "growth-memory.svg", measured["growth"])


def draw(path: Path, axis: str, title: str, rows: Sequence[dict[str, Any]], costs: dict[str, Cost], cores: int) -> None:
    """Draws milliseconds a step against one axis: points as measured, a line as the model says."""
    figure, plot = canvas()
    for number, (transport, cost) in enumerate(sorted(costs.items())):
        own = sorted((row for row in rows if row["transport"] == transport), key=lambda row: row[axis])
        where = [row[axis] for row in own]
        plot.plot(where, [1e3 / row["steps_per_second"] for row in own], "o", color=f"C{number}", label=transport)
        model = [1e3 * of_row(cost, row, cores) for row in own]
        plot.plot(where, model, "-", color=f"C{number}", label=f"{transport}, model")
    if axis != "ps":
        plot.set_xscale("log")
    plot.set_yscale("log")
    plot.set(xlabel=axis, ylabel="ms a global step", title=title)
    save(figure, plot, path)


def memory(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    """Draws the private memory of a ps against what it may be."""
    figure, plot = canvas()
    for transport in sorted({row["transport"] for row in rows}):
        own = [row for row in rows if row["transport"] == transport]
        plot.plot([row["goal_mb"] for row in own], [row["ps_private_mb"] for row in own], "o", label=transport)
    ends = [min(row["goal_mb"] for row in rows), max(row["goal_mb"] for row in rows)]
    plot.plot(ends, ends, "-", color="gray", label="as much as it may be")
    plot.set(xlabel="MB that a ps may have", ylabel="MB that it has", title="Memory of a ps, all shapes")
    save(figure, plot, path)


def canvas() -> tuple[Any, Any]:
    """Returns a figure and its axes; the bytes that are saved depend on nothing but what is drawn."""
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams["svg.hashsalt"] = "tfleet"
    from matplotlib import pyplot

    return pyplot.subplots(figsize=(6, 4), layout="constrained")


def save(figure: Any, plot: Any, path: Path) -> None:
    """Writes the image."""
    plot.grid(alpha=0.3)
    plot.legend()
    figure.savefig(path, metadata={"Date": None})


if __name__ == "__main__":
    main()
