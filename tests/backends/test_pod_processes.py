"""The supervisor of a pod with real processes; stand-ins for the replicas, a real connection to what tells them."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from certificates import NAME, files, tls

from tfleet.backends.pod import scaled_away
from tfleet.backends.pod_run import PodRun
from tfleet.server.refusal import refuse
from tfleet.spec.errors import ExitCode, WrongInput
from tfleet.spec.job import JobSpec
from tfleet.spec.rundir import RunDir
from tfleet.wire import client
from tfleet.wire.address import Address

pytestmark = pytest.mark.processes
TOKEN = b"5" * 64

DRIVER = """
import sys
from tfleet.backends import pod
script, *arguments = sys.argv[1:]
pod.TICK = 0.02
pod.LOOK_EVERY = 0.1
pod.RESERVE = 0.5
pod.control.PATIENCE = 0.2
pod.replica_command = lambda role, index, run, resume: (sys.executable, "-c", script, str(run), str(resume))
sys.argv[1:] = arguments
sys.exit(pod.main())
"""
"""A pod whose replica runs the script that is its first argument."""

HOLD = "import time; print('holds', flush=True); time.sleep(1000)"
POLITE = """
import signal, sys, time
signal.signal(signal.SIGTERM, lambda *_: sys.exit(130))
print('holds', flush=True)
time.sleep(1000)
"""
STUBBORN = """
import signal, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
print('holds', flush=True)
time.sleep(1000)
"""
OVER = """
import json, pathlib, sys
status = {{"phase": "{phase}", "exit_code": {code}, "reason": "told"}}
pathlib.Path(sys.argv[1], "status.json").write_text(json.dumps(status))
sys.exit({ends})
"""


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


class Fixture:
    """One pod's surroundings: token, job file, run directory."""

    def __init__(self, folder: Path) -> None:
        self.run = RunDir.at(folder / "run")
        self.port = free_port()
        self.address = Address.parse(f"127.0.0.1:{self.port}")
        (folder / "token").write_bytes(TOKEN)
        (folder / "workers").write_text("2")
        self.folder = folder
        self.grace = 2
        self.pods: list[subprocess.Popen[str]] = []

    def start(self, name: str, script: str, *arguments: str, **job: object) -> subprocess.Popen[str]:
        spec = JobSpec.parse({"task": "mnist", "restarts": 1, "peer_timeout": 1, "join_timeout": 30, **job})
        (self.folder / "job.yaml").write_text(spec.dump())
        env = {
            **os.environ,
            "JOB_NAME": name.partition("-")[0],
            "POD_NAME": f"digits-{name}",
            "PS_HOSTS": f"127.0.0.1:{self.port},127.0.0.1:1",
            "WORKER_HOSTS": "a:1,b:1",
            "TFLEET_TOKEN_FILE": str(self.folder / "token"),
            "TFLEET_JOB_FILE": str(self.folder / "job.yaml"),
            "TFLEET_GRACE_SECONDS": str(self.grace),
        }
        command = [sys.executable, "-c", DRIVER, script, "--run-dir", str(self.run.path), *arguments]
        pod = subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        self.pods.append(pod)
        return pod

    def begin(self) -> None:
        """Does what ps 0 does before any other pod can find the job over."""
        shared = PodRun(self.run, TOKEN)
        shared.check()
        shared.adopt(JobSpec(task="mnist"), resume=False)


@pytest.fixture
def around(tmp_path):
    surroundings = Fixture(tmp_path)
    yield surroundings
    for pod in surroundings.pods:
        pod.terminate()  # not killed: it has to end its stand-in, which does not watch the lifeline
        pod.wait(30)
        pod.stdout.close()


def ended(pod: subprocess.Popen[str]) -> tuple[int, str]:
    out, _ = pod.communicate(timeout=30)
    return pod.returncode, out


def says(pod: subprocess.Popen[str], text: str) -> None:
    for line in pod.stdout:
        if text in line:
            return
    raise AssertionError(f"the pod never said {text!r}")


@pytest.mark.parametrize(
    ("phase", "told", "ends", "worker"),
    [("done", 0, 0, 0), ("stopped", 0, 0, 0), ("failed", 1, 1, 1), ("failed", 2, 2, 2), ("interrupted", 130, 130, 1)],
)
@pytest.mark.parametrize("role", ["worker", "ps", "evaluator"])
def test_the_exit_code_of_a_pod_whose_job_is_over(around, role, phase, told, ends, worker):
    around.begin()
    name = "ps-1" if role == "ps" else f"{role}-0"
    code, _ = ended(around.start(name, OVER.format(phase=phase, code=told, ends=ends)))
    assert code == (worker if role == "worker" else 0)


