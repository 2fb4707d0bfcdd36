"""`tfleet launch`: any TensorFlow script under the environment of ps and workers."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from tfleet.api.request import TIME_PLACEHOLDER, new_folder
from tfleet.api.run import stamp
from tfleet.cli.output import Format, FormatOption, integer, print_json, print_line, tell


def command(app: typer.Typer, name: str, summary: str) -> None:
    """Adds the command to `app`."""
    text = (
        f"{summary}\n\nEach process gets JOB_NAME, POD_NAME, PS_HOSTS, WORKER_HOSTS and TF_CONFIG. The script's "
        "options stand after '--'.\n\nExample: tfleet launch --workers 2 --ps 2 -- python script.py --steps 100"
    )
    app.command(name, help=text, context_settings={"allow_interspersed_args": False})(_launch)


def _launch(
    script: Annotated[list[str], typer.Argument(metavar="-- COMMAND", help="Program and arguments.")],
    workers: Annotated[str, typer.Option("--workers", metavar="N", help="Number of workers.")] = "2",
    ps: Annotated[str, typer.Option("--ps", metavar="N", help="Number of parameter servers; 0: none.")] = "2",
    chief: Annotated[
        bool, typer.Option("--chief", help="One chief more, for scripts of TF2's ParameterServerStrategy.")
    ] = False,
    run_dir: Annotated[
        str, typer.Option("--run-dir", metavar="DIR", help="Default: a new folder below runs/.", show_default=False)
    ] = "",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print what would be started; start nothing.")] = False,
    output: FormatOption = Format.TEXT,
) -> int:
    from tfleet.backends.launch import plan_launch, run

    folder = Path(run_dir) if run_dir else new_folder("launch", TIME_PLACEHOLDER if dry_run else stamp())
    plan = plan_launch(script, integer(workers, "--workers", 1), integer(ps, "--ps", 0), chief, folder)
    if dry_run:
        if output is Format.JSON:
            print_json(plan.to_json())
        else:
            sys.stdout.write(plan.text())
        return 0
    code = run(plan, tell if output is Format.JSON else print_line, lambda sentence: tell(f"tfleet: {sentence}"))
    if output is Format.JSON:
        print_json({"run_dir": str(plan.run_dir), "exit_code": code})
    return code
