"""`tfleet join`: start a worker by hand, on this machine or another one than the job's."""

from __future__ import annotations

import os
import signal
from typing import Annotated, Any

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


def _file(what: str, variable: str) -> Any:
    text = f"{what}, a PEM file, where the job has TLS. Default: {variable}, or the file that the job names."
    return typer.Option(metavar="FILE", help=text, show_default=False)


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
    tls_cert: Annotated[str, _file("Certificate of this worker", "TFLEET_TLS_CERT")] = "",
    tls_key: Annotated[str, _file("Its private key", "TFLEET_TLS_KEY")] = "",
    tls_ca: Annotated[str, _file("The job's CA", "TFLEET_TLS_CA")] = "",
    tls_server_name: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            help="Name in the certificate of every ps. Default: TFLEET_TLS_SERVER_NAME, or what the job says.",
            show_default=False,
        ),
    ] = "",
) -> None:
    from tfleet.backends.joining import find_seat
    from tfleet.spec.environment import TLS_VARIABLES

    given = {"tls_cert": tls_cert, "tls_key": tls_key, "tls_ca": tls_ca, "tls_server_name": tls_server_name}
    environ = {**os.environ, **{TLS_VARIABLES[name]: value for name, value in given.items() if value}}

    signal.signal(signal.SIGTERM, signal.default_int_handler)  # also 130 before it is a worker
    seat = find_seat(target, token_file, run_dir, environ, print_line)
    command = seat.command()
    # Not a child: signals meant for the worker reach it, once it listens, and its exit code is this command's.
    signal.pthread_sigmask(signal.SIG_BLOCK, LEAVING)
    os.execve(command[0], command, seat.environment(environ))
