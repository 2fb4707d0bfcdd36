"""`launch` with small commands: how each of them ends, and what is left."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tfleet.backends import launch as launch_module
from tfleet.backends.launch import Launch, loopback_without_proxy, plan_launch, run
from tfleet.spec.errors import WrongInput

pytestmark = pytest.mark.processes

SCRIPT = """
import os, signal, subprocess, sys, time
me = os.environ["JOB_NAME"] + "-" + os.environ["POD_NAME"].rpartition("-")[2]
acts = dict(a.split("=") for a in sys.argv[2:])
act = acts.get(me, acts.get(os.environ["JOB_NAME"], "hold"))
run = sys.argv[1]
if act == "stubborn":
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
if act == "child":
    open(f"{run}/child-{me}", "w").write(str(subprocess.Popen(["sleep", "1000"]).pid))
print("I am", me, flush=True)
if act.startswith("exit:"):
    sys.exit(int(act[5:]))
if act.startswith("after:"):
    while not os.path.exists(f"{run}/{act[6:]}"):
        time.sleep(0.01)
    sys.exit(0)
if act.startswith("kill:"):
    os.kill(os.getpid(), int(act[5:]))
open(f"{run}/pid-{me}.new", "w").write(str(os.getpid()))
os.rename(f"{run}/pid-{me}.new", f"{run}/pid-{me}")
time.sleep(1000)
"""


@pytest.fixture
def plan(tmp_path):
    (tmp_path / "script.py").write_text(SCRIPT)

    def make(*acts, workers=2, ps=1, chief=False):
        command = [sys.executable, str(tmp_path / "script.py"), str(tmp_path), *acts]
        return plan_launch(command, workers, ps, chief, tmp_path / "run")

    return make


def wait(condition, seconds=30.0):
    deadline = time.monotonic() + seconds
    while (value := condition()) is None or value is False:
        assert time.monotonic() < deadline, f"{condition} was not met"
        time.sleep(0.01)
    return value


def gone(pid):
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    return True


def test_the_plan_has_the_same_bytes_twice_and_touches_nothing(plan, tmp_path):
    assert plan().text() == plan().text()
    assert plan().to_json() == plan().to_json()
    assert not (tmp_path / "run").exists()


def test_replicas_are_recognisable_in_the_process_list(plan, tmp_path):
    command = plan().replicas[1].command
    assert command[1:9] == (
        *("-m", "tfleet.backends.supervisor", "--role", "worker", "--index", "0"),
        *("--run-dir", str(tmp_path / "run")),
    )


@pytest.mark.parametrize(
    ("values", "words"),
    [
        (([], 2, 2), "no command was given"),
        ((["x"], 0, 2), "--workers is 0"),
        ((["x"], 2, -1), "--ps is -1"),
    ],
)
def test_wrong_numbers_are_refused(tmp_path, values, words):
    with pytest.raises(WrongInput, match=words):
        plan_launch(*values, False, tmp_path)


def test_a_program_that_is_missing_is_refused_and_leaves_nothing(tmp_path):
    with pytest.raises(WrongInput, match="'no-such-program' is not a program"):
        run(plan_launch(["no-such-program"], 1, 1, False, tmp_path / "run"), print, print)
    assert list(tmp_path.iterdir()) == []


def test_the_ps_is_ended_when_all_workers_are_done_and_that_is_success(plan, tmp_path):
    with Launch(plan("worker=after:pid-ps-0")) as launch:
        assert wait(launch.poll) == 0
        assert launch._children.of("ps")[0].code == 128 + signal.SIGTERM
        assert sorted(launch.lines())[-2:] == ["worker-0 | I am worker-0", "worker-1 | I am worker-1"]
    assert (tmp_path / "run/logs/worker-1.log").read_text() == "I am worker-1\n"


def test_the_first_worker_that_is_done_does_not_end_the_others(plan, tmp_path):
    with Launch(plan("worker-0=exit:0", "worker-1=after:go")) as launch:
        wait(lambda: launch.poll() is None and launch._children.of("worker")[0].code is not None)
        for _ in range(20):
            assert launch.poll() is None
        (tmp_path / "go").touch()
        assert wait(launch.poll) == 0


def test_a_script_that_exits_3_stops_the_others_and_passes_its_code_on(plan, tmp_path):
    told = []
    assert run(plan("worker-1=exit:3"), lambda line: None, told.append) == 3
    assert told == [
        f"worker 1 ended with code 3, so the others were stopped; its log is {tmp_path / 'run/logs/worker-1.log'}"
    ]


@pytest.mark.parametrize("act", ["worker-1=kill:9", "ps-0=kill:9"])
def test_a_script_that_a_signal_ends_gives_128_and_its_number(plan, act):
    with Launch(plan(act)) as launch:
        assert wait(launch.poll) == 128 + 9


def test_a_ps_that_ends_well_by_itself_is_no_failure(plan, tmp_path):
    with Launch(plan("ps=exit:0", "worker=after:go")) as launch:
        wait(lambda: launch.poll() is None and launch._children.of("ps")[0].code == 0)
        assert launch.poll() is None
        (tmp_path / "go").touch()
        assert wait(launch.poll) == 0


def test_a_chief_with_ps_ends_the_workers_too(plan, tmp_path):
    with Launch(plan("chief=after:go", chief=True)) as launch:
        wait(lambda: all((tmp_path / f"pid-worker-{index}").exists() for index in range(2)))
        (tmp_path / "go").touch()
        assert wait(launch.poll) == 0
        assert {c.code for c in launch._children.of("worker")} == {128 + signal.SIGTERM}


def test_a_chief_without_ps_is_one_among_the_workers(plan, tmp_path):
    with Launch(plan("chief=exit:0", "worker=after:go", ps=0, chief=True)) as launch:
        wait(lambda: launch.poll() is None and launch._children.of("chief")[0].code == 0)
        assert launch.poll() is None
        (tmp_path / "go").touch()
        assert wait(launch.poll) == 0


def test_a_script_that_ignores_sigterm_is_killed(plan, tmp_path, monkeypatch):
    monkeypatch.setattr(launch_module, "GRACE", 0.05)
    with Launch(plan("ps=stubborn", "worker=after:pid-ps-0")) as launch:
        assert wait(launch.poll) == 0
        assert launch._children.of("ps")[0].code == -signal.SIGKILL
    assert gone(int((tmp_path / "pid-ps-0").read_text()))


def test_the_second_interrupt_kills(plan, tmp_path):
    with Launch(plan("ps=stubborn")) as launch:
        wait((tmp_path / "pid-ps-0").exists)
        launch.interrupt()
        assert launch.poll() is None
        launch.interrupt()
        assert wait(launch.poll) == 130


def test_the_run_directory_of_a_training_job_is_refused(plan, tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run/job.yaml").touch()
    with pytest.raises(WrongInput, match="holds a job of 'tfleet train'"):
        Launch(plan())


def test_a_run_directory_in_use_is_refused(plan):
    with Launch(plan()), pytest.raises(WrongInput, match="in use by a living job"):
        Launch(plan())


def test_proxies_stay_but_not_for_loopback():
    loopback = "localhost,127.0.0.1,::1"
    assert loopback_without_proxy({"http_proxy": "x"}) == {"no_proxy": loopback, "NO_PROXY": loopback}
    both = f"example.org,{loopback}"
    assert loopback_without_proxy({"NO_PROXY": "example.org"}) == {"no_proxy": both, "NO_PROXY": both}
    assert loopback_without_proxy({"no_grpc_proxy": "a"})["no_grpc_proxy"] == f"a,{loopback}"


LAUNCHER = """
import sys
from pathlib import Path
from tfleet.backends.launch import plan_launch, run
script, folder = sys.argv[1:]
command = [sys.executable, script, folder, "worker-0=child", "ps=hold"]
sys.exit(run(plan_launch(command, 2, 1, False, Path(folder) / "run"), print, print))
"""


@pytest.mark.parametrize("how", ["SIGKILL", "SIGINT", "SIGTERM"])
def test_nothing_is_left_however_the_launcher_ends(plan, tmp_path, how):
    plan()
    arguments = [sys.executable, "-c", LAUNCHER, str(tmp_path / "script.py"), str(tmp_path)]
    names = ("ps-0", "worker-0", "worker-1")
    with subprocess.Popen(arguments, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as launcher:
        wait(lambda: all((tmp_path / f"pid-{name}").exists() for name in names))
        pids = [int((tmp_path / f"pid-{name}").read_text()) for name in names]
        supervisors = [int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1]) for pid in pids]
        pids.append(int((tmp_path / "child-worker-0").read_text()))
        os.kill(launcher.pid, getattr(signal, how))
    wait(lambda: all(gone(pid) for pid in pids + supervisors))
    assert launcher.returncode == (130 if how == "SIGINT" else -getattr(signal, how))
