from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"
sys.path.insert(0, str(BENCHMARKS))

import contestants  # noqa: E402
import measure  # noqa: E402
import steps  # noqa: E402
import tuning  # noqa: E402
import write_measurements  # noqa: E402


def test_rate_counts_from_the_first_sample_after_the_warmup_to_the_last():
    samples = [(100.0, 0), (109.0, 50), (110.0, 100), (111.0, 400), (112.0, 500)]
    assert measure.rate(samples, warmup=60) == pytest.approx((500 - 100) / (112.0 - 110.0))


def test_rate_takes_samples_of_several_workers_in_any_order_and_the_earliest_of_a_step():
    samples = [(13.0, 300), (10.0, 100), (12.0, 300), (11.0, 200)]
    assert measure.rate(samples, warmup=0) == pytest.approx(200 / 2.0)


@pytest.mark.parametrize("samples", [[], [(1.0, 5)], [(1.0, 5), (9.0, 5)], [(1.0, 5), (2.0, 7)]])
def test_rate_refuses_too_few_samples(samples):
    with pytest.raises(ValueError, match="run more steps"):
        measure.rate(samples, warmup=7 if len(samples) == 2 else 0)


def test_rate_refuses_a_mere_burst():
    with pytest.raises(ValueError, match=r"took only 0\.01 s"):
        measure.rate([(1.0, 600), (1.01, 630)], warmup=500)


def test_deploy_log_is_read_as_it_is_specified():
    text = (
        "1700000000.123456: Worker 1: training step 40 done (global step: 75)\n"
        "1700000001: Worker 0: training step 41 done (global step: 80)\n"
        "Training elapsed time: 12.345678 s\n"
    )
    assert measure.deploy_log_samples(text) == [(1700000000.123456, 75), (1700000001.0, 80)]
    assert measure.deploy_log_elapsed(text) == 12.345678


def test_a_deploy_log_without_its_last_line_is_refused():
    with pytest.raises(ValueError, match="Training elapsed time"):
        measure.deploy_log_elapsed("1: Worker 0: training step 1 done (global step: 1)\n")


def test_summary_has_median_and_range_and_every_value():
    assert measure.summary([3.0, 1.0, 10.0]) == {"median": 3.0, "min": 1.0, "max": 10.0, "values": [3.0, 1.0, 10.0]}


def test_a_result_names_the_machine_by_cores_and_memory_only(tmp_path):
    path = measure.write_result("x", ["benchmarks/x.py"], {"kind": "figures", "figures": {}}, folder=tmp_path)
    values = json.loads(path.read_text())
    assert set(values["machine"]) == {"cores", "memory_gib"}
    assert str(Path.home()) not in path.read_text()


def test_children_get_no_proxies(monkeypatch):
    monkeypatch.setenv("http_proxy", "http://proxy.invalid:1")
    monkeypatch.setenv("HTTPS_PROXY", "http://proxy.invalid:1")
    assert not [name for name in measure.child_environment() if name.lower().endswith("_proxy")]


def test_the_fastest_variant_of_the_tuning_takes_part(tmp_path):
    rows = [
        {"input": "feed", "static_graph": "no", "steps_per_second": {"median": 250.0}},
        {"input": "tfdata", "static_graph": "yes", "steps_per_second": {"median": 300.0}},
    ]
    (tmp_path / "peer_100_tuning.json").write_text(json.dumps({"variants": rows}))
    assert tuning.best_variant("peer_100_tuning", tmp_path) == ["--input=tfdata", "--static-graph=yes"]
    assert tuning.best_variant("peer_1000_tuning", tmp_path) == []


