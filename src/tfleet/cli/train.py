"""`tfleet train`: start a job on this machine and follow it."""

from __future__ import annotations

import sys
from typing import Annotated, Any

import typer

from tfleet.api.names import Name
from tfleet.api.progress import Display, Printer
from tfleet.api.request import TIME_PLACEHOLDER, Request
from tfleet.api.run import local_backend, plan, stamp, start_and_follow, task_name
from tfleet.backends.base import Plan
from tfleet.cli.flags import job_flags, params_of
from tfleet.cli.output import Format, FormatOption, print_json, print_line, tell
from tfleet.spec.rundir import RunDir


def command(app: typer.Typer, name: str, summary: str) -> None:
    """Adds the command to `app`."""
    app.command(name, help=f"{summary}\n\nExample: tfleet train mnist --steps 2000 --param hidden_units=100")(
        job_flags(_train)
    )


def _train(
    given: dict[str, Any],
    task: Annotated[
        str,
        typer.Argument(metavar="TASK", help="mnist, module:object or path/to/file.py:object.", show_default=False),
    ] = "",
    file: Annotated[
        str, typer.Option("-f", "--file", metavar="JOB.YAML", help="Job file; flags override it.", show_default=False)
    ] = "",
    param: Annotated[
        list[str] | None,
        typer.Option("--param", metavar="NAME=VALUE", help="A parameter of the task; may be repeated."),
    ] = None,
    run_dir: Annotated[
        str,
        typer.Option("--run-dir", metavar="DIR", help="Default: a new folder below runs/.", show_default=False),
    ] = "",
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on from the newest commit in --run-dir; TASK may be left out.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print the resolved job and what would be started; start nothing.")
    ] = False,
    output: FormatOption = Format.TEXT,
) -> None:
    request = Request(
        task=task_name(task),
        given=given,
        params=params_of(param or []),
        file=file,
        run_dir=run_dir,
        resume=resume,
        spell=_flag,
    )
    backend = local_backend()
    job_plan = plan(request, backend, TIME_PLACEHOLDER if dry_run else stamp())
    if dry_run:
        _print_plan(job_plan, output)
        return
    from tfleet.cli.summary import print_end

    outcome = start_and_follow(job_plan, backend, lambda: _display(job_plan, output))
    print_end(RunDir.at(job_plan.run_dir), outcome, output)


def _flag(name: Name) -> str:
    return name.flag


def _print_plan(job_plan: Plan, output: Format) -> None:
    if output is Format.JSON:
        print_json(job_plan.to_json())
    else:
        sys.stdout.write(job_plan.text())


def _display(job_plan: Plan, output: Format) -> Display:
    from tfleet.cli.live import Live, opening

    if output is Format.TEXT and sys.stdout.isatty():
        return Live(job_plan)
    printer = Printer(tell if output is Format.JSON else print_line)
    for line in opening(job_plan):
        printer.say(line)
    return printer
