"""What a job remembers from one generation to the next, besides its commits."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from tfleet.spec.rundir import OVER


@dataclass(frozen=True)
class History:
    """What the last generation left, read from its last status: in the same ps 0, or in one that was started again.

    Attributes:
        started: Unix time of the start of the job; 0: it starts now.
        training_elapsed: seconds of training before this generation.
        step: where the last generation stood.
        notes: what the user was told.
        partial_updates: updates of lost workers that some partitions have and others have not.
        rollbacks: how often everybody went back to the last commit.
        undone: steps that were lost by that.
        ending: how the job was about to end (see `Ending.wish`), or empty.
        reason: why.
        workers_wanted: as last asked for by `tfleet scale`; 0: as the job says.
        counts: see `Coordinator`.
        fenced: likewise.
        workers_asked: how often it was asked.
    """

    started: float = 0.0
    training_elapsed: float = 0.0
    step: int = 0
    notes: tuple[str, ...] = ()
    partial_updates: int = 0
    rollbacks: int = 0
    undone: int = 0
    ending: str = ""
    reason: str = ""
    workers_wanted: int = 0
    counts: Mapping[str, int] = field(default_factory=dict)
    fenced: tuple[Mapping[str, Any], ...] = ()
    workers_asked: int = 0

    @classmethod
    def of(cls, status: Mapping[str, Any]) -> History:
        """Reads a status; an empty one, or that of a job which is over, is the beginning of a new history."""
        if not status or status["phase"] in OVER:
            return cls()
        return cls(
            started=float(status["started"]),
            training_elapsed=float(status["training_elapsed"]),
            step=int(status["step"]),
            notes=tuple(status["notes"]),
            partial_updates=int(status["ledger"]["partial_updates"]),
            rollbacks=int(status["rollbacks"]) + 1,
            undone=int(status["steps_undone"]),
            ending=str(status["ending"]),
            reason=str(status["ending_reason"]),
            workers_wanted=int(status["workers_wanted"]),
            counts={str(name): int(count) for name, count in status.get("counts", {}).items()},
            fenced=tuple(status.get("fenced", ())),
            workers_asked=int(status.get("workers_asked", 0)),
        )
