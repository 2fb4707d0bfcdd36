"""The live display of a job on a terminal: a bar, what is measured, and who takes part.

`panel` is a pure function of what is known; `Live` keeps that and redraws. Events are printed above the panel and stay.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.live import Live as RichLive
from rich.padding import Padding
from rich.progress_bar import ProgressBar
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

from tfleet.api.places import place_at, shown
from tfleet.api.progress import ENDED, Events, epoch_now
from tfleet.api.text import count, duration, metrics_line, number, rate
from tfleet.backends.base import Plan
from tfleet.cli.members import members_table
from tfleet.spec.job import UNTIL_STOPPED, JobSpec

SPARK = "▁▂▃▄▅▆▇█"
HISTORY = 32
"""Losses in the sparkline: one a redraw in which the step has changed."""

MEMBERS = 8
"""Members with a line of their own; of the rest the number is shown."""


def opening(plan: Plan) -> list[str]:
    """Returns the first lines of every job: what is trained, by whom, and where."""
    spec = plan.spec
    who = f"{count(spec.workers, 'worker')}, {count(spec.ps, 'ps')}"
    verb = "resuming" if plan.resume else "training"
    place = place_at(plan.handle, str(plan.run_dir))
    handle = place.identity().get("handle")
    return [
        f"{verb} {_task(spec)}: {spec.strategy}, {who}, {_length(spec)}",
        *([f"job: {handle}"] if handle else []),
        *([f"run directory: {place.run}"] if place.run else []),
    ]


def panel(status: Mapping[str, Any], elapsed: float, losses: Sequence[float]) -> RenderableType:
    """Draws a status.

    Args:
        status: the newest status; empty before the first.
        elapsed: seconds since the display was opened.
        losses: the latest training losses, oldest first.
    """
    phase = status.get("phase", "starting")
    parts: list[RenderableType] = []
    if phase == "starting":
        waiting = status.get("waiting")
        what = f"waiting: {waiting}" if waiting else "starting: the workers load TensorFlow and build the model"
        text = f"{what}   {duration(elapsed)}"
        spinner = Spinner("dots", Text(text, style="dim"))
        spinner.start_time = 0.0
        parts.append(spinner)
    else:
        parts += [_bar(status, phase), _measures(status, losses)]
    if status.get("members"):
        parts.append(members_table(status["members"], MEMBERS))
    if latest := _latest(status):
        parts.append(Text(latest, style="dim"))
    return Padding(Group(*parts), (0, 1))


class Live:
    """A display that redraws a panel at the bottom of the terminal."""

    def __init__(self, opening: Sequence[str], console: Console | None = None) -> None:
        """Opens the display below what is said first.

        Args:
            opening: lines on what is started or followed.
            console: where to draw; by default the terminal on stdout.
        """
        self._console = console or Console(highlight=False)
        for line in opening:
            self._console.print(line, markup=False)
        self._events = Events()
        self._losses: deque[float] = deque(maxlen=HISTORY)
        self._step = -1
        self._started: float | None = None
        self._live = RichLive(console=self._console, auto_refresh=False, transient=True)
        self._live.start()

    def show(self, status: Mapping[str, Any], now: float) -> None:
        """Prints what happened and redraws the panel."""
        self._started = now if self._started is None else self._started
        for line in self._events.lines(status):
            # The panel says that it is starting, and for how long.
            if not line.startswith("starting"):
                self.say(line)
        if status.get("step", 0) != self._step and status.get("loss") is not None:
            self._step = status["step"]
            self._losses.append(float(status["loss"]))
        shown_panel = "" if status.get("phase") in ENDED else panel(status, now - self._started, self._losses)
        self._live.update(shown_panel, refresh=True)

    def say(self, line: str) -> None:
        """Prints a line above the panel."""
        style = (
            "red" if "was lost" in line else "yellow" if line.startswith(("note:", "interrupted:", "waiting:")) else ""
        )
        self._console.print(Text("  " + line, style=style))

    def close(self) -> None:
        """Removes the panel."""
        self._live.stop()


def sparkline(values: Sequence[float]) -> str:
    """Draws values as blocks between their least and greatest; not finite ones as a gap."""
    finite = [v for v in values if abs(v) != float("inf") and v == v]
    if len(finite) < 2:
        return ""
    low, span = min(finite), (max(finite) - min(finite)) or 1.0
    return "".join(SPARK[int((v - low) / span * (len(SPARK) - 1))] if v in finite else " " for v in values)


def _task(spec: JobSpec) -> str:
    path, colon, name = spec.task.rpartition(":")
    return f"{shown(Path(path))}{colon}{name}" if path.endswith(".py") else spec.task


def _length(spec: JobSpec) -> str:
    if spec.strategy == "average":
        each = count(spec.local_steps, "local step") if spec.local_steps else "an epoch"
        return f"{count(spec.rounds, 'round')} of {each}"
    if spec.epochs:
        return count(spec.epochs, "epoch")
    if spec.steps == UNTIL_STOPPED:
        return "until stopped"
    return count(spec.steps, "step") if spec.steps > 0 else "as many steps as the task says"


def _bar(status: Mapping[str, Any], phase: str) -> Table:
    step, steps = int(status.get("step", 0)), int(status.get("steps", 0))
    row = Table.grid(padding=(0, 2, 0, 0))
    if not steps:
        row.add_row(Text(f"step {step:,}", style="bold"), Text("until stopped", style="dim"))
        return row
    left = status.get("seconds_left")
    after = "" if left is None else f"{duration(left)} left"
    row.add_row(
        ProgressBar(total=steps, completed=min(step, steps), width=36, complete_style="cyan", finished_style="green"),
        Text(f"{step:,} / {steps:,} steps", style="bold"),
        Text(f"{100 * min(step, steps) // steps} %"),
        Text("evaluating and exporting" if phase == "finalising" else after, style="cyan"),
    )
    return row


def _measures(status: Mapping[str, Any], losses: Sequence[float]) -> Text:
    text = Text()

    def add(name: str, value: str, spark: str = "") -> None:
        text.append(f"{name} ", style="dim").append(value, style="bold")
        text.append(f" {spark}" if spark else "", style="blue").append("   ")

    if status.get("steps_per_second"):
        add("steps/s", rate(status["steps_per_second"]))
    if status.get("loss") is not None:
        add("loss", number(status["loss"]), sparkline(losses))
    for name, value in sorted(status.get("metrics", {}).items()):
        if name != "loss":
            add(name, number(value))
    if status.get("phase") == "training":
        add("epoch", str(epoch_now(status)))
    add("time", duration(status.get("training_elapsed", status.get("elapsed", 0.0))))
    if status.get("bottleneck"):
        text.append(f"{status['bottleneck']}   ", style="yellow")
    if straggler := status.get("straggler"):
        text.append(str(straggler["text"]), style="yellow")
    return text


def _latest(status: Mapping[str, Any]) -> str:
    parts = []
    if commit := status.get("last_commit"):
        parts.append(f"commit {commit['number']} at step {commit['step']:,}")
    if evaluation := status.get("evaluation"):
        parts.append(f"held out at step {evaluation['step']:,}: {metrics_line(evaluation['metrics'])}")
    return "   ".join(parts)
