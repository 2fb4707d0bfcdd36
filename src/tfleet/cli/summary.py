"""What is printed when a job has ended well: the result, where it lies, and what to try next."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.text import Text

from tfleet.api.follow import Outcome, shown
from tfleet.api.text import count, duration, metrics_line
from tfleet.cli.output import Format, print_json
from tfleet.spec.rundir import RunDir


def print_end(run: RunDir, outcome: Outcome, output: Format) -> None:
    """Prints how a job ended, as one JSON object or for people.

    Raises:
        TfleetError: when it did not end well; the message says why.
    """
    error = outcome.error(run)
    try:
        if output is Format.JSON:
            reason = {"reason": str(error)} if error else {}
            print_json({"run_dir": str(run.path), **outcome.status, **reason, "exit_code": int(outcome.code)})
        elif error is None:
            print_summary(run, outcome.status)
    finally:
        # Also when nobody reads what is printed.
        if error:
            raise error


def print_summary(run: RunDir, status: Mapping[str, Any], console: Console | None = None) -> None:
    """Prints the end of a job.

    Args:
        run: its run directory.
        status: its last status.
        console: where to print; by default stdout.
    """
    console = console or Console(highlight=False)
    console.print()
    print_pairs(console, results(run, status), "bold green" if status.get("phase") == "done" else "bold yellow")
    console.print("\nTry next:")
    print_pairs(console, [(f"  {line}", what) for line, what in next_commands(run, status)], "cyan")


def print_pairs(console: Console, pairs: Sequence[tuple[str, str]], style: str) -> None:
    """Prints (name, value) pairs in two columns; long values are not folded, so that paths can be copied."""
    width = max((len(name) for name, _ in pairs), default=0) + 3
    for name, value in pairs:
        console.print(Text(name.ljust(width), style=style).append(value, style="not bold default"), soft_wrap=True)


def results(run: RunDir, status: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Returns what a finished job achieved as (name, value) pairs."""
    step, elapsed = int(status.get("step", 0)), float(status.get("training_elapsed", 0.0))
    phase = str(status.get("phase", "done"))
    rows = [(phase, f"{count(step, 'step')}, {duration(elapsed)} of training")]
    if phase == "stopped" and status.get("reason"):
        rows.append(("reason", str(status["reason"])))
    if evaluation := status.get("evaluation"):
        rows.append(("held out", f"{metrics_line(evaluation['metrics'])} (step {evaluation['step']:,})"))
    rows.append(("run", str(shown(run.path))))
    if status.get("export"):
        rows.append(("export", str(shown(run.path / status["export"]))))
    return rows


def next_commands(run: RunDir, status: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Returns the three commands to try after a job, each with what it does; none that its status lets fail."""
    folder = quoted(shown(run.path))
    again = (f"tfleet eval {folder}", "evaluate the model once more")
    return [
        (f"tfleet tensorboard {folder}", "curves, histograms, images"),
        again if status.get("evaluation") else (f"tfleet logs {folder}", "what each replica said"),
        (f"tfleet status {folder}", "members, ledger, commits"),
    ]


def quoted(path: Path) -> str:
    """Returns a path as it can be pasted into a shell."""
    import shlex

    return shlex.quote(str(path))
