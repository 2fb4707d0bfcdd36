"""`tfleet join`: start a worker by hand, on this machine or another one than the job's."""

from __future__ import annotations

import os
import signal
from typing import Annotated

import typer

from tfleet.cli.output import print_line

LEAVING = (signal.SIGTERM, signal.SIGINT)
"""Signals by which a worker leaves."""


def command(app: typer.Typer, name: str, summary: str) -> None:
    """Adds the command to `app`."""
    text = (
        f"{summary}\n\nCtrl-C or SIGTERM: it finishes its batch and leaves, the job goes on."
        "\n\nExample: tfleet join 10.0.0.5:7000 --token-file token"
    )
    app.command(name, help=text)(_join)


def _join(
    target: Annotated[
        str,
        typer.Argument(
            metavar="HOST:PORT",
            help="Address of ps 0, as 'tfleet status' of the job tells it; also unix:@name, or a run directory.",
        ),
    ],
    token_file: Annotated[
        str,
        typer.Option(
            "--token-file",
            metavar="FILE",
            help="File with the job's token, readable by you only. Default: TFLEET_TOKEN_FILE, or the token itself in "
            "TFLEET_TOKEN, or that of the run directory.",
            show_default=False,
        ),
    ] = "",
    run_dir: Annotated[
        str,
        typer.Option(
            "--run-dir",
            metavar="DIR",
            help="Where this machine sees the job's run directory. Default: under the same path.",
            show_default=False,
        ),
    ] = "",
) -> None:
    from tfleet.backends.joining import find_seat

    signal.signal(signal.SIGTERM, signal.default_int_handler)  # also 130 before it is a worker
    seat = find_seat(target, token_file, run_dir, os.environ, print_line)
    command = seat.command()
    # Not a child: signals meant for the worker reach it, once it listens, and its exit code is this command's.
    signal.pthread_sigmask(signal.SIG_BLOCK, LEAVING)
    os.execve(command[0], command, seat.environment(os.environ))
