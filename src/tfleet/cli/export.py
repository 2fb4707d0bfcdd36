"""`tfleet export`: a run's model as a SavedModel and a Keras file."""

from __future__ import annotations

from typing import Any

import typer

from tfleet.cli.output import CommitOption, Format, FormatOption, RunArgument, integer, print_json, print_line


def command(app: typer.Typer, name: str, summary: str) -> None:
    """Adds the command to `app`."""
    app.command(name, help=summary)(_export)


def _export(run: RunArgument, commit: CommitOption = "-1", output: FormatOption = Format.TEXT) -> None:
    from tfleet.cli import offline

    number = integer(commit, "--commit", -1)

    def here(folder: Any) -> dict[str, Any]:
        return {"export": str(offline.load().export_run(folder, number))}

    place, result = offline.run(run, "export", number, here)
    if output is Format.JSON:
        print_json({**result, **place.identity()})
    else:
        print_line(f"exported to {place.inside(result['export'])}")
