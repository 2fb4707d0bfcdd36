from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"
sys.path.insert(0, str(BENCHMARKS))

import limit  # noqa: E402
import measure  # noqa: E402
import processes  # noqa: E402
import whole  # noqa: E402
import write_measurements  # noqa: E402
from processes import Usage  # noqa: E402


def test_cpu_time_is_read_though_the_name_of_a_program_holds_anything():
    text = f"7 (a) b (c) S 1 {'0 ' * 9}250 50 0 0 20 0"
    assert processes.parse_stat(text) == pytest.approx((250 * processes.TICK, 50 * processes.TICK))


def test_context_switches_are_read():
    text = "Name:\tps\nvoluntary_ctxt_switches:\t12\nnonvoluntary_ctxt_switches:\t3\n"
    assert processes.parse_switches(text) == (12, 3)


def test_private_memory_leaves_out_what_is_shared():
    text = "Rss: 9000 kB\nShared_Clean: 500 kB\nPrivate_Clean: 1000 kB\nPrivate_Dirty: 2000 kB\nPrivate_Hugetlb: 0 kB\n"
    assert processes.parse_private(text) == pytest.approx(3000 * 1024 / 1e6)


def test_idle_counts_waiting_for_a_disk_and_busy_does_not_count_guests_twice():
    busy, idle = processes.parse_cpu("cpu  100 1 20 300 50 2 3 4 90 1\ncpu0 1 2 3\n")
    assert busy == pytest.approx(130 * processes.TICK)
    assert idle == pytest.approx(350 * processes.TICK)


def test_this_process_and_its_children_are_found():
    used = processes.usage(os.getpid())
    assert used.user > 0
    assert processes.private_mb(os.getpid()) > 1
    with subprocess.Popen(
        ["cat"], env={**os.environ, "POD_NAME": "ps-1"}, stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0
    ) as child:
        assert child.stdin
        assert child.stdout
        child.stdin.write(b"x")
        assert child.stdout.read(1) == b"x"  # now it surely has its environment
        assert processes.replicas_below(os.getpid()) == {"ps-1": child.pid}
        child.stdin.close()
    assert processes.children(child.pid) == []


def test_a_status_is_the_one_that_is_written_next(tmp_path):
    (tmp_path / "status.json").write_text(json.dumps({"step": 5, "updated": 1.5}))
    assert processes.moment(tmp_path) == {"step": 5, "updated": 1.5}


def moment_of(time: float, step: int, worker: float, ps: float, busy: float, idle: float) -> dict:
    roles = {"launcher": Usage(0, 0, 0, 0), "worker": Usage(worker, worker / 4, 10, 1), "ps": Usage(ps, 0, 20, 2)}
    return {"time": time, "step": step, "roles": roles, "busy": busy, "idle": idle}


def one_round(steps_per_second: float = 2000) -> dict:
    job = limit.between(
        moment_of(10, 500, worker=0, ps=0, busy=0, idle=0),
        moment_of(11, 500 + int(steps_per_second), worker=0.8, ps=0.4, busy=1.5, idle=0.5),
    )
    sync = {**job, "steps_per_second": 1000.0}
    return {"gradient": 300e-6, "update": 150e-6, "copies": 50e-6, "async": job, "sync": sync}


def test_the_share_of_the_limit_and_the_rest_add_up_to_all_cores():
    figures = limit.compare([one_round()], cores=2)
    assert figures["limit"]["median"] == pytest.approx(4000)
    assert figures["share"]["median"] == pytest.approx(0.5)
    assert figures["sync_overhead_ms"]["median"] == pytest.approx(0.7)
    rest = sum(values["median"] for values in figures["rest"].values())
    assert rest + 300 + 150 == pytest.approx(1e6 * 2 / 2000)
    assert figures["rest"]["other processes"]["median"] == pytest.approx(50)
    assert "which is 50%" in limit.table(figures)


def whole_round(ours: float, average: float, *fits: float) -> dict:
    names = ["keras fit", "keras fit, 10 steps a call"]
    return {
        whole.OURS: {"whole_seconds": ours, "first_step": 4.0},
        whole.AVERAGE: {"whole_seconds": average, "first_step": 4.0},
        **{name: {"whole_seconds": seconds} for name, seconds in zip(names, fits, strict=True)},
        "start": {"import_tensorflow": 2.5},
    }


def test_average_trains_as_many_batches_as_the_others():
    assert whole.rounds_for(20_000, 450) == 44 * 5 + 2  # 5 rounds an epoch, the last of them with 50 batches
    assert whole.rounds_for(1, 450) == 1


def test_whole_runs_are_compared_within_each_round_with_each_fit_and_with_the_best():
    commands = dict.fromkeys([whole.OURS, whole.AVERAGE, "keras fit", "keras fit, 10 steps a call"], "run it")
    figures = whole.compare(commands, [whole_round(10, 5, 30, 20), whole_round(8, 8, 16, 24)])
    found = {(row["of"], row["to"]): row["ratio"]["values"] for row in figures["ratios"]}
    assert found == {
        ("keras fit", whole.OURS): [3.0, 2.0],
        ("keras fit", whole.AVERAGE): [6.0, 2.0],
        ("keras fit, 10 steps a call", whole.OURS): [2.0, 3.0],
        ("keras fit, 10 steps a call", whole.AVERAGE): [4.0, 3.0],
        (whole.BEST, whole.OURS): [2.0, 2.0],
        (whole.BEST, whole.AVERAGE): [4.0, 2.0],
    }
    assert figures["start"]["first_step_more"]["median"] == pytest.approx(1.5)
    assert f"{whole.BEST} / tfleet train: 2.00" in whole.table(figures)


def test_the_page_shows_whole_runs_and_the_limit(tmp_path):
    settings = {"hidden_units": 100, "steps": 20000, "batch_size": 20, "workers": 2, "ps": 2}
    commands = dict.fromkeys([whole.OURS, whole.AVERAGE, "keras fit", "keras fit, 10 steps a call"], "run it")
    compared = whole.compare(commands, [whole_round(10, 5, 30, 20)])
    measure.write_result("w", ["a"], {"kind": "whole", "settings": settings, **compared}, folder=tmp_path)
    limited = limit.compare([one_round()], cores=2)
    measure.write_result("l", ["b"], {"kind": "limit", "settings": settings, **limited}, folder=tmp_path)
    page = write_measurements.page(tmp_path)
    assert "| keras fit | 30.0 (30.0 to 30.0) | 3.00 (3.00 to 3.00) | 6.00 (6.00 to 6.00) |" in page
    assert f"| {whole.BEST} | | 2.00 (2.00 to 2.00) | 4.00 (4.00 to 4.00) |" in page
    assert "| share of the limit | 50% (50% to 50%) |" in page
    assert "| context switches of the ps | 0.0" in page
