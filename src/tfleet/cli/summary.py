"""What is printed when a job has ended well: the result, where it lies, and what to try next."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.text import Text

from tfleet.api.follow import Outcome
from tfleet.api.places import KubernetesPlace, Place
from tfleet.api.text import count, duration, metrics_line
from tfleet.cli.output import Format, print_json
from tfleet.spec.rundir import RunDir


def print_end(place: Place, outcome: Outcome, output: Format) -> None:
    """Prints how a job ended, as one JSON object or for people.

    Raises:
        TfleetError: when it did not end well; the message says why.
    """
    error = outcome.error(place)
    try:
        if output is Format.JSON:
            reason = {"reason": str(error)} if error else {}
            print_json({**place.identity(), **outcome.status, **reason, "exit_code": int(outcome.code)})
        elif error is None:
            print_summary(place, outcome.status)
    finally:
        # Also when nobody reads what is printed.
        if error:
            raise error


def print_summary(place: Place, status: Mapping[str, Any], console: Console | None = None) -> None:
    """Prints the end of a job.

    Args:
        place: where it is.
        status: its last status.
        console: where to print; by default stdout.
    """
    console = console or Console(highlight=False)
    console.print()
    print_pairs(console, results(place, status), "bold green" if status.get("phase") == "done" else "bold yellow")
    if next_commands := place.next_commands(status):
        console.print("\nTry next:")
        print_pairs(console, [(f"  {line}", what) for line, what in next_commands], "cyan")


def print_going_on(place: KubernetesPlace, console: Console | None = None) -> None:
    """Prints what to do with a job that goes on without this command."""
    console = console or Console(highlight=False)
    console.print(f"\nThe job goes on: {place.name}", markup=False)
    print_pairs(console, [(f"  {line}", what) for line, what in place.going_on()], "cyan")


def print_pairs(console: Console, pairs: Sequence[tuple[str, str]], style: str) -> None:
    """Prints (name, value) pairs in two columns; long values are not folded, so that paths can be copied."""
    width = max((len(name) for name, _ in pairs), default=0) + 3
    for name, value in pairs:
        console.print(Text(name.ljust(width), style=style).append(value, style="not bold default"), soft_wrap=True)


def results(place: Place, status: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Returns what a finished job achieved as (name, value) pairs."""
    step, elapsed = int(status.get("step", 0)), float(status.get("training_elapsed", 0.0))
    phase = str(status.get("phase", "done"))
    rows = [(phase, f"{count(step, 'step')}, {duration(elapsed)} of training")]
    if phase == "stopped" and status.get("reason"):
        rows.append(("reason", str(status["reason"])))
    if evaluation := status.get("evaluation"):
        rows.append(("held out", f"{metrics_line(evaluation['metrics'])} (step {evaluation['step']:,})"))
    if place.run:
        rows.append(("run", place.run))
    if place.run and (profile := RunDir.at(place.run).profile).is_file():
        rows.append(("profile", place.inside(profile.name)))
    if status.get("export"):
        rows.append(("export", place.inside(str(status["export"]))))
    return rows
