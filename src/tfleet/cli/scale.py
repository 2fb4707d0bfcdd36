"""`tfleet scale`: more workers, or fewer, while the job trains."""

from __future__ import annotations

import contextlib
from typing import Annotated

import typer

from tfleet.api.places import place_of
from tfleet.api.text import count
from tfleet.cli.output import Format, FormatOption, RunArgument, print_json, print_line


def command(app: typer.Typer, name: str, summary: str) -> None:
    """Adds the command to `app`."""
    app.command(name, help=summary)(_scale)


def _scale(
    run: RunArgument,
    workers: Annotated[int, typer.Option("--workers", metavar="N", help="How many workers the job is to have.")],
    output: FormatOption = Format.TEXT,
) -> None:
    from tfleet.api.handles import open_job

    with contextlib.closing(open_job(run)) as job:
        place = place_of(job)
        job.scale(workers)
    if output is Format.JSON:
        print_json({**place.identity(), "workers": workers})
    else:
        told = f"'tfleet status {place.name}' shows them"
        print_line(f"the job in {place.name} goes on with {count(workers, 'worker')}; {told}")
