"""`tfleet attach`: follow a job that somebody else has started, until it ends."""

from __future__ import annotations

import contextlib
import sys
from dataclasses import replace

import typer

from tfleet.api.follow import Interrupts, follow
from tfleet.api.places import KubernetesPlace, Place, place_of
from tfleet.api.progress import Display, Printer
from tfleet.backends.base import Job
from tfleet.cli.output import Format, FormatOption, RunArgument, print_line, tell


def command(app: typer.Typer, name: str, summary: str) -> None:
    """Adds the command to `app`."""
    app.command(name, help=f"{summary}\n\nCtrl-C ends the following, not the job.")(_attach)


def _attach(run: RunArgument, output: FormatOption = Format.TEXT) -> None:
    from tfleet.api.handles import open_job
    from tfleet.cli.summary import print_end, print_going_on

    with contextlib.closing(open_job(run)) as job:
        place = place_of(job)
        interrupts = Interrupts()
        with interrupts.caught(), contextlib.closing(_display(job, place, output)) as display:
            outcome = follow(job, display, interrupts)
        if outcome.detached and isinstance(place, KubernetesPlace) and output is Format.TEXT:
            print_going_on(place)
        if outcome.detached:
            outcome = replace(outcome, status={**outcome.status, "detached": True})
        print_end(place, outcome, output)


def _display(job: Job, place: Place, output: Format) -> Display:
    following = f"following {job.status().get('task', 'the job')} in {place.name}; Ctrl-C leaves it running"
    opening = [following] if job.poll() is None else []
    if output is Format.TEXT and sys.stdout.isatty():
        from tfleet.cli.live import Live

        return Live(opening)
    printer = Printer(tell if output is Format.JSON else print_line)
    for line in opening:
        printer.say(line)
    return printer
