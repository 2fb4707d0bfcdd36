"""The benchmark of the strategies: equal work for all, and the section that is made of its result."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"
sys.path.insert(0, str(BENCHMARKS))

import write_measurements  # noqa: E402
from render_strategies import strategies_section  # noqa: E402

import strategies  # noqa: E402
from tfleet.api.request import Request  # noqa: E402
from tfleet.server.plan import TrainingPlan  # noqa: E402
from tfleet.spec.layout import Layout, Variable  # noqa: E402

PLAN = TrainingPlan(Layout((Variable("w", (8,)),)), {}, 9000, 20, 20, 2000, True)


@pytest.mark.parametrize("entrant", strategies.FIELD, ids=lambda entrant: entrant.name)
def test_all_see_every_sample_as_often(entrant):
    arguments = entrant.arguments(3, 450)[1:]
    pairs = zip(arguments[::2], arguments[1::2], strict=True)
    given = {flag.removeprefix("--").replace("-", "_"): value for flag, value in pairs}
    del given["param"]
    spec = Request(task="mnist", given=given).spec()
    aggregate = PLAN.aggregate(spec, None)
    total = 3 * 450 // entrant.batches
    if entrant.strategy == "bounded":
        assert spec.epochs == 3
    else:
        assert PLAN.ledger(spec, aggregate).total == total


def test_the_section_has_a_row_for_each_and_the_commands():
    speeds = [{"accuracy": 0.95 + seed / 1000, "steps_per_second": 1000.0 + seed} for seed in range(3)]
    rounds = [{entrant.name: speed for entrant in strategies.FIELD} for speed in speeds]
    rows = strategies.compare(strategies.FIELD, rounds, 5, 450)
    settings = {"hidden_units": 100, "batch_size": 20, "workers": 2, "ps": 2, "epochs": 5, "speed_epochs": 40}
    settings["batches_in_epoch"] = 450
    text = strategies_section({"settings": settings, "seeds": 3, "strategies": rows}, write_measurements.spread)
    assert "| async | 0.9510 (0.9500 to 0.9520) | 1,001 (1,000 to 1,002) | 1,001 (1,000 to 1,002) |" in text
    assert "| sync | 0.9510 (0.9500 to 0.9520) | 1,001 (1,000 to 1,002) | 2,002 (2,000 to 2,004) |" in text
    for settings in ("--local-steps 1 --rounds 1125", "--local-steps 50 --rounds 25", "--local-steps 0 --rounds 5"):
        assert f"--strategy average --batch-size 20 --param hidden_units=100 {settings}`" in text
