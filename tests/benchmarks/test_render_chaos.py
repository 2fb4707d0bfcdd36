"""The sections of the page of measurements on random faults."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "benchmarks"))

import render_chaos
from measure import summary
from write_measurements import spread

ROWS = ["0,light,async,2,2,0,1,0,1,0.93,0.99,8.1,1,30,2,1", "1,tensorflow,sync,2,1,1,2,1,1,0.95,1.0,40.0,0,0,1,0"]
COLUMNS = (
    "number,worker,strategy,workers,ps,tcp,actions,missed,holds,accuracy,goodput,seconds,rollbacks,undone,lost,partial"
)


def schedules(**more: Any) -> dict[str, Any]:
    calm = {"kind": "async", "mean": 0.93, "accuracy": summary([0.92, 0.94])}
    return {
        "seed": 7, "asked": 2, "schedules": 2, "hold": 2, "actions": {"kill": 2, "stop": 1},
        "goodput": summary([1, 0.99]),
        "undisturbed": [{**calm, "disturbed_mean": 0.931, "disturbed": summary([0.931])}, {**calm, "kind": "sync"}],
        "columns": COLUMNS, "rows": ROWS, **more,
    }  # fmt: skip


def test_schedules_tell_how_many_hold_and_with_which_workers() -> None:
    text = render_chaos.schedules_section(schedules(), spread)
    assert "2 random schedules, seed 7: **2 hold**. In 1 of them the model is NumPy's" in text
    assert "the other 1 have TensorFlow workers. What was done: 2 kill, 1 stop." in text
    assert "Rollbacks: 1; members lost: 3; partial updates in final models: 1" in text
    assert "| async | 2 | 0.9300 | 0.9300 (0.9200 to 0.9400) | 1 | 0.9310 | 0.9310 (0.9310 to 0.9310) |" in text
    assert "| sync | 2 | 0.9300 | 0.9300 (0.9200 to 0.9400) | 0 |  |  |" in text


def test_a_run_that_was_ended_early_says_so() -> None:
    assert "2 random schedules of 200 that were asked for" in render_chaos.schedules_section(
        schedules(asked=200), spread
    )


def test_the_soak_tells_what_is_left_of_its_speed_and_its_memory() -> None:
    soak = {
        "throughput": 300.0, "actions": 59, "rollbacks": 20, "lost": 30, "batches": 540000, "undone": 9000,
        "memory_mb": {"ps": {"first": 40.0, "last": 41.0, "max": 44.0}},
    }  # fmt: skip
    text = render_chaos.soak_section(
        {"minutes": 30, "every": 30, "mix": {"kill": 5}, "commit_seconds": 10, "soak": soak, "share": 0.87,
         "undisturbed": {"throughput": 345.0}}
    )  # fmt: skip
    assert "undisturbed 345: **87%**. 59 faults" in text
    assert "| ps | 40.0 | 41.0 | 44.0 |" in text


def test_recovery() -> None:
    times = {"back_seconds": summary([1.5]), "start_seconds": summary([1.0]), "more_seconds": summary([0.5])}
    times["load_seconds"] = summary([0.002])
    result = {"repeats": 1, "worker": times, "ps_0": times, "ps_1": times}
    assert "| The rest: until its death is noticed and it is started | 0.50 (0.50 to 0.50) |" in (
        render_chaos.recovery_section(result, spread)
    )
