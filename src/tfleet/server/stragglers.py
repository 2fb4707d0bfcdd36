"""Which worker is slower than the others, how much, and what with: plain data, from what each beat tells."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any

from tfleet.server.profile import WINDOW, Sample

SLOW = 1.5
"""A worker is worth a word when its step takes so many times the median of the others' steps."""
STEPS = 3
"""Steps that are needed to judge a worker; where the last seconds have fewer, earlier ones count too."""
MOST = 0.5
"""Share of what it takes longer that is called most of it."""

_WHAT = {
    "data": "waiting for data",
    "gradient": "computing the gradient",
    "exchange": "in the exchange with the ps (network)",
}


@dataclass(frozen=True)
class Straggler:
    """The slowest worker.

    Attributes:
        worker: its index.
        ratio: its mean step over the median of the others' mean steps.
        part: data, gradient or exchange where that makes most of the difference, else empty.
        text: a sentence about it.
    """

    worker: int
    ratio: float
    part: str
    text: str

    def to_json(self) -> dict[str, Any]:
        """Returns plain values for the status."""
        return asdict(self)


def slowest(samples: Mapping[int, Sequence[Sample]], meet: bool) -> Straggler | None:
    """Returns the slowest of the workers, if it is much slower than the others.

    Args:
        samples: of each worker that is here, by index, oldest first.
        meet: whether the strategy has workers wait for each other. The fast ones then wait in the exchange, so that
            all steps are equally long: only data and gradient are compared.
    """
    parts = ("data", "gradient") if meet else tuple(_WHAT)
    means = {index: mean for index, kept in samples.items() if (mean := _means(kept, parts)) is not None}
    if len(means) < 2:
        return None
    worst = max(means, key=lambda index: sum(means[index].values()))
    others = [mean for index, mean in means.items() if index != worst]
    usual = median(sum(mean.values()) for mean in others)
    own = sum(means[worst].values())
    if not usual or own < SLOW * usual:
        return None
    more = {part: means[worst][part] - median(mean[part] for mean in others) for part in parts}
    part = max(more, key=lambda name: more[name])
    part = part if more[part] > MOST * sum(value for value in more.values() if value > 0) else ""
    why = f"most of it {_WHAT[part]}" if part else "in all its parts"
    ratio = own / usual
    return Straggler(worst, round(ratio, 2), part, f"worker {worst} is slowest: {ratio:.1f}x the median step, {why}")


def _means(samples: Sequence[Sample], parts: Iterable[str]) -> dict[str, float] | None:
    """Returns seconds a step of each part over the last samples; None where there are too few steps."""
    if not samples:
        return None
    last = samples[-1]
    for first in reversed(samples[: 1 - WINDOW] or samples[:1]):
        if (rounds := last["rounds"] - first["rounds"]) >= STEPS:
            return {part: (last[part] - first[part]) / rounds for part in parts}
    return None
