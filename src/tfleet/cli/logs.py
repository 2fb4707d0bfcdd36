"""`tfleet logs`: the output of a job's replicas."""

from __future__ import annotations

import contextlib
import json
from typing import Annotated

import typer

from tfleet.cli.output import Format, RunArgument, print_line
from tfleet.spec.errors import WrongInput, nearest

ROLES = ("ps", "worker", "evaluator")


def command(app: typer.Typer, name: str, summary: str) -> None:
    """Adds the command to `app`."""
    app.command(name, help=f"{summary}\n\nExample: tfleet logs runs/mnist-20260131-235959 --follow worker 1")(_logs)


def _logs(
    run: RunArgument,
    role: Annotated[str, typer.Argument(metavar="ROLE", help="ps, worker or evaluator.", show_default=False)] = "",
    index: Annotated[str, typer.Argument(metavar="INDEX", help="Number of the replica.", show_default=False)] = "",
    follow: Annotated[bool, typer.Option("--follow", help="Go on until the job has ended.")] = False,
    output: Annotated[
        Format, typer.Option("-o", "--output", help="Lines as text for people or each as a JSON object.")
    ] = Format.TEXT,
) -> None:
    from tfleet.api.handles import open_job

    if role and role not in ROLES:
        raise WrongInput(f"unknown role '{role}'{nearest(role, ROLES)}; allowed: {', '.join(ROLES)}")
    if index and not index.isdecimal():
        raise WrongInput(f"the number of the replica is '{index}'; give 0 or more, as in 'tfleet logs RUN worker 1'")
    with contextlib.closing(open_job(run)) as job:
        for line in job.logs(role, int(index or -1), follow):
            if output is Format.JSON:
                replica, _, text = line.rstrip("\n").partition(" | ")
                print_line(json.dumps({"replica": replica, "line": text}))
            else:
                print_line(line.rstrip("\n"))
