"""The cost model: what a step costs as a function of workers, ps, bytes, latency and bandwidth.

CPU times are linear in what is moved, for each transport (S: bytes of the parameters, P: ps):

    ps      u = u0 + u1 * S / P          for each push, in each ps
    worker  w = w0 + w1 * P + w2 * S     for each push

A step of one of N workers, which compute for g seconds, then takes

    time = max((g + w + u + l + 2 S / B) / N,  u,  S / (P * B),  (w + P * u) / C)

the workers' own cycle (l: waiting that is nobody's CPU time, and the round trip of a network; B: bytes a second of a
link), the thread of a ps, the link of a ps, and the cores C where all share one machine. The coefficients are fitted
to `emulated.json` by least squares of relative errors, none below zero; points that are kept out of the fit check it.
Then it predicts what nobody has measured, with the coefficients of TCP, a core for every replica, and full links.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from measure import RESULTS, write_result

CHECK_EVERY = 3
"""Of the points of the growth, every third is kept for checking."""
GBIT = 1e9 / 8
ROUND_TRIP = 100e-6
"""Seconds, within a data centre; assumed for the predictions."""
NETWORKS = (10, 25, 100)
WORKERS = (8, 32, 128, 512, 1000)
MODELS = ((80_000, 0.020), (1_000_000, 0.050), (25_000_000, 0.200))
"""Parameters, and seconds of a gradient, for the predictions."""
WORKERS_A_PS = 8

Row = Mapping[str, Any]


@dataclass(frozen=True)
class Cost:
    """Coefficients of one transport, seconds and seconds a byte.

    Attributes:
        push: of a ps, for each push (u0).
        push_byte: of a ps, for each byte of its part (u1).
        work: of a worker, for each push (w0).
        work_ps: of a worker, for each ps (w1).
        work_byte: of a worker, for each byte (w2).
        wait: waiting in a worker's cycle (l).
    """

    push: float
    push_byte: float
    work: float
    work_ps: float
    work_byte: float
    wait: float = 0.0

    def ps_seconds(self, size: float, ps: int) -> float:
        """Returns the CPU seconds of one ps for one push of `size` bytes."""
        return self.push + self.push_byte * size / ps

    def worker_seconds(self, size: float, ps: int) -> float:
        """Returns the CPU seconds of a worker for one push of `size` bytes, without its gradient."""
        return self.work + self.work_ps * ps + self.work_byte * size

    def step_seconds(
        self, size: float, workers: int, ps: int, gradient: float, cores: float = np.inf, bandwidth: float = np.inf
    ) -> float:
        """Returns the seconds between two global steps; see the head of this file.

        Args:
            size: bytes of the parameters.
            workers: number of workers.
            ps: number of ps.
            gradient: seconds.
            cores: that all share; infinite: each has its own.
            bandwidth: bytes a second of each replica's link, in each direction.
        """
        u, w = self.ps_seconds(size, ps), self.worker_seconds(size, ps)
        cycle = gradient + w + u + self.wait + 2 * size / bandwidth
        return float(max(cycle / workers, u, size / ps / bandwidth, (w + ps * u) / cores))


def least_squares(columns: Sequence[Sequence[float]], values: Sequence[float]) -> list[float]:
    """Returns coefficients for the columns, none below zero, with the least squares of the relative errors.

    What would be below zero is left out, the most negative first; exact enough for a handful of columns.
    """
    y = np.asarray(values, float)
    a = np.asarray(columns, float).T / y[:, None]
    kept = list(range(a.shape[1]))
    while True:
        found = np.linalg.lstsq(a[:, kept], np.ones(len(y)), rcond=None)[0]
        if (found >= 0).all():
            break
        del kept[int(np.argmin(found))]
    result = np.zeros(a.shape[1])
    result[kept] = found
    return [float(value) for value in result]


def fit(rows: Sequence[Row], cores: int) -> Cost:
    """Fits the coefficients of one transport."""
    size = [4.0 * row["parameters"] for row in rows]
    ps = [float(row["ps"]) for row in rows]
    ones = [1.0] * len(rows)
    part = [s / p for s, p in zip(size, ps, strict=True)]
    push, push_byte = least_squares([ones, part], [row["ps_cpu_us"] / row["ps"] * 1e-6 for row in rows])
    work, work_ps, work_byte = least_squares([ones, ps, size], [row["worker_cpu_us"] * 1e-6 for row in rows])
    waits = np.concatenate([[0.0], np.geomspace(1e-6, 1e-2, 200)])
    costs = [Cost(push, push_byte, work, work_ps, work_byte, float(wait)) for wait in waits]
    return min(costs, key=lambda cost: sum(e * e for e in errors(cost, rows, cores)))


def errors(cost: Cost, rows: Sequence[Row], cores: int) -> list[float]:
    """Returns the relative error of the predicted time of a step for each point: 0.1 is 10 % too long."""
    return [of_row(cost, row, cores) * row["steps_per_second"] - 1 for row in rows]


def of_row(cost: Cost, row: Row, cores: int) -> float:
    """Returns the predicted seconds of a step for a measured point, all on one machine."""
    return cost.step_seconds(4 * row["parameters"], row["workers"], row["ps"], row["step_ms"] / 1000, cores)


def split(rows: Sequence[Row]) -> tuple[list[Row], list[Row]]:
    """Returns the points for the fit, and those that check it."""
    check = [row for number, row in enumerate(rows) if number % CHECK_EVERY == CHECK_EVERY - 1]
    return [row for number, row in enumerate(rows) if number % CHECK_EVERY != CHECK_EVERY - 1], check


def evaluate(measured: Mapping[str, Any], cores: int) -> dict[str, Any]:
    """Fits and checks each transport, and predicts; returns plain values."""
    transports = []
    for name in sorted({row["transport"] for row in measured["growth"]}):
        own = [row for row in measured["growth"] if row["transport"] == name]
        used, kept = split(own)
        cost = fit(used, cores)
        transports.append(
            {
                "transport": name,
                "cost": asdict(cost),
                "fitted": error_figures(errors(cost, used, cores)),
                "checked": error_figures(errors(cost, kept, cores)),
            }
        )
    tcp = next(Cost(**t["cost"]) for t in transports if t["transport"] == "tcp")
    return {"cores": cores, "transports": transports, "predictions": predictions(tcp)}


def error_figures(values: Sequence[float]) -> dict[str, Any]:
    """Returns how many points there are, and the median and the greatest of the errors' sizes."""
    sizes = np.abs(values)
    return {
        "points": len(values),
        "median": round(float(np.median(sizes)), 4),
        "greatest": round(float(np.max(sizes)), 4),
    }


