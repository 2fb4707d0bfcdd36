"""`tfleet scale`: more workers, or fewer, while the job trains."""

from __future__ import annotations

from typing import Annotated

import typer

from tfleet.api.follow import shown
from tfleet.api.text import count
from tfleet.cli.output import Format, FormatOption, RunArgument, print_json, print_line
from tfleet.spec.rundir import RunDir


def command(app: typer.Typer, name: str, summary: str) -> None:
    """Adds the command to `app`."""
    app.command(name, help=summary)(_scale)


def _scale(
    run: RunArgument,
    workers: Annotated[int, typer.Option("--workers", metavar="N", help="How many workers the job is to have.")],
    output: FormatOption = Format.TEXT,
) -> None:
    from tfleet.backends.local import open_job

    folder = RunDir.existing(run)
    open_job(str(folder.path)).scale(workers)
    if output is Format.JSON:
        print_json({"run_dir": str(folder.path), "workers": workers})
    else:
        where = shown(folder.path)
        print_line(f"the job in {where} goes on with {count(workers, 'worker')}; 'tfleet status {where}' shows them")
