"""`tfleet eval`: a run's model on the held-out data."""

from __future__ import annotations

from typing import Any

import typer

from tfleet.api.text import metrics_line
from tfleet.cli.output import CommitOption, Format, FormatOption, RunArgument, integer, print_json, print_line


def command(app: typer.Typer, name: str, summary: str) -> None:
    """Adds the command to `app`."""
    app.command(name, help=summary)(_evaluate)


def _evaluate(run: RunArgument, commit: CommitOption = "-1", output: FormatOption = Format.TEXT) -> None:
    from tfleet.cli import offline

    number = integer(commit, "--commit", -1)

    def here(folder: Any) -> dict[str, Any]:
        return dict(offline.load().evaluate_run(folder, number))

    place, result = offline.run(run, "eval", number, here)
    if output is Format.JSON:
        print_json({**result, **place.identity()})
    else:
        metrics = {name: float(value) for name, value in result["metrics"].items()}  # from a pod "nan" comes as text
        print_line(f"commit {result['commit']}, step {result['step']:,}, held out: {metrics_line(metrics)}")
