"""How often something costly may be done within a share of the wall time."""

from __future__ import annotations

FIRST_COST = 0.15
"""Seconds that the first time is taken to cost, when TensorFlow starts up: with a share of 3 % it comes after 5 s."""

LONGEST_GAP = 300.0
"""Seconds after which details are due again, however long the job runs."""


class Budget:
    """Says when heavy summaries are due: a rule over times that are given, it reads no clock.

    Two rules hold together. All that was spent, with the next time (taken to cost what the last one did), stays
    within `share` of the time since `start`. And the gaps grow with the age of the job, to a tenth of it and at most
    `LONGEST_GAP`, so that a long job does not fill the disk.
    """

    def __init__(self, start: float, share: float = 0.03) -> None:
        """Begins to count.

        Args:
            start: when the job's steps began, in seconds of any clock; the same clock for all calls.
            share: the part of the wall time that may be spent, above 0.
        """
        self._start = start
        self._share = share
        self._cost = FIRST_COST
        self._total = 0.0
        self._last = start

    def may(self, now: float) -> bool:
        """Tells whether the next time fits in the budget at `now`; cheap enough for every step."""
        elapsed = now - self._start
        gap = min(LONGEST_GAP, 0.1 * elapsed)
        return self._total + self._cost <= self._share * elapsed and now - self._last >= gap

    def spent(self, begin: float, end: float) -> None:
        """Notes that it was done from `begin` to `end`."""
        self._cost = end - begin
        self._total += self._cost
        self._last = end
