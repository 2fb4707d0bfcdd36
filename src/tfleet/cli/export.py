"""`tfleet export`: a run's model as a SavedModel and a Keras file."""

from __future__ import annotations

import typer

from tfleet.api.follow import shown
from tfleet.cli.output import CommitOption, Format, FormatOption, RunArgument, integer, print_json, print_line
from tfleet.spec.rundir import RunDir


def command(app: typer.Typer, name: str, summary: str) -> None:
    """Adds the command to `app`."""
    app.command(name, help=summary)(_export)


def _export(run: RunArgument, commit: CommitOption = "-1", output: FormatOption = Format.TEXT) -> None:
    from tfleet.cli import offline

    folder, number = RunDir.existing(run), integer(commit, "--commit", -1)
    path = offline.load().export_run(folder, number)
    if output is Format.JSON:
        print_json({"run_dir": str(folder.path), "export": str(path)})
    else:
        print_line(f"exported to {shown(path)}")
