"""`tfleet eval`: a run's model on the held-out data."""

from __future__ import annotations

import typer

from tfleet.api.text import metrics_line
from tfleet.cli.output import CommitOption, Format, FormatOption, RunArgument, integer, print_json, print_line
from tfleet.spec.rundir import RunDir


def command(app: typer.Typer, name: str, summary: str) -> None:
    """Adds the command to `app`."""
    app.command(name, help=summary)(_evaluate)


def _evaluate(run: RunArgument, commit: CommitOption = "-1", output: FormatOption = Format.TEXT) -> None:
    from tfleet.cli import offline

    folder, number = RunDir.existing(run), integer(commit, "--commit", -1)
    result = offline.load().evaluate_run(folder, number)
    if output is Format.JSON:
        print_json({"run_dir": str(folder.path), **result})
    else:
        print_line(f"commit {result['commit']}, step {result['step']:,}, held out: {metrics_line(result['metrics'])}")