@pytest.mark.parametrize(
    "python", ["/nowhere/python", sys.executable], ids=["no such python", "a python that has no torch"]
)
def test_a_peer_that_is_not_here_is_named_with_the_reason(monkeypatch, tmp_path, python):
    monkeypatch.setenv(contestants.TORCH, python)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    (tmp_path / "torch.py").write_text("raise ImportError('not here')")
    options = argparse.Namespace(hidden_units=100, scale=1.0, without=["keras"])
    field, missing = steps.contestants(tmp_path / "digits.npz", options)
    reasons = {row["name"]: row["why"] for row in missing}
    assert "make bench-torch" in reasons["PyTorch DDP"]
    assert reasons["keras fit, 10 steps a call"] == "left out by --without"
    assert len(field) + len(missing) == 9
    assert {c.name for c in field}.isdisjoint(reasons)


def contestant(name: str, batches: int = 1) -> contestants.Contestant:
    return contestants.Contestant(name, dict, batches, f"run {name}")


def results(**speeds: float) -> dict[str, dict[str, float]]:
    return {
        name.replace("_", " "): {"steps_per_second": speed, "whole_seconds": 10.0} for name, speed in speeds.items()
    }


def test_ratios_compare_batches_within_each_round():
    field = [contestant("tfleet async"), contestant("tfleet sync", batches=2), contestant("peer")]
    rounds = [
        results(tfleet_async=900, tfleet_sync=300, peer=300),
        results(tfleet_async=500, tfleet_sync=300, peer=100),
    ]
    figures = steps.compare(field, rounds)
    found = {(row["of"], row["to"]): row["ratio"]["values"] for row in figures["ratios"]}
    assert found == {("tfleet async", "peer"): [3.0, 5.0], ("tfleet sync", "peer"): [2.0, 6.0]}
    assert "tfleet sync / peer: 4.00 (2.00 to 6.00)" in steps.table(figures)


def test_every_round_begins_with_another_contestant():
    order: list[str] = []

    def runner(name):
        return contestants.Contestant(name, lambda: order.append(name) or {"steps_per_second": 1.0}, 1, "")

    field = [runner("a"), runner("b"), runner("c")]
    for number in range(2):
        steps.measure_round(field, number)
    assert order == ["a", "b", "c", "b", "c", "a"]


def test_the_page_shows_each_kind_of_result(tmp_path):
    field = [contestant("tfleet async"), contestant("peer")]
    figures = steps.compare(field, [results(tfleet_async=1200, peer=300)])
    settings = {"hidden_units": 100, "batch_size": 20, "workers": 2, "ps": 2}
    figures["missing"] = [{"name": "other peer", "why": "it is not here"}]
    measure.write_result("speed", ["a"], {"kind": "steps", "settings": settings, **figures}, folder=tmp_path)
    numbers = {
        "accuracy_sync": {"accuracy": measure.summary([0.93, 0.94, 0.95]), "date": "2030-01-02", "load_at_start": 0.1}
    }
    measure.write_result("other", ["b"], {"kind": "figures", "figures": numbers}, folder=tmp_path)
    variants = [{"input": "feed", "steps_per_second": measure.summary([250.0])}]
    about = {"kind": "tuning", "program": "the peer", "settings": {"hidden_units": 100}}
    measure.write_result("tuning", ["c"], {**about, "variants": variants}, folder=tmp_path)
    page = write_measurements.page(tmp_path)
    assert "| tfleet async | 1,200 (1,200 to 1,200) |" in page
    assert "| tfleet async | peer | 4.00 (4.00 to 4.00) |" in page
    assert "0.9400 (0.9300 to 0.9500) | 2030-01-02, load 0.1 |" in page
    assert "- other peer took no part: it is not here." in page
    assert "| feed | 250 (250 to 250) |" in page
    assert page.index("## Speed") < page.index("## Other figures") < page.index("was tuned")


def test_a_result_of_an_unknown_kind_is_not_left_out_silently(tmp_path):
    measure.write_result("x", ["x"], {"kind": "surprise"}, folder=tmp_path)
    with pytest.raises(ValueError, match="surprise"):
        write_measurements.page(tmp_path)
