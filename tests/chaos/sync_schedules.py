"""Schedules against sync in simulation: what happens to whom, when the job has come so far."""

from __future__ import annotations

import random
from dataclasses import dataclass

from simulated_fleet import die_ps

ACTS = ("kill the holder", "stop the holder", "wake", "join", "drain", "kill", "stop", "ps dies")
"""`the holder`: of the oldest batch of the present step."""


LONGEST_STOP = 8.0
"""Seconds after which whoever was stopped wakes by itself: some time after it was dropped."""


@dataclass(frozen=True)
class Act:
    """One entry: at a step, after so many of its batches, do what."""

    step: int
    batches: int
    what: str


def schedule(seed, steps, ps_dies=True):
    """Returns up to six acts in order."""
    rng = random.Random(seed)
    what = ACTS if ps_dies else ACTS[:-1]
    acts = [Act(rng.randrange(steps), rng.randrange(3), rng.choice(what)) for _ in range(rng.randrange(1, 7))]
    return sorted(acts, key=lambda act: (act.step, act.batches))


class Schedule:
    """Plays a schedule: `look` is called before anything that happens."""

    def __init__(self, acts):
        self.left = list(acts)
        self.done = []
        self._stopped = {}

    def look(self, fleet):
        for worker in [w for w, since in self._stopped.items() if fleet.loop.now() - since > LONGEST_STOP]:
            del self._stopped[worker]
            worker.stopped = False
        while self.left and self._due(fleet, self.left[0]):
            act = self.left.pop(0)
            if self._play(fleet, act.what):
                self.done.append(act.what)

    @staticmethod
    def _due(fleet, act):
        ledger = fleet.job.ledger
        return ledger is not None and (ledger.step, len(ledger._done)) >= (act.step, act.batches)

    def _play(self, fleet, what):
        living = [worker for worker in fleet.workers if not worker.ended]
        awake = [worker for worker in living if not worker.stopped]
        if what == "ps dies":
            die_ps(fleet)
        elif what == "wake":
            for worker in living:
                worker.stopped = False
        elif what == "join":
            fleet.start(max(worker.index for worker in fleet.workers) + 1)
        else:
            victims = self._holder(fleet, awake) if what.endswith("the holder") else awake
            if not victims:
                return False
            victim = fleet.random.choice(victims)
            if what.startswith("kill"):
                fleet.kill(victim)
                fleet.start(victim.index)
            elif what.startswith("stop"):
                victim.stopped = True
                self._stopped[victim] = fleet.loop.now()
            else:
                fleet.drain(victim)
                fleet.start(victim.index + 100)
        return True

    @staticmethod
    def _holder(fleet, workers):
        leases = fleet.job.ledger._leases
        oldest = min(leases, key=lambda batch: min(leases[batch].values()), default=None)
        return [worker for worker in workers if oldest is not None and worker.member in leases[oldest]]
