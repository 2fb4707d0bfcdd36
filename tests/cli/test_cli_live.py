"""The live display, drawn from recorded statuses on a terminal of a fixed size."""

import io
from pathlib import Path

from fake_jobs import done, member, status
from rich.console import Console

from tfleet.backends.base import Plan
from tfleet.cli.live import Live, opening, panel, sparkline
from tfleet.cli.members import members_table
from tfleet.spec.job import JobSpec


def terminal(width=100):
    return Console(
        file=io.StringIO(), width=width, height=30, force_terminal=True, color_system=None, legacy_windows=False
    )


def drawn(renderable, width=100):
    console = terminal(width)
    console.print(renderable)
    return [line.rstrip() for line in console.file.getvalue().splitlines()]


def plan(**values):
    return Plan(JobSpec.parse({"task": "mnist", **values}), Path.cwd() / "runs/x", False, ())


def test_panel_of_a_job_in_training():
    commit = {"number": 1, "step": 1000, "time": 0.0}
    lines = drawn(panel(status("training", 1204, last_commit=commit), 12.0, [0.9, 0.5, 0.2311]))
    assert lines[0].endswith("1,204 / 2,000 steps  60 %  4.6 s left")
    assert lines[1] == " steps/s 172   loss 0.2311 █▃▁   accuracy 0.9312   epoch 2   time 8.0 s"
    assert lines[2] == " ● worker 0  working  602 steps  86.0/s"
    assert lines[4] == " commit 1 at step 1,000"


def test_panel_before_the_first_status():
    assert drawn(panel({}, 3.0, []))[0].endswith("starting: the workers load TensorFlow and build the model   3.0 s")


def test_panel_of_a_job_until_stopped_has_no_bar():
    assert drawn(panel(status("training", 70, steps=0, seconds_left=None), 1.0, []))[0] == " step 70  until stopped"


def test_panel_of_a_job_that_evaluates():
    assert drawn(panel(status("finalising", 2000), 1.0, []))[0].endswith("100 %  evaluating and exporting")


def test_panel_fits_a_narrow_terminal():
    assert max(len(line) for line in drawn(panel(status("training", 1204), 12.0, [0.5] * 32), 60)) <= 60


def test_lost_members_come_first_and_a_large_job_is_cut():
    members = [member("worker", i) for i in range(30)] + [member("ps", 0)]
    members[20] = member("worker", 20, "lost")
    lines = drawn(members_table(members, 8))
    assert lines[0].split()[:4] == ["●", "worker", "20", "lost"]
    assert len(lines) == 9
    assert lines[-1].split() == ["and", "23", "more", "29", "workers"]


def test_sparkline():
    assert sparkline([1.0, 0.5, 0.0]) == "█▄▁"
    assert sparkline([1.0, float("nan"), 0.0]) == "█ ▁"
    assert sparkline([1.0, float("inf"), 0.0, float("-inf")]) == "█ ▁ "
    assert sparkline([2.0, 2.0]) == "▁▁"
    assert sparkline([2.0]) == ""


def test_opening_says_what_is_trained_and_where():
    assert opening(plan(steps=2000)) == [
        "training mnist: async, 2 workers, 2 ps, 2,000 steps",
        "run directory: runs/x",
    ]
    assert opening(plan(epochs=1))[0].endswith("1 epoch")
    assert opening(plan(steps=0))[0].endswith("until stopped")
    assert opening(plan(steps=-1, strategy="average"))[0].endswith("1 round of an epoch")
    assert opening(plan(steps=-1, strategy="average", rounds=3, local_steps=50))[0].endswith(
        "3 rounds of 50 local steps"
    )
    assert opening(plan(task=f"{Path.cwd()}/a/flowers.py:task"))[0].startswith("training a/flowers.py:task: ")


def test_events_stay_above_the_panel_and_the_panel_goes():
    console = terminal()
    live = Live(opening(plan()), console)
    one, lost = member("worker", 0), member("worker", 1, "lost")
    for now, values in enumerate([{}, status("training", 1), status("training", 2, members=[one, lost]), done()]):
        live.show(values, float(now))
    live.close()
    console.print("the end")
    text = console.file.getvalue()
    assert "worker 1 was lost; what it held goes to the others" in text
    assert "held out at step 2,000: accuracy 0.9310 · loss 0.2412" in text
    assert text.endswith("the end\n")