def test_a_late_pod_of_a_job_that_is_over_starts_nothing(around):
    around.begin()
    around.run.status_file.write_text('{"phase": "failed", "exit_code": 1}')
    code, out = ended(around.start("worker-1", "print('started')"))
    assert (code, out) == (1, "")


def test_a_replica_that_dies_is_started_again_at_once_and_its_log_is_the_pods(around):
    around.begin()
    script = "import os; print('restart', os.environ['TFLEET_RESTARTS'], flush=True); os._exit(7)"
    code, out = ended(around.start("ps-1", script))
    assert code == ExitCode.FAILED
    assert out.splitlines() == [
        "restart 0",
        "tfleet: ps 1 ended with code 7 (restart 0) and is started again (restart 1 of 1)",
        "restart 1",
        "tfleet: ps 1 ended with code 7 (restart 1) after 1 restart",
    ]
    assert around.run.log("ps", 1).read_text() == out


def test_a_replica_that_was_killed_is_told_the_likely_reason(around):
    around.begin()
    _, out = ended(around.start("ps-1", "import os; os.kill(os.getpid(), 9)"))
    assert "ps 1 was killed (SIGKILL): perhaps out of memory (then raise limit.memory of its role)" in out


def test_a_worker_whose_budget_is_spent_waits_for_the_end_of_the_job(around):
    around.begin()
    pod = around.start("worker-0", "import os; os._exit(9)")
    says(pod, "after 1 restart")
    assert pod.poll() is None
    around.run.status_file.write_text('{"phase": "done", "exit_code": 0}')
    assert ended(pod)[0] == ExitCode.DONE


def test_a_worker_that_is_asked_to_leave_drains(around):
    around.begin()
    pod = around.start("worker-0", POLITE)
    says(pod, "holds")
    pod.send_signal(signal.SIGTERM)
    assert ended(pod)[0] == ExitCode.INTERRUPTED


def test_a_ps_that_is_asked_to_leave_says_when_there_is_no_commit(around):
    pod = around.start("ps-0", HOLD)
    says(pod, "holds")
    pod.send_signal(signal.SIGTERM)
    code, out = ended(pod)
    assert code == ExitCode.INTERRUPTED
    assert "no commit before ps 0 leaves: nobody answers at localhost" in out


def test_a_worker_that_does_not_end_is_killed_within_the_grace_period(around):
    around.begin()
    around.grace = 1
    pod = around.start("worker-0", STUBBORN)
    says(pod, "holds")
    pod.send_signal(signal.SIGTERM)
    code, out = ended(pod)
    assert code == ExitCode.INTERRUPTED
    assert "worker 0 did not end within its grace period of 1 s, and is killed" in out


@pytest.mark.parametrize("committed", [True, False])
def test_a_ps_that_cannot_find_ps_0_waits_for_the_commit_that_is_made_anyway(around, committed):
    around.begin()
    around.grace = 30 if committed else 2
    status = {"phase": "training", "last_commit": {"number": 1, "time": 1.0}}
    around.run.status_file.write_text(json.dumps(status))
    pod = around.start("ps-1", HOLD)
    says(pod, "holds")
    pod.send_signal(signal.SIGTERM)
    if committed:
        with pytest.raises(subprocess.TimeoutExpired):
            pod.wait(1.0)
        status["last_commit"]["time"] = time.time() + 1
        around.run.status_file.write_text(json.dumps(status))
    code, out = ended(pod)
    assert code == ExitCode.INTERRUPTED
    assert ("no commit before ps 1 leaves" in out) is not committed


def test_a_grace_period_that_is_no_number_is_wrong_input(around):
    around.grace = "soon"
    code, out = ended(around.start("worker-0", HOLD))
    assert code == ExitCode.WRONG_INPUT
    assert "TFLEET_GRACE_SECONDS is 'soon'; give the whole seconds of the pod's terminationGracePeriodSeconds" in out


def test_a_worker_that_finds_wrong_input_ends_with_its_sentence(around):
    around.begin()
    script = "import sys; print('tfleet: unknown task'); sys.exit(2)"
    assert ended(around.start("worker-0", script))[0] == ExitCode.WRONG_INPUT


def test_ps_0_goes_on_with_the_first_job_file_and_a_second_time_resumes(around):
    script = "import os, sys; print(sys.argv[2], os.environ.get('TFLEET_JOB_FILE'), flush=True); sys.exit(3)"
    code, out = ended(around.start("ps-0", script, seed=5))
    assert code == ExitCode.FAILED
    assert [line for line in out.splitlines() if "tfleet" not in line] == ["False None", "True None"]
    ended(around.start("ps-0", "import sys; sys.exit(3)", seed=6))
    assert JobSpec.load(around.run.job_file).seed == 5


