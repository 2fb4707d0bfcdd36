"""`tfleet stop`: end a job early."""

from __future__ import annotations

from typing import Annotated

import typer

from tfleet.api.follow import Interrupts, follow, shown
from tfleet.api.progress import Printer
from tfleet.cli.output import Format, FormatOption, RunArgument, print_json, print_line, tell
from tfleet.spec.rundir import RunDir


def command(app: typer.Typer, name: str, summary: str) -> None:
    """Adds the command to `app`."""
    app.command(name, help=summary)(_stop)


def _stop(
    run: RunArgument,
    wait: Annotated[bool, typer.Option("--wait/--no-wait", help="Wait until the job has ended.")] = True,
    output: FormatOption = Format.TEXT,
) -> None:
    from tfleet.backends.local import open_job
    from tfleet.cli.summary import print_end

    folder = RunDir.existing(run)
    job = open_job(str(folder.path))
    job.end("stop", "stopped by 'tfleet stop'")
    if not wait:
        if output is Format.JSON:
            print_json({"run_dir": str(folder.path), **job.status()})
        else:
            print_line(f"asked the job in {shown(folder.path)} to end; it commits, evaluates and exports")
        return
    # Ctrl-C ends the waiting only: no signal is caught here.
    printer = Printer(tell if output is Format.JSON else print_line)
    print_end(folder, follow(job, printer, Interrupts()), output)
