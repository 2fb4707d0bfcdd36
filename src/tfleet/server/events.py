"""What a ps did, event by event: opt-in, for tests that prove what the ledger promises, and for finding defects.

With the environment variable `TFLEET_EVENTS` set to a folder every ps appends to `ps-<index>.jsonl` there. A line is a
JSON array: kind, Unix time, and what the kind says:

| kind | of | then |
| --- | --- | --- |
| begin | every ps | generation, number of the commit that it goes on from (-1: none) |
| take | every ps | member, sequence, step, epoch, batch of a push that was not seen before |
| fence | every ps | member: nothing of it is taken from here on |
| hold | every ps | (a commit looks for its cut) |
| cut | every ps | number of the commit: what was taken before is in it, what comes later is not |
| part | every ps | number of the commit whose part is on disk |
| ack | ps 0 | member, sequence, epoch, batch, batches that count, global step after it |
| in | ps 0 | member, role, index of who has joined |
| out | ps 0 | member, role, index, state (done or lost) of who has left |

A line is one write of its own, so that a process killed at any moment leaves whole lines.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping
from pathlib import Path

from tfleet.spec.environment import EVENTS
from tfleet.spec.errors import WrongInput
from tfleet.strategies.rule import Rule, Vector
from tfleet.wire.frames import Push


class Events:
    """The events of one ps; by default nothing is written.

    Args:
        file: descriptor to append to, or None.
    """

    def __init__(self, file: int | None = None) -> None:
        self._file = file

    @classmethod
    def of(cls, environ: Mapping[str, str], index: int) -> Events:
        """Opens the file of ps `index` where the environment asks for events.

        Raises:
            WrongInput: when it cannot be opened.
        """
        folder = environ.get(EVENTS, "")
        if not folder:
            return cls()
        path = Path(folder) / f"ps-{index}.jsonl"
        try:
            return cls(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600))
        except OSError as error:
            raise WrongInput(
                f"{EVENTS} is {folder!r}, but {path} cannot be written: {error.strerror}; name a folder, or unset it"
            ) from None

    def add(self, kind: str, *values: int | str) -> None:
        """Writes one event; does nothing where nobody asked for events.

        Raises:
            OSError: when it cannot be written: a log with a hole would prove nothing.
        """
        if self._file is not None:
            line = json.dumps([kind, round(time.time(), 6), *values], separators=(",", ":"))
            os.write(self._file, line.encode() + b"\n")

    def watched(self, rule: Rule) -> Rule:
        """Returns the rule of a partition, whose pushes are events from now on."""
        return rule if self._file is None else _Watched(rule, self)


class _Watched(Rule):
    def __init__(self, rule: Rule, events: Events) -> None:
        self._rule = rule
        self._events = events

    def take(self, push: Push, gradient: Vector, state: Vector) -> None:
        """Tells of the push once it is taken."""
        self._rule.take(push, gradient, state)
        self._events.add("take", push.member, push.sequence, push.step, push.epoch, push.batch)

    def reach(self, step: int) -> None:
        """Is passed on."""
        self._rule.reach(step)
