"""`tfleet tensorboard`: a run's summaries in the browser."""

from __future__ import annotations

import contextlib
from typing import Annotated

import typer

from tfleet.backends.kubernetes.handle import is_handle
from tfleet.cli.output import RunArgument, integer
from tfleet.spec.rundir import RunDir


def command(app: typer.Typer, name: str, summary: str) -> None:
    """Adds the command to `app`."""
    app.command(name, help=f"{summary} Ctrl-C ends it; a job that still trains is followed.")(_tensorboard)


def _tensorboard(
    run: RunArgument,
    port: Annotated[str, typer.Option("--port", metavar="PORT", help="0: any free one.")] = "6006",
    host: Annotated[str, typer.Option("--host", metavar="HOST", help="The address to listen on.")] = "127.0.0.1",
) -> int:
    number = integer(port, "--port", 0, 65535)
    if is_handle(run):
        from tfleet.backends.kubernetes.job import open_job
        from tfleet.cli.tensorboard_forward import forward_tensorboard

        with contextlib.closing(open_job(run)) as job:
            return forward_tensorboard(job, host, number)
    from tfleet.cli.tensorboard_server import run_tensorboard

    return run_tensorboard(RunDir.existing(run), host, number)
