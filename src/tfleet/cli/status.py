"""`tfleet status`: what a job is doing, or how it ended."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Mapping
from typing import Annotated, Any

import typer

from tfleet.api.follow import INTERVAL
from tfleet.api.places import Place, place_of
from tfleet.api.progress import ENDED, Printer, epoch_now, measures
from tfleet.api.text import count, duration, metrics_line, rate
from tfleet.backends.base import Job
from tfleet.cli.output import Format, FormatOption, RunArgument, print_json, print_line
from tfleet.spec.rundir import utc

RARE = {
    "leased": "leased",
    "returned": "returned",
    "duplicates": "duplicate",
    "partial_updates": "partially applied",
    "lead": "ahead of the slowest at most",
}
"""Counts of the ledger that are told when they are not 0, and how."""

COUNTS = {
    "given_back": "given back by those who left",
    "late_pushes": "refused as too late",
    "failed_commits": "commits that could not be made",
}
"""Other counts, likewise."""

FENCED = 5
"""Lost members that are told of."""

ALL_MEMBERS = 40
"""Members shown one by one."""


def command(app: typer.Typer, name: str, summary: str) -> None:
    """Adds the command to `app`."""
    app.command(name, help=summary)(_status)


def _status(
    run: RunArgument,
    follow: Annotated[
        bool, typer.Option("--follow", help="Go on until the job has ended; Ctrl-C leaves it alone.")
    ] = False,
    output: FormatOption = Format.TEXT,
) -> None:
    from tfleet.api.handles import open_job

    with contextlib.closing(open_job(run)) as job:
        if follow:
            _watch(job, output)
        alive = job.poll() is None
        status = job.status()
        place = place_of(job)
    if output is Format.JSON:
        values = {**place.identity(), "alive": alive, **status}
        print_line(json.dumps(values)) if follow else print_json(values)
    else:
        _print(place, status, alive)


def _watch(job: Job, output: Format) -> None:
    """Prints what happens, as lines for people or each new status as one line of JSON, until the job has ended."""
    printer, told = Printer(print_line), 0.0
    while job.poll() is None:
        status = job.status()
        if output is Format.TEXT:
            printer.show(status, time.monotonic())
        elif status.get("updated", told) != told:
            told = status["updated"]
            print_line(json.dumps(status))
        time.sleep(INTERVAL)


def _print(place: Place, status: Mapping[str, Any], alive: bool) -> None:
    from rich.console import Console

    from tfleet.cli.members import members_table
    from tfleet.cli.summary import print_pairs

    console = Console(highlight=False)
    print_pairs(console, rows(place, status, alive, time.time()), "dim")
    if status.get("members"):
        console.print()
        console.print(members_table(status["members"], ALL_MEMBERS))


def rows(place: Place, status: Mapping[str, Any], alive: bool, now: float) -> list[tuple[str, str]]:
    """Returns what `tfleet status` tells people, as (name, value) pairs.

    Args:
        place: where it is.
        status: the last status; empty before the first.
        alive: whether a process of the job lives.
        now: unix time in seconds.
    """
    found = [("job", str(status.get("task", ""))), ("phase", _phase(status, alive))]
    if status.get("waiting"):
        found.append(("waiting", str(status["waiting"])))
    if status.get("reason"):
        found.append(("reason", str(status["reason"])))
    if "step" in status:
        found += _work(status)
    if status.get("evaluation"):
        evaluation = status["evaluation"]
        found.append(("held out", f"{metrics_line(evaluation['metrics'])} (step {evaluation['step']:,})"))
    if status.get("last_commit"):
        commit = status["last_commit"]
        ago = duration(now - float(commit["time"]))
        found.append(("commit", f"{commit['number']} at step {commit['step']:,}, {ago} ago"))
    if status.get("ledger"):
        found.append(("ledger", _ledger(status["ledger"], status.get("counts", {}))))
    found.append(("replicas", _replicas(status)))
    found.append(("fenced", _fenced(status)))
    found.append(("slowest", str((status.get("straggler") or {}).get("text", ""))))
    found.append(("run", place.run))
    if status.get("export"):
        found.append(("export", place.inside(str(status["export"]))))
    found += [("note", str(note)) for note in status.get("notes", [])]
    if not alive and status.get("phase") in ("failed", "interrupted"):
        found.append(("next", place.how_to_resume()))
    return [(name, value) for name, value in found if value]


def _phase(status: Mapping[str, Any], alive: bool) -> str:
    phase = str(status.get("phase", "starting"))
    if phase in ENDED or alive:
        return phase
    return f"not running any more: its last word was '{phase}'"


def _work(status: Mapping[str, Any]) -> list[tuple[str, str]]:
    step, steps = int(status["step"]), int(status.get("steps", 0))
    share = f" of {steps:,} ({100 * step // steps} %)" if steps else ""
    epoch = f", epoch {epoch_now(status)}" if status.get("phase") == "training" else ""
    speed = [f"{rate(status['steps_per_second'])} steps/s"] if status.get("steps_per_second") else []
    if status.get("training_elapsed"):
        speed.append(f"{duration(float(status['training_elapsed']))} so far")
    if status.get("seconds_left") is not None:
        speed.append(f"{duration(float(status['seconds_left']))} left")
    return [
        ("strategy", str(status.get("strategy", ""))),
        ("step", f"{step:,}{share}{epoch}"),
        ("speed", ", ".join(speed)),
        ("training", " · ".join(measures(status))),
    ]


def _replicas(status: Mapping[str, Any]) -> str:
    """Writes what is out of the ordinary: who is awaited, who was started again, and what was done again."""
    parts = [f"waits for ps {row['index']}" for row in status.get("ps", []) if row["state"] == "missing"]
    everybody = [*({**row, "role": "ps"} for row in status.get("ps", [])), *status.get("members", [])]
    again = [f"{m['role']} {m['index']} {m['restarts']}x" for m in everybody if m.get("restarts")]
    parts += [f"started again: {', '.join(again)}"] if again else []
    if status.get("rollbacks"):
        times = count(int(status["rollbacks"]), "time")
        undone = f"{count(int(status['steps_undone']), 'step')} done again"
        if status.get("goodput"):
            undone += f" (goodput {100 * float(status['goodput']):.1f} %)"
        parts.append(f"went back to a commit {times}, {undone}")
    return "; ".join(parts)


def _fenced(status: Mapping[str, Any]) -> str:
    """Writes who was lost last, and when: nothing is taken from them any more."""
    rows = status.get("fenced", [])
    last = ", ".join(f"{row['role']} {row['index']} at {utc(float(row['time']))}" for row in rows[-FENCED:])
    return f"{count(int(status['counts']['fenced']), 'member')}: {last}" if rows else ""


def _ledger(ledger: Mapping[str, Any], counts: Mapping[str, Any]) -> str:
    parts = [f"{ledger['acknowledged']:,} batches acknowledged"]
    for values, names in ((ledger, RARE), (counts, COUNTS)):
        parts += [f"{values[what]:,} {told}" for what, told in names.items() if values.get(what)]
    return ", ".join(parts)
