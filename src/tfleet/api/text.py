"""Numbers, times and counts as people read them."""

from __future__ import annotations

import math
from collections.abc import Mapping


def number(value: float) -> str:
    """Writes a loss or metric with about four digits: 0.9312, 12.41, 1,204, 3.1e-05."""
    if not math.isfinite(value):
        return str(value)
    size = abs(value)
    if size >= 1000:
        return f"{value:,.0f}"
    if size >= 10:
        return f"{value:.2f}"
    return f"{value:.4f}" if size >= 0.001 or size == 0 else f"{value:.1e}"


def rate(value: float) -> str:
    """Writes steps per second: 1,204, 172, 8.4, 0.25."""
    if value >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if value >= 1 else f"{value:.2f}"


def duration(seconds: float) -> str:
    """Writes a time in seconds: 4.2 s, 42 s, 3 min 20 s, 2 h 05 min."""
    if 0 < seconds < 9.95:
        return f"{seconds:.1f} s"
    whole = max(0, round(seconds))
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def count(many: int, noun: str) -> str:
    """Writes a number of things: 1 worker, 2 workers, 2 ps."""
    return f"{many:,} {noun}" if many == 1 or noun.endswith("ps") else f"{many:,} {noun}s"


def metrics_line(metrics: Mapping[str, float]) -> str:
    """Writes metrics as `accuracy 0.9312 · loss 0.2311`, accuracies first, loss last."""
    ordered = sorted(metrics, key=lambda name: (name == "loss", "accuracy" not in name, name))
    return " · ".join(f"{name} {number(metrics[name])}" for name in ordered)