def predictions(cost: Cost) -> list[dict[str, Any]]:
    """Returns what the model says of networks and numbers of workers that nobody has measured."""
    found = []
    networked = Cost(**{**asdict(cost), "wait": cost.wait + ROUND_TRIP})
    for parameters, gradient in MODELS:
        for workers in WORKERS:
            ps = max(2, workers // WORKERS_A_PS)
            row: dict[str, Any] = {"parameters": parameters, "gradient": gradient, "workers": workers, "ps": ps}
            for network in NETWORKS:
                seconds = networked.step_seconds(4 * parameters, workers, ps, gradient, bandwidth=network * GBIT)
                row[f"gbit_{network}"] = {
                    "steps_per_second": float(f"{1 / seconds:.4g}"),
                    "share": round(gradient / workers / seconds, 3),
                }
            found.append(row)
    return found


def main() -> None:
    """Reads `emulated.json`, writes `benchmarks/results/model.json`, and prints the coefficients and the errors."""
    measured = json.loads((RESULTS / "emulated.json").read_text(encoding="utf-8"))
    figures = evaluate(measured, measured["machine"]["cores"])
    write_result("model", ["benchmarks/model.py"], {"kind": "model", **figures})
    for transport in figures["transports"]:
        print(json.dumps(transport))


if __name__ == "__main__":
    main()
