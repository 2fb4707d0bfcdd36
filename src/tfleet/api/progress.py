"""What a job's statuses say, as lines worth reading once: a pure function of statuses and time.

The live display prints the events above its bar; where there is no terminal, thinned lines of progress come between
them. The schema of a status is in docs, run directory.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol

from tfleet.api.text import count, duration, metrics_line, number, rate

ENDED = ("done", "stopped", "failed", "interrupted")
"""Phases after which nothing changes any more."""

SHORTEST, LONGEST = 2.0, 30.0
"""Bounds in seconds of the time between two lines of progress; a twentieth of the time so far lies between them."""

WAITING = 10.0
"""Seconds between lines while a job waits for its workers."""


class Display(Protocol):
    """Shows a job's progress to a person."""

    def show(self, status: Mapping[str, Any], now: float) -> None:
        """Shows the newest status at time `now` in seconds of any clock that does not go back."""

    def say(self, line: str) -> None:
        """Shows a line that is not in a status."""

    def close(self) -> None:
        """Leaves the screen to what is printed next; nothing is shown afterwards."""


class Events:
    """Finds what happened between one status and the next: phases, members, evaluations, commits, notes."""

    def __init__(self) -> None:
        self._phase = ""
        self._members: dict[tuple[str, int], str] = {}
        self._evaluated: int | None = None
        self._committed = 0
        self._notes: set[str] = set()
        self._waiting = ""

    def lines(self, status: Mapping[str, Any]) -> list[str]:
        """Returns a line for each event since the last call, none for an empty status."""
        if not status:
            return []
        found = [*self._new_waiting(status), *self._new_notes(status)]
        found += [*self._new_members(status), *self._new_phase(status)]
        return found + self._new_commit(status) + self._new_evaluation(status)

    def _new_phase(self, status: Mapping[str, Any]) -> list[str]:
        phase, self._phase = self._phase, str(status.get("phase", ""))
        if phase == self._phase or self._phase in ENDED:
            return []
        if self._phase == "training":
            return [f"training with {count(len(working(status)), 'worker')}"]
        if self._phase == "starting" and status.get("rollbacks"):
            return ["everybody joins again, to go on from the last commit"]
        return {
            "starting": ["starting: the workers load TensorFlow and build the model"],
            "finalising": [f"step {status.get('step', 0):,} reached: evaluating and exporting"],
        }.get(self._phase, [])

    def _new_members(self, status: Mapping[str, Any]) -> list[str]:
        found = []
        for member in status.get("members", []):
            key = (str(member["role"]), int(member["index"]))
            state, before = str(member["state"]), self._members.get(key, "")
            self._members[key] = state
            name = f"{key[0]} {key[1]}"
            if state == "lost" and before != "lost":
                found.append(f"{name} was lost; what it held goes to the others")
            elif before == "lost" and state in ("joined", "working"):
                found.append(f"{name} is back")
            elif not before and self._phase == "training" and state in ("joined", "working"):
                found.append(f"{name} joined")
        return found

    def _new_evaluation(self, status: Mapping[str, Any]) -> list[str]:
        evaluation = status.get("evaluation")
        if not evaluation or evaluation["step"] == self._evaluated:
            return []
        self._evaluated = evaluation["step"]
        return [f"held out at step {self._evaluated:,}: {metrics_line(evaluation['metrics'])}"]

    def _new_commit(self, status: Mapping[str, Any]) -> list[str]:
        commit = status.get("last_commit")
        if not commit or commit["number"] <= self._committed:
            return []
        self._committed = int(commit["number"])
        return [f"commit {self._committed} at step {commit['step']:,}"]

    def _new_waiting(self, status: Mapping[str, Any]) -> list[str]:
        before, self._waiting = self._waiting, str(status.get("waiting", ""))
        return [f"waiting: {self._waiting}"] if self._waiting not in ("", before) else []

    def _new_notes(self, status: Mapping[str, Any]) -> list[str]:
        fresh = [note for note in status.get("notes", []) if note not in self._notes]
        self._notes.update(fresh)
        return [f"note: {note}" for note in fresh]


class Narrator:
    """Events and, between them, thinned lines of progress: what a log file or a notebook gets."""

    def __init__(self) -> None:
        self._events = Events()
        self._started: float | None = None
        self._told = 0.0
        self._step = -1
        self._phase: str | None = None

    def lines(self, status: Mapping[str, Any], now: float) -> list[str]:
        """Returns the lines to print for this status at time `now` in seconds; often none."""
        if self._started is None:
            self._started = self._told = now
        found = self._events.lines(status)
        if status.get("phase") != self._phase:
            self._told, self._phase = now, status.get("phase")
        if found:
            return found
        elapsed = now - self._started
        if status.get("phase", "starting") == "starting":
            if now - self._told < WAITING:
                return []
            self._told = now
            return [waiting_line(status, elapsed)]
        if status["phase"] != "training" or status.get("step", 0) == self._step:
            return []
        if now - self._told < min(LONGEST, max(SHORTEST, elapsed / 20)):
            return []
        self._told, self._step = now, int(status.get("step", 0))
        return [progress_line(status)]


class Printer:
    """A display of plain lines.

    A reader that goes away (`tfleet train ... | head`) must not end the job: the printer falls silent instead.
    """

    def __init__(self, write: Callable[[str], None]) -> None:
        """Prints with `write`, which gets lines without their newline."""
        self._write = write
        self._narrator = Narrator()
        self._silent = False

    def show(self, status: Mapping[str, Any], now: float) -> None:
        """Prints what is new."""
        for line in self._narrator.lines(status, now):
            self.say(line)

    def say(self, line: str) -> None:
        """Prints one line."""
        if self._silent:
            return
        try:
            self._write(line)
        except BrokenPipeError:
            self._silent = True

    def close(self) -> None:
        """Does nothing: every line is out already."""


def working(status: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Returns the workers that are there: neither lost nor done."""
    return [m for m in status.get("members", []) if m["role"] == "worker" and m["state"] in ("joined", "working")]


def progress_line(status: Mapping[str, Any]) -> str:
    """Writes one status as one line: step, speed, loss and metrics, epoch, time left, workers."""
    step, steps = int(status.get("step", 0)), int(status.get("steps", 0))
    share = f"/{steps:,} ({100 * step // steps} %)" if steps else ""
    speed = [f"{rate(status['steps_per_second'])} steps/s"] if status.get("steps_per_second") else []
    parts = [f"step {step:,}{share}", *speed, *measures(status), f"epoch {epoch_now(status)}"]
    if status.get("seconds_left") is not None:
        parts.append(f"{duration(status['seconds_left'])} left")
    parts.append(count(len(working(status)), "worker"))
    if status.get("bottleneck"):
        parts.append(str(status["bottleneck"]))
    return " · ".join(parts)


def waiting_line(status: Mapping[str, Any], elapsed: float) -> str:
    """Writes who has come so far, after `elapsed` seconds."""
    here = len(working(status))
    joined = f"{count(here, 'worker')} joined so far" if here else "no worker has joined yet"
    return f"still starting after {duration(elapsed)}: {joined}"


def epoch_now(status: Mapping[str, Any]) -> int:
    """Returns the number of the epoch that runs, counted from 1 as people do; a status counts the finished ones."""
    return int(status.get("epoch", 0)) + 1


def measures(status: Mapping[str, Any]) -> list[str]:
    """Writes the training loss and metrics, the loss first, each as its name and value."""
    loss = status.get("loss")
    first = [] if loss is None else [f"loss {number(loss)}"]
    return first + [f"{k} {number(v)}" for k, v in sorted(status.get("metrics", {}).items()) if k != "loss"]
