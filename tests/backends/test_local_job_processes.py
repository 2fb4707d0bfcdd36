"""The local backend with real processes that stand in for replicas (fake_replica.py)."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from certificates import files

from tfleet.backends import local, local_job
from tfleet.backends.local import LocalBackend, open_job
from tfleet.backends.local_job import StartedJob
from tfleet.spec.errors import ExitCode, JobFailed, WrongInput
from tfleet.spec.job import JobSpec
from tfleet.spec.rundir import RunDir
from tfleet.wire.client import ConnectionLost

pytestmark = pytest.mark.processes
FAKE = str(Path(__file__).with_name("fake_replica.py"))
DONE = {"phase": "done"}


def order(run: RunDir, how, reason):
    """Stands in for tfleet.server.control.request_end: the fake ps 0 tells this as the result."""
    phase = {"stop": "stopped", "interrupt": "interrupted", "fail": "failed"}[how]
    text = json.dumps({"phase": phase, "exit_code": 1 if how == "fail" else 0, "reason": reason})
    (run.private / "order").write_text(text)


def silent(run, how, reason):
    raise JobFailed("ps 0 does not answer")


@pytest.fixture
def start(tmp_path, monkeypatch):
    """Starts a job whose replicas do what `acts` says (`ps-1: exit:-9`), `hold` by default."""
    monkeypatch.setattr(local_job, "SETTLE", 0.3)
    monkeypatch.setattr(local, "LISTEN_PATIENCE", 0.0)  # the stand-ins do not listen
    jobs = []

    def start(acts=(), request=order, path=tmp_path / "run", resume=False, **values):
        def command(role, index, run_dir, resume):
            act = dict(acts).get(f"{role}-{index}", "hold")
            return (
                sys.executable,
                FAKE,
                role,
                str(index),
                str(run_dir),
                act,
                "tfleet.worker",
                "--run-dir",
                str(run_dir),
            )

        backend = LocalBackend(command)
        job = backend.start(backend.plan(JobSpec.parse({"task": "mnist", "restarts": 0, **values}), path, resume))
        job._request = request
        jobs.append(job)
        return job

    yield start
    for job in jobs:
        job.close()


def wait(condition, seconds=30.0):
    deadline = time.monotonic() + seconds
    while (value := condition()) is None or value is False:
        assert time.monotonic() < deadline, f"{condition} was not met"
        time.sleep(0.01)
    return value


def ready(job: StartedJob, *names):
    wait(lambda: all((Path(job.handle) / f"ready-{name}").exists() for name in names))


def gone(pid):
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        return " Z " in Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2][:3]
    return True


def test_the_result_is_what_ps_0_told(start):
    job = start()
    assert job.poll() is None
    job.end("stop", "enough")
    assert wait(job.poll) == ExitCode.DONE
    assert job.status()["reason"] == "enough"


@pytest.mark.parametrize(
    ("told", "code"),
    [
        ({"phase": "done"}, ExitCode.DONE),
        ({"phase": "stopped"}, ExitCode.DONE),
        ({"phase": "interrupted"}, ExitCode.INTERRUPTED),
        ({"phase": "failed", "exit_code": 2}, ExitCode.WRONG_INPUT),
        ({"phase": "failed", "exit_code": 1}, ExitCode.FAILED),
        ({"phase": "failed", "exit_code": 0}, ExitCode.FAILED),
        ({"phase": "failed", "exit_code": 77}, ExitCode.FAILED),
        ({"phase": "failed"}, ExitCode.FAILED),
    ],
)
def test_phases_and_exit_codes(told, code):
    assert local_job.result_of(told) == code


def test_whoever_waits_is_woken_by_the_end_of_a_process(start):
    job = start(workers=1, ps=1)
    ready(job, "ps-0", "worker-0")
    job.wait(0)
    assert job.poll() is None
    job.end("stop", "enough")
    while job.poll() is None:
        job.wait(1000.0)  # nobody would wait as long for this test
    job.wait(0.01)  # for nobody any more


def test_a_system_that_cannot_tell_the_end_of_a_process_waits_all_the_time(start, monkeypatch):
    job = start(workers=1, ps=1)
    naps = []
    with monkeypatch.context() as patch:
        patch.setattr(os, "pidfd_open", lambda pid: (_ for _ in ()).throw(OSError(errno.ENOSYS, "not there")))
        patch.setattr(time, "sleep", naps.append)
        job.wait(0.5)
    assert naps == [0.5]


def test_the_run_directory_of_a_started_job(start):
    job = start(workers=1, ps=1, seed=5)
    run = RunDir.existing(job.handle)
    assert JobSpec.load(run.job_file).seed == 5
    assert run.token_file.stat().st_mode & 0o777 == 0o600
    assert run.endpoint_file.read_text() == job_environment(job, "ps-0")["PS_HOSTS"].split(",")[0]
    assert run.alive()
    token = run.token_file.read_text()
    for child in job.children.all:
        for name in ("cmdline", "environ"):
            assert token.encode() not in Path(f"/proc/{child.pid}/{name}").read_bytes()


def job_environment(job, name):
    child = next(c for c in job.children.all if str(c) == name.replace("-", " "))
    # A process has begun to execute its program a moment before the kernel shows the environment.
    pairs = wait(lambda: Path(f"/proc/{child.pid}/environ").read_bytes() or None).decode().split("\0")
    return dict(pair.partition("=")[::2] for pair in pairs)


def test_replicas_inherit_nothing_of_the_contract(start, monkeypatch):
    monkeypatch.setenv("TF_CONFIG", '{"cluster": {}, "task": {}}')
    assert "TF_CONFIG" not in job_environment(start(), "worker-0")


def test_tcp_ports_are_real_and_the_same_for_all(start):
    job = start(tcp=True)
    hosts = [job_environment(job, name)["PS_HOSTS"] for name in ("ps-0", "ps-1", "worker-0", "worker-1")]
    assert len(set(hosts)) == 1
    assert all(host.startswith("127.0.0.1:") and host[10:].isdigit() for host in hosts[0].split(","))


def test_ports_at_an_address_of_this_machine(start):
    job = start(listen="127.0.0.2")
    hosts = job_environment(job, "worker-0")["PS_HOSTS"].split(",")
    assert all(host.startswith("127.0.0.2:") and host[10:].isdigit() for host in hosts)
    assert RunDir.at(job.handle).endpoint_file.read_text() == hosts[0]


def test_addresses_that_are_not_of_this_machine_or_taken(start, tmp_path):
    with socket.create_server(("127.0.0.2", 0)) as taken:
        used = f"127.0.0.2:{taken.getsockname()[1]}"
        for listen, why in (("192.0.2.1", "Cannot assign requested address"), (used, "Address already in use")):
            with pytest.raises(
                WrongInput, match=f"--listen {listen}: cannot listen on {listen}.*: {why}; give an addr"
            ):
                start(listen=listen)
    assert list(tmp_path.iterdir()) == []


def test_a_ps_that_dies_ends_the_job_with_the_reason(start):
    job = start({"ps-1": "exit:-9"})
    assert wait(job.poll) == ExitCode.FAILED
    assert job.status()["reason"].startswith("ps 1 was killed (SIGKILL): perhaps out of memory, its log is ")
    assert "--resume" in job.status()["reason"]


def test_ps_0_that_dies_ends_the_job_though_nobody_tells(start):
    job = start({"ps-0": "exit:1"}, request=silent)
    assert wait(job.poll) == ExitCode.FAILED
    assert "ps 0 ended with code 1 (a last word)" in job.status()["reason"]
    assert open_job(job.handle).status() == job.status()


def test_a_replica_that_dies_is_started_again_until_its_budget_is_spent(start):
    job = start({"worker-1": "exit:-9", "ps-1": "exit:3"}, restarts=1)
    assert wait(job.poll) == ExitCode.FAILED
    assert job.status()["reason"].startswith("ps 1 ended with code 3 (a last word) after 1 restart")
    for name in ("ps-1", "worker-1"):
        log = (Path(job.handle) / f"logs/{name}.log").read_text()
        assert log.count("a last word") == 2
        assert log.count("is started again (restart 1 of 1)") == 1


def test_the_job_goes_on_while_one_worker_lives(start):
    told = []
    job = start({"worker-0": "exit:-9"})
    job._remark = lambda run, text: told.append(text)
    wait(lambda: job.poll() is None and job.children.of("worker")[0].code is not None)
    for _ in range(20):
        assert job.poll() is None
    (news,) = told
    given_up = "worker 0 is given up: worker 0 was killed (SIGKILL): perhaps out of memory, its log is "
    assert news.startswith(given_up)

    assert not (Path(job.handle) / ".tfleet" / "order").exists()


def test_news_are_told_once_ps_0_is_there_to_tell_them(start):
    told, answers = [], [ConnectionLost("nobody"), None]

    def remark(run, text):
        if error := answers.pop(0):
            raise error
        told.append(text)

    job = start({"worker-0": "exit:-9"})
    now = [1000.0]
    job._clock, job._remark = lambda: now[0], remark
    wait(lambda: job.poll() is None and len(answers) == 1)
    assert (job.poll(), told) == (None, [])
    now[0] += local_job.SETTLE
    assert job.poll() is None
    assert len(told) == 1
    assert (job.poll(), len(told)) == (None, 1)


def test_when_no_worker_is_left_ps_0_is_told_at_once(start):
    job = start({"worker-0": "exit:4", "worker-1": "exit:-15"})
    assert wait(job.poll) == ExitCode.FAILED
    assert job.status()["reason"].startswith("no worker is left: worker 0 ended with code 4 (a last word)")
    assert "worker-0.log" in job.status()["reason"]


def test_what_ps_0_told_before_counts_more_than_what_the_launcher_sees(start):
    refusal = {"phase": "failed", "exit_code": 2, "reason": "unknown task"}
    job = start({"worker-0": "exit:2", "worker-1": "exit:2"}, request=silent)
    (Path(job.handle) / "status.json").write_text(json.dumps(refusal))
    (Path(job.handle) / ".tfleet" / "order").write_text(json.dumps(refusal))
    assert wait(job.poll) == ExitCode.WRONG_INPUT
    assert job.status() == refusal


def test_a_replica_that_does_not_end_is_killed(start, monkeypatch):
    monkeypatch.setattr(local_job, "FINISH", 0.0)
    monkeypatch.setattr(local_job, "GRACE", 0.05)
    job = start({"worker-1": "stubborn"})
    ready(job, "worker-1")
    job.end("stop", "")
    assert wait(job.poll) == ExitCode.DONE
    assert job.children.of("worker")[1].code == -signal.SIGKILL


def test_what_a_replica_started_ends_with_it(start):
    job = start({"worker-0": "child"})
    ready(job, "worker-0")
    grandchild = int((Path(job.handle) / "grandchild").read_text())
    os.kill(job.children.of("worker")[0].pid, signal.SIGKILL)
    wait(lambda: job.poll() is None and gone(grandchild))


def test_a_used_run_directory_is_refused(start):
    job = start()
    with pytest.raises(WrongInput, match="in use by a living job"):
        start()
    job.end("stop", "")
    wait(job.poll)
    with pytest.raises(WrongInput, match="holds an earlier job"):
        start()
    assert not RunDir.at(job.handle).alive()


def test_resuming_forgets_what_the_earlier_run_told(start):
    job = start()
    job.end("stop", "")
    wait(job.poll)
    (Path(job.handle) / ".tfleet" / "order").unlink()
    token = RunDir.at(job.handle).token_file.read_text()
    again = start(resume=True)
    assert again.status() == {}
    assert again.poll() is None
    assert RunDir.at(job.handle).token_file.read_text() != token


def test_a_taken_status_port_is_refused_and_leaves_nothing(start, tmp_path):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen(1)
        with pytest.raises(WrongInput, match=r"--status-port \d+ cannot be used: address already in use"):
            start(status_port=taken.getsockname()[1])
    assert list(tmp_path.iterdir()) == []


def test_a_program_that_is_missing_is_refused_and_the_folder_stays_usable(tmp_path):
    backend = LocalBackend(lambda role, index, run, resume: ("/no/such/program",))
    for _ in range(2):
        with pytest.raises(WrongInput, match="ps 0 cannot be started: /no/such/program"):
            backend.start(backend.plan(JobSpec(task="mnist"), tmp_path / "run"))
    assert list(tmp_path.iterdir()) == []


def test_a_refused_job_leaves_the_run_directory_as_it_was(start, tmp_path):
    def refuse(run, how, reason):
        (run.private / "order").write_text(json.dumps({"phase": "failed", "exit_code": 2, "reason": reason}))

    def left():
        files = (p for p in (tmp_path / "run").rglob("*") if p.is_file())
        return {p.name: p.read_bytes() for p in files if p.suffix != ".log" and "ready" not in p.name}

    job = start({"worker-0": "exit:2", "worker-1": "exit:2"}, request=refuse)
    assert wait(job.poll) == ExitCode.WRONG_INPUT
    assert "ended with code 2" in job.status()["reason"]
    assert left() == {}
    job = start()
    job.end("stop", "")
    wait(job.poll)
    (tmp_path / "run/.tfleet/order").unlink()
    before = left()
    job = start({"worker-0": "exit:2", "worker-1": "exit:2"}, request=refuse, resume=True, seed=9)
    assert left()["job.yaml"] != before["job.yaml"]
    assert wait(job.poll) == ExitCode.WRONG_INPUT
    assert "ended with code 2" in job.status()["reason"]
    for name in ("job.yaml", "status.json"):
        assert left()[name] == before[name]


def test_a_full_disk_at_the_start_is_refused_and_leaves_nothing(start, tmp_path, monkeypatch):
    def full(path, text):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("tfleet.backends.local.write_atomically", full)
    with pytest.raises(WrongInput, match="cannot be written: No space left on device; make room on its disk"):
        start()
    assert list(tmp_path.iterdir()) == []


def test_an_exception_in_the_launcher_ends_every_process(start):
    job = start({"ps-0": "stubborn"})
    ready(job, "ps-0")
    job.children.terminate(0.1)
    with pytest.raises(ZeroDivisionError), job:
        raise ZeroDivisionError
    assert all(gone(child.pid) for child in job.children.all)
    assert job.poll() == ExitCode.FAILED


def test_leaving_by_an_exception_asks_for_a_last_commit(start):
    job = start()
    with pytest.raises(ZeroDivisionError), job:
        raise ZeroDivisionError
    assert job.poll() == ExitCode.INTERRUPTED
    assert {child.code for child in job.children.all} == {0}


def test_leaving_a_job_that_was_asked_to_end_kills_it(start, monkeypatch):
    monkeypatch.setattr(local_job, "AT_ONCE", 0.05)
    job = start({f"{role}-{index}": "stubborn" for role in ("ps", "worker") for index in range(2)})
    ready(job, "ps-0", "ps-1", "worker-0", "worker-1")
    job.end("interrupt", "Ctrl-C")
    with pytest.raises(KeyboardInterrupt), job:
        raise KeyboardInterrupt
    assert {child.code for child in job.children.all} == {-signal.SIGKILL}


def test_a_job_of_another_process(start):
    job = start()
    other = open_job(job.handle)
    assert other.poll() is None
    assert "phase" not in other.status()
    other._request = order
    other.end("stop", "by another")
    assert wait(job.poll) == ExitCode.DONE
    assert other.poll() == ExitCode.DONE
    with pytest.raises(WrongInput, match="is not running"):
        other.end("stop", "again")


def test_a_job_is_not_interrupted_by_who_would_stop_it_with_certificates_that_have_expired(start):
    job = start()
    other, now = open_job(job.handle), JobSpec.load(RunDir.at(job.handle).job_file)
    job_file = RunDir.at(job.handle).job_file
    job_file.write_text(now.model_copy(update=files(valid="expired")).dump())
    with pytest.raises(WrongInput, match="has expired; renew it"):
        other.end("stop", "")
    assert job.poll() is None
    job_file.write_text(now.dump())
    other._request = order
    other.end("stop", "")
    assert wait(job.poll) == ExitCode.DONE


def test_a_job_of_another_process_whose_ps_0_does_not_answer_is_ended_by_signals(start, monkeypatch, tmp_path):
    monkeypatch.setattr(local_job, "GRACE", 0.05)
    job, bystander = start({"ps-0": "stubborn"}), start(path=tmp_path / "other")
    ready(job, "ps-0", "ps-1", "worker-0", "worker-1")
    other = open_job(job.handle)
    other._request = silent
    other.end("interrupt", "asked")
    assert wait(job.poll) == ExitCode.FAILED
    assert {str(child): child.code for child in job.children.all} == {
        "ps 0": -signal.SIGKILL,
        **dict.fromkeys(("ps 1", "worker 0", "worker 1"), -signal.SIGTERM),
    }
    assert bystander.poll() is None


def test_a_job_that_ended_without_a_word_has_failed(tmp_path):
    run = RunDir.at(tmp_path)
    run.create()
    run.job_file.write_text(JobSpec(task="mnist").dump())
    run.status_file.write_text('{"phase": "training", "step": 3}')
    job = open_job(str(tmp_path))
    assert job.poll() == ExitCode.FAILED
    assert job.status()["step"] == 3
    assert "--resume" in job.status()["reason"]


def test_logs_of_all_or_one_and_until_the_end(start):
    job = start(workers=2, ps=1)
    ready(job, "ps-0", "worker-0", "worker-1")
    assert list(job.logs()) == [
        "ps-0 | ps 0 runs hold",
        "worker-0 | worker 0 runs hold",
        "worker-1 | worker 1 runs hold",
    ]
    assert list(job.logs("worker", 1)) == ["worker-1 | worker 1 runs hold"]
    with pytest.raises(WrongInput, match="no log of worker 7; there are: ps-0, worker-0, worker-1"):
        job.logs("worker", 7)
    followed = job.logs("ps", follow=True)
    assert next(followed) == "ps-0 | ps 0 runs hold"
    job.end("stop", "")
    assert list(followed) == []
    assert job.poll() == ExitCode.DONE


LAUNCHER = """
import sys, time
from pathlib import Path
from tfleet.backends.local import LocalBackend
from tfleet.spec.job import JobSpec
fake, run, how = sys.argv[1:]
acts = {"worker-0": "child", "ps-0": "hold" if how == "SIGINT" else "stubborn"}
backend = LocalBackend(
    lambda role, i, run, resume: (sys.executable, fake, role, str(i), str(run), acts.get(f"{role}-{i}", "hold"))
)
job = backend.start(backend.plan(JobSpec(task="mnist"), Path(run)))
while not all((Path(run) / f"ready-{c.role}-{c.index}").exists() for c in job.children.all):
    time.sleep(0.01)
print(*(c.pid for c in job.children.all), (Path(run) / "grandchild").read_text(), flush=True)
job.children.terminate(0.1) if how == "raise" else time.sleep(1000)
raise RuntimeError
"""


@pytest.mark.parametrize("how", ["raise", "SIGKILL", "SIGINT"])
def test_nothing_is_left_however_the_launcher_ends(tmp_path, how):
    arguments = [sys.executable, "-c", LAUNCHER, FAKE, str(tmp_path / "run"), how]
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as launcher:
        pids = [int(pid) for pid in launcher.stdout.readline().split()]
        assert len(pids) == 5
        if how != "raise":
            os.kill(launcher.pid, getattr(signal, how))
    # A killed process counts as gone when its first thread is; the lock is free when its last one is.
    wait(lambda: all(gone(pid) for pid in pids) and not RunDir.at(tmp_path / "run").alive())
