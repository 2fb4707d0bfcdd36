"""How the system schedules a replica."""

from __future__ import annotations

import contextlib
import os


def prefer_throughput() -> None:
    """Tells the system that this thread, and those that it starts later, compute rather than answer.

    Woken by a frame, such a process waits for its turn instead of interrupting one of its own job that computes. With
    more processes than cores that spares most switches between them, and the caches what they cost.
    """
    with contextlib.suppress(AttributeError, OSError):  # another system, or one that forbids it
        os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))