def test_ps_0_that_refuses_an_earlier_job_tells_the_workers(around):
    around.begin()
    (around.folder / "token").write_bytes(TOKEN[::-1].replace(b"5", b"6"))
    pod = around.start("ps-0", HOLD)
    channel = client.connect(around.address, b"6" * 64, patience=20)
    with pytest.raises(WrongInput, match="holds an earlier job; go on with it with resume=true"):
        channel.call("join", role="worker", index=0)
    channel.close()
    pod.send_signal(signal.SIGTERM)
    code, out = ended(pod)
    assert code == ExitCode.DONE
    assert "holds an earlier job" in out


@pytest.mark.parametrize(("name", "code"), [("worker-0", 2), ("ps-1", 0), ("evaluator-0", 0)])
def test_whom_ps_0_has_refused_is_not_started_again_but_for_the_result(around, name, code):
    around.begin()
    done = threading.Event()
    refusing = threading.Thread(target=refuse, args=(around.address, TOKEN, "there is a job", 60, done.is_set))
    refusing.start()
    refused = ended(around.start(name, "import sys; print('tfleet: there is a job'); sys.exit(2)"))
    done.set()
    refusing.join()
    assert refused[0] == code
    assert "there is a job" in refused[1]


def test_a_ps_that_hangs_is_killed_and_started_again(around, monkeypatch):
    around.begin()
    rows = [{"index": 0, "state": "joined"}, {"index": 1, "state": "missing"}]
    around.run.status_file.write_text(json.dumps({"phase": "training", "ps": rows}))
    impatient = DRIVER.replace(
        "import sys\n", "import sys\nfrom tfleet.backends import hanging\nhanging.START = hanging.LEAST = 0.3\n", 1
    )
    monkeypatch.setattr(sys.modules[__name__], "DRIVER", impatient)
    code, out = ended(around.start("ps-1", HOLD, peer_timeout=1))
    assert code == ExitCode.FAILED
    assert out.count("ps 1 lives but does not answer, and is killed") == 2


def test_an_upgrade_changes_the_number_of_workers(around):
    pod = around.start("ps-0", HOLD)
    says(pod, "holds")
    around.run.status_file.write_text('{"phase": "training", "workers_wanted": 2, "updated": 1, "ps": []}')
    asked: list[bytes] = []

    def listen() -> None:
        with around.address.listen() as server:
            server.setblocking(True)
            connection, _ = server.accept()
            asked.append(b"somebody calls")
            connection.close()

    thread = threading.Thread(target=listen, daemon=True)
    thread.start()
    (around.folder / "workers").write_text("4")
    thread.join(20)
    assert asked


def test_refusing_ends_when_asked():
    refuse(Address.parse(f"127.0.0.1:{free_port()}"), TOKEN, "no", 1000.0, lambda: True)


@pytest.mark.parametrize(
    ("environ", "gone"),
    [
        ({"JOB_NAME": "worker", "POD_NAME": "digits-worker-2", "WORKER_HOSTS": "a:1,b:1"}, True),
        ({"JOB_NAME": "worker", "POD_NAME": "digits-worker-1", "WORKER_HOSTS": "a:1,b:1"}, False),
        ({"JOB_NAME": "ps", "POD_NAME": "digits-ps-2", "WORKER_HOSTS": "a:1,b:1"}, False),
        ({"JOB_NAME": "worker", "POD_NAME": "digits-worker-2"}, False),
        ({}, False),
    ],
)
def test_a_worker_that_an_upgrade_has_removed_meanwhile(environ, gone):
    assert scaled_away(environ) is gone


def test_ps_0_that_refuses_an_earlier_job_tells_the_workers_by_tls_too(around):
    around.begin()
    (around.folder / "token").write_bytes(TOKEN[::-1].replace(b"5", b"6"))
    pod = around.start("ps-0", HOLD, **files(NAME), tls_server_name=NAME)
    channel = client.connect(around.address, b"6" * 64, patience=20, tls=tls(server_name=NAME))
    with pytest.raises(WrongInput, match="holds an earlier job"):
        channel.call("join", role="worker", index=0)
    channel.close()
    pod.send_signal(signal.SIGTERM)
    assert ended(pod)[0] == ExitCode.DONE


@pytest.mark.parametrize(("name", "code"), [("worker-0", 2), ("ps-0", 0)])
def test_a_secret_that_cannot_be_used_ends_every_pod_at_once(around, name, code):
    ended_with, out = ended(around.start(name, HOLD, **files(NAME, valid="expired"), tls_server_name=NAME))
    assert ended_with == code
    assert out.count("\n") == 1
    assert "or that of its CA, has expired; renew it" in out
    assert not around.run.path.exists()
