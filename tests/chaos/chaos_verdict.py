"""Whether what must hold of every schedule holds of one that was played."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import light_model
from chaos_events import ledger_faults, partial_updates, read_events, replay
from chaos_job import ChaosJob, Played
from chaos_schedule import BATCHES, Schedule

from tfleet.checkpoint.store import Store
from tfleet.spec.rundir import RunDir


@dataclass
class Verdict:
    """What came of one schedule.

    Attributes:
        schedule: as data.
        faults: sentences; empty: every property holds.
        accuracy: held-out, of the final model; -1: it did not come so far.
        goodput: batches that count in the end, of all that were taken.
        seconds: from the first start to the last end.
        steps_undone: batches that were acknowledged and rolled back.
        deaths: members that were lost, in all generations.
        partial_updates: that are in the final model.
        rollbacks: generations after the first.
        done: what was done when.
        missed: actions whose moment did not come.
    """

    schedule: dict[str, Any]
    faults: list[str] = field(default_factory=list)
    accuracy: float = -1.0
    goodput: float = 0.0
    seconds: float = 0.0
    steps_undone: int = 0
    deaths: int = 0
    partial_updates: int = 0
    rollbacks: int = 0
    done: list[str] = field(default_factory=list)
    missed: list[str] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        """Returns plain values."""
        return asdict(self)


def run_schedule(schedule: Schedule, folder: Path) -> Verdict:
    """Plays a schedule in a folder of its own, and judges it; blocks until the job is over, or hangs."""
    job = ChaosJob(schedule, folder)
    played = job.play()
    return judge(schedule, played, job.run, job.events)


def judge(schedule: Schedule, played: Played, run: RunDir, events: Path) -> Verdict:
    """Checks every property."""
    verdict = Verdict(schedule.to_json(), list(played.problems), seconds=round(played.seconds, 2))
    verdict.done, verdict.missed = played.done, played.missed
    if played.problems:
        return verdict
    _check_codes(played, verdict)
    status = run.status()
    if status.get("phase") != ("done" if schedule.job.epochs else "stopped") or not ends_well(played):
        verdict.faults.append(f"it is not done: phase {status.get('phase')}, reason {status.get('reason')!r}")
        return verdict
    _check_events(schedule, status, events, verdict)
    if schedule.job.worker == "light":
        _check_witnesses(int(status["step"]), run, verdict)
    verdict.accuracy = float(((status.get("evaluation") or {}).get("metrics") or {}).get("accuracy", -1.0))
    if verdict.accuracy < 0:
        verdict.faults.append("the final model was not evaluated")
    if "Traceback" in played.output:
        verdict.faults.append("the launcher shows a traceback")
    for log in sorted(run.logs.glob("*.log")):
        if "Traceback" in log.read_text(errors="replace"):
            verdict.faults.append(f"{log.name} shows a traceback")
    return verdict


def ends_well(played: Played) -> bool:
    """Whether the last start of the job ended with 0."""
    return bool(played.codes) and played.codes[-1] == 0


def _check_codes(played: Played, verdict: Verdict) -> None:
    for number, (code, expected) in enumerate(zip(played.codes, played.expected, strict=True)):
        # Whoever is interrupted in the last moment may have come to the end before.
        allowed = {expected} if expected >= 0 else {130, 0} if expected == -2 else {expected, 0}
        if code not in allowed:
            end = " ".join(played.output.strip().splitlines()[-1:])
            verdict.faults.append(f"start {number + 1} ended with {code} instead of {expected}: {end}")


def _check_events(schedule: Schedule, status: dict[str, Any], events: Path, verdict: Verdict) -> None:
    job = schedule.job
    try:
        first = replay(read_events(events, 0), "ack")
        takes = [replay(read_events(events, index), "take") for index in range(job.ps)]
    except ValueError as error:
        verdict.faults.append(str(error))
        return
    verdict.faults += ledger_faults(first.survived, job.epochs, BATCHES, int(status["ledger"]["returned"]))
    if int(status["step"]) != (len(first.survived) if job.aggregate == 1 else job.steps):
        verdict.faults.append(f"{len(first.survived)} batches survive, but the job has come to step {status['step']}")
    for index, told in enumerate(takes):
        if told.late:
            verdict.faults.append(f"ps {index} took {len(told.late)} pushes of members that were fenced")
    verdict.steps_undone, verdict.deaths, verdict.rollbacks = first.undone, first.lost, first.generations - 1
    taken = max(told.total for told in takes)
    verdict.goodput = round(len(first.survived) / max(1, taken), 4)
    if job.strategy == "sync":
        return
    partial = partial_updates(first.survived, [told.survived for told in takes])
    verdict.partial_updates = len(partial)
    counted = int(status["ledger"]["partial_updates"])
    if len(partial) > counted:
        verdict.faults.append(f"{len(partial)} partial updates are in the model, {counted} are counted: {partial}")
    if counted > first.lost:
        verdict.faults.append(f"{counted} partial updates are counted, but only {first.lost} members were lost")
    if job.ps == 1 and (partial or counted):
        verdict.faults.append(f"with one ps there are partial updates: {partial}, {counted} counted")


def _check_witnesses(wanted: int, run: RunDir, verdict: Verdict) -> None:
    """The parameters themselves tell how many updates each partition has had, and ps 0's state how many batches."""
    store = Store(run.checkpoints)
    manifest, _ = store.newest()
    assert manifest is not None
    updates = light_model.updates(store.read(manifest, 0, manifest.parameters)[0])
    state = round(float(store.read_state(manifest)[0][0]))
    allowed = verdict.partial_updates
    off = [count - wanted for count in (*updates, state)]
    if max(map(abs, off)) > allowed:
        verdict.faults.append(f"witnesses are off by {off}, while {allowed} partial updates are in the model")
