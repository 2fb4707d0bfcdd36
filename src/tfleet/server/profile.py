"""Where the time of a step goes, as workers and ps tell it, and what the job waits for."""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Iterable, Mapping, Sequence

from tfleet.server.memory import resident_bytes

Sample = Mapping[str, float]
"""Of a worker: rounds, data, gradient, exchange. Of a ps: rounds, queue, update, answer, clocks (wall, cpu), memory."""

WINDOW = 6
"""Samples over which shares are taken: they come each second or two."""
KEPT = 60
"""Samples of a replica that are kept: of a worker whose steps take seconds a few steps are to be among them."""
MUCH = 0.3
"""Share of a worker's time that is worth a word."""
BUSY = 0.7
"""Share of a core that a ps uses when it is what the workers wait for."""

_WORKER = ("data", "gradient", "exchange")
_PS = ("queue", "update", "answer")
_MORE = ("memory", "late")
"""What else a ps tells: bytes that it holds, pushes that it has refused."""
_HEADS = {
    "data": "wait for data",
    "gradient": "gradient",
    "exchange": "exchange",
    "queue": "wait for its turn",
    "update": "update",
    "answer": "count and answer",
}


def used() -> dict[str, float]:
    """Returns what this process has used so far: both clocks in seconds, and the memory that it holds in bytes."""
    return {"wall": time.monotonic(), "cpu": time.process_time(), "memory": resident_bytes()}


class Profile:
    """The newest samples of every replica."""

    def __init__(self) -> None:
        self._samples: dict[tuple[str, int], deque[Sample]] = {}

    def take(self, role: str, index: int, sample: Sample) -> None:
        """Takes what a replica tells: sums since it started.

        Raises:
            LookupError, TypeError, ValueError, ArithmeticError: when it is no such sample; nothing is kept of it.
        """
        parts = (*_PS, "wall", "cpu") if role == "ps" else _WORKER
        more = {part: float(sample.get(part, 0.0)) for part in _MORE} if role == "ps" else {}
        sample = {**more, **{part: float(sample[part]) for part in ("rounds", *parts)}}
        if not all(map(math.isfinite, sample.values())):
            raise ValueError("times that are not finite")
        kept = self._samples.setdefault((role, index), deque(maxlen=KEPT))
        if kept and sample["rounds"] < kept[-1]["rounds"]:
            kept.clear()  # it has started again
        kept.append(sample)

    def bottleneck(self) -> str:
        """Returns what most of the time is lost to, and what to do about it; empty when it is not lost."""
        shares = self._shares()
        if shares.get("data", 0) > MUCH:
            return "workers wait for data: make reading cheaper, or read ahead"
        if shares.get("exchange", 0) <= MUCH:
            return ""
        if self._busiest() > BUSY:
            return "workers wait for ps: add a ps"
        return "workers wait for each other or for the network"

    def newest(self, role: str, index: int) -> Sample:
        """Returns what a replica last told; empty where it has not."""
        kept = self._samples.get((role, index))
        return kept[-1] if kept else {}

    def of_workers(self, indexes: Iterable[int]) -> dict[int, Sequence[Sample]]:
        """Returns the samples of these workers, oldest first."""
        return {index: list(self._samples.get(("worker", index), ())) for index in indexes}

    def table(self) -> str:
        """Returns microseconds a step of every worker, and an update of every ps, part by part."""
        lines = ["Where the time went, in microseconds (means over the whole run).", ""]
        for role, parts, unit in (("worker", _WORKER, "steps"), ("ps", _PS, "updates")):
            heads = [_HEADS[part] for part in parts]
            lines.append(f"{role:<12}{unit:>12}" + "".join(f"{head:>18}" for head in heads) + f"{'in all':>12}")
            for (of, index), samples in sorted(self._samples.items()):
                if of == role and samples[-1]["rounds"]:
                    lines.append(_row(f"{role} {index}", samples[-1], parts))
            lines.append("")
        return "\n".join(lines)

    def _shares(self) -> dict[str, float]:
        sums = dict.fromkeys(_WORKER, 0.0)
        for (role, _), samples in self._samples.items():
            if role == "worker" and len(samples) > 1:
                for part in _WORKER:
                    sums[part] += samples[-1][part] - _first(samples)[part]
        whole = sum(sums.values())
        return {part: value / whole for part, value in sums.items()} if whole else {}

    def _busiest(self) -> float:
        used = [
            (samples[-1]["cpu"] - _first(samples)["cpu"]) / (samples[-1]["wall"] - _first(samples)["wall"])
            for (role, _), samples in self._samples.items()
            if role == "ps" and len(samples) > 1 and samples[-1]["wall"] > _first(samples)["wall"]
        ]
        return max(used, default=0.0)


class Staleness:
    """How many updates came between the parameters that a gradient was computed from, and its own."""

    def __init__(self) -> None:
        self._sum = self._count = self._most = 0

    def add(self, updates: int) -> None:
        """Takes one gradient's."""
        self._sum += updates
        self._count += 1
        self._most = max(self._most, updates)

    def to_json(self) -> dict[str, float]:
        """Returns mean and maximum over this generation of the job."""
        return {"mean": round(self._sum / self._count, 2) if self._count else 0.0, "max": self._most}


def _first(samples: Sequence[Sample]) -> Sample:
    """Returns the first of the last seconds."""
    return samples[max(0, len(samples) - WINDOW)]


def _row(name: str, sample: Sample, parts: tuple[str, ...]) -> str:
    means = [1e6 * sample[part] / sample["rounds"] for part in parts]
    cells = "".join(f"{mean:>18.1f}" for mean in means)
    return f"{name:<12}{int(sample['rounds']):>12,}{cells}{sum(means):>12.1f}"
