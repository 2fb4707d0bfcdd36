"""The events that a ps tells when it is asked to."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from tfleet.server.events import Events
from tfleet.spec.environment import EVENTS, VARIABLES
from tfleet.spec.errors import WrongInput
from tfleet.strategies.rule import Rule, Vector
from tfleet.wire.frames import Push

PUSH = Push(1, 7, 3, 0.1, 20, 41, 0, 12, 1, 1, 0)
NOTHING = np.zeros(0, np.float32)


class Counting(Rule):
    def __init__(self) -> None:
        self.pushes = self.reached = 0

    def take(self, push: Push, gradient: Vector, state: Vector) -> None:
        self.pushes += 1

    def reach(self, step: int) -> None:
        self.reached = step


def test_nothing_is_written_unless_asked_for() -> None:
    events, rule = Events.of({}, 0), Counting()
    events.add("fence", 1)
    assert events.watched(rule) is rule


def test_each_event_is_a_line_and_a_second_process_appends(tmp_path: Path) -> None:
    for number in (1, 2):
        Events.of({EVENTS: str(tmp_path)}, 3).add("fence", number)
    lines = [json.loads(line) for line in (tmp_path / "ps-3.jsonl").read_text().splitlines()]
    assert [(kind, member) for kind, _, member in lines] == [("fence", 1), ("fence", 2)]


def test_a_watched_rule_does_the_same_and_tells_each_push(tmp_path: Path) -> None:
    rule = Counting()
    watched = Events.of({EVENTS: str(tmp_path)}, 0).watched(rule)
    watched.take(PUSH, NOTHING, NOTHING)
    watched.reach(5)
    assert (rule.pushes, rule.reached) == (1, 5)
    assert json.loads((tmp_path / "ps-0.jsonl").read_text())[2:] == [7, 3, 41, 0, 12]


def test_a_folder_that_is_not_there_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(WrongInput, match=f"{EVENTS} is .*cannot be written: No such file"):
        Events.of({EVENTS: str(tmp_path / "none")}, 0)


def test_launchers_hand_it_on() -> None:
    assert EVENTS not in VARIABLES
