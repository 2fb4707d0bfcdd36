"""Whatever dies: the kept schedules, and some that are made by chance from a seed, each with a real job.

The workers are real but for the model, which is NumPy's (`light_model`); `make chaos` has many more, some of them with
TensorFlow. Several jobs run at once: most of their time they sleep. Another seed: CHAOS_SEED=7 make test.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

import pytest
from chaos_job import can_mount
from chaos_schedule import Schedule, random_schedule
from chaos_shrink import kept
from chaos_verdict import Verdict, run_schedule

pytestmark = pytest.mark.processes

SEED = int(os.environ.get("CHAOS_SEED", "1"))
BY_CHANCE = 3
AT_ONCE = 4
CALM = "undisturbed"
BELOW = 0.02
"""How far a disturbed job's accuracy may be below the mean of undisturbed ones."""


def schedules() -> dict[str, Schedule]:
    """Returns the selection: all that are kept, then by chance."""
    chosen = {name: Schedule.from_json(json.loads(path.read_text())) for name, path in kept().items()}
    for number in range(BY_CHANCE):
        chosen[f"seed-{SEED}-number-{number}"] = random_schedule(SEED, number, disk=can_mount())
    return chosen


SCHEDULES = schedules()


@pytest.fixture(scope="module")
def played(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Verdict]:
    """Plays them all, several at once, from the first question on."""
    folder = tmp_path_factory.mktemp("chaos")
    with ThreadPoolExecutor(AT_ONCE) as pool:
        answers: dict[str, Future[Verdict]] = {
            name: pool.submit(run_schedule, schedule, folder / name)
            for name, schedule in {CALM: Schedule(), **SCHEDULES}.items()
        }

        def verdict(name: str) -> Verdict:
            return answers[name].result()

        yield verdict
        pool.shutdown(cancel_futures=True)


def test_what_must_hold_does_when_nothing_happens(played: Callable[[str], Verdict]) -> None:
    verdict = played(CALM)
    assert not verdict.faults
    assert verdict.goodput == 1.0
    assert verdict.accuracy > 0.88


@pytest.mark.parametrize("name", SCHEDULES)
def test_what_must_hold_does_whatever_happens(played: Callable[[str], Verdict], name: str) -> None:
    schedule = SCHEDULES[name]
    if not can_mount() and any(action.do == "fill disk" for action in schedule.actions):
        pytest.skip("a disk can be filled by root only")
    verdict = played(name)
    assert not verdict.faults, "\n".join([*verdict.faults, *verdict.done, schedule.dumps()])
    assert verdict.accuracy > played(CALM).accuracy - BELOW
