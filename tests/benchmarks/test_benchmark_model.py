from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"
sys.path.insert(0, str(BENCHMARKS))

import emulated  # noqa: E402
import measure  # noqa: E402
import model  # noqa: E402
import write_measurements  # noqa: E402

TRUE = model.Cost(push=50e-6, push_byte=0.6e-9, work=60e-6, work_ps=10e-6, work_byte=0.3e-9, wait=100e-6)


def rows(cost: model.Cost, noise: float = 0.0) -> list[dict]:
    random = np.random.default_rng(0)
    found = []
    for point in emulated.growth():
        size = 4 * point.parameters
        factor = 1 + noise * random.standard_normal(3)
        seconds = cost.step_seconds(size, point.workers, point.ps, 0.0, cores=2)
        found.append(
            {
                **vars(point),
                "steps_per_second": factor[0] / seconds,
                "ps_cpu_us": factor[1] * 1e6 * point.ps * cost.ps_seconds(size, point.ps),
                "worker_cpu_us": factor[2] * 1e6 * cost.worker_seconds(size, point.ps),
                "ps_private_mb": 30.0,
                "goal_mb": emulated.memory_goal(point),
            }
        )
    return found


def test_the_fit_finds_the_coefficients_that_made_the_points():
    found = model.fit(rows(TRUE), cores=2)
    for name, value in vars(TRUE).items():
        assert getattr(found, name) == pytest.approx(value, rel=0.05), name


def test_the_fit_predicts_points_that_it_has_not_seen_in_spite_of_noise():
    used, kept = model.split(rows(TRUE, noise=0.03))
    assert len(kept) >= 10
    assert not [row for row in kept if row in used]
    assert max(map(abs, model.errors(model.fit(used, 2), kept, 2))) < 0.15


def test_no_coefficient_is_below_zero():
    found = model.least_squares([[1, 1, 1], [1, 2, 3]], [3.0, 2.0, 1.0])
    assert min(found) == 0
    assert max(found) > 0


def test_relative_errors_count_alike_for_small_and_large_points():
    first, second = model.least_squares([[1, 1], [1, 1000]], [2.0, 1001.0])
    assert (first, second) == pytest.approx((1.0, 1.0))


def test_the_narrowest_place_decides():
    cost = model.Cost(push=1e-3, push_byte=0, work=0, work_ps=0, work_byte=0)
    assert cost.step_seconds(1e6, 1, 1, gradient=0.1) == pytest.approx(0.101)
    assert cost.step_seconds(1e6, 1000, 1, gradient=0.1) == pytest.approx(1e-3)
    assert cost.step_seconds(1e6, 1000, 1, gradient=0.1, bandwidth=1e8) == pytest.approx(1e-2)
    assert cost.step_seconds(1e6, 1000, 2, gradient=0.1, cores=1) == pytest.approx(2e-3)


def test_predictions_gain_from_faster_networks_and_never_exceed_the_ideal():
    for row in model.predictions(TRUE):
        shares = [row[f"gbit_{network}"]["share"] for network in model.NETWORKS]
        assert shares == sorted(shares)
        assert 0 < shares[-1] < 1


def test_a_ps_may_have_60_mb_parameters_slots_and_four_buffers():
    assert emulated.memory_goal(emulated.Point("local", 2048, 64, 2)) == pytest.approx(60 + 4 * 1024 * 7 / 1e6)


def test_an_emulated_worker_needs_no_tensorflow():
    question = "import emulated, sys; print(sorted({'tensorflow', 'keras'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", question], cwd=BENCHMARKS, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_pages_show_the_growth_and_the_model(tmp_path):
    measured = {
        "repeats": 1,
        "share": [{**vars(point), "share": measure.summary([0.96])} for point in emulated.SHARE],
        "growth": rows(TRUE),
    }
    measure.write_result("emulated", ["a"], {"kind": "emulated", **measured}, folder=tmp_path)
    text = tmp_path / "page.md"
    text.write_text(f"by hand\n{write_measurements.BEGIN}old\n{write_measurements.END}the end\n")
    assert "Nothing was measured yet" in write_measurements.performance(tmp_path, text)
    measure.write_result("model", ["b"], {"kind": "model", **model.evaluate(measured, cores=2)}, folder=tmp_path)
    page = write_measurements.performance(tmp_path, text)
    assert page.startswith("by hand\n")
    assert page.endswith("the end\n")
    assert "old" not in page
    assert "| 80,000 | 20 | 1000 | 125 |" in page
    assert "| 128 | 2 | 80,000 | 20 | 96.0% (96.0% to 96.0%) |" in write_measurements.page(tmp_path)
