"""`tfleet stop`: end a job early."""

from __future__ import annotations

import contextlib
from typing import Annotated

import typer

from tfleet.api.follow import Interrupts, follow
from tfleet.api.places import place_of
from tfleet.api.progress import Printer
from tfleet.cli.output import Format, FormatOption, RunArgument, print_json, print_line, tell


def command(app: typer.Typer, name: str, summary: str) -> None:
    """Adds the command to `app`."""
    app.command(name, help=summary)(_stop)


def _stop(
    run: RunArgument,
    wait: Annotated[bool, typer.Option("--wait/--no-wait", help="Wait until the job has ended.")] = True,
    output: FormatOption = Format.TEXT,
) -> None:
    from tfleet.api.handles import open_job
    from tfleet.cli.summary import print_end

    with contextlib.closing(open_job(run)) as job:
        place = place_of(job)
        job.end("stop", "stopped by 'tfleet stop'")
        if wait:
            # Ctrl-C ends the waiting only: no signal is caught here.
            printer = Printer(tell if output is Format.JSON else print_line)
            print_end(place, follow(job, printer, Interrupts()), output)
        elif output is Format.JSON:
            print_json({**place.identity(), **job.status()})
        else:
            print_line(f"asked the job in {place.name} to end; it commits, evaluates and exports")
