"""Real processes of ps, without workers: they start, end, and leave one sentence and their exit code."""

import json
import os
import signal
import socket
import subprocess
import sys

import pytest

from tfleet.spec.environment import ReplicaEnvironment
from tfleet.spec.job import JobSpec
from tfleet.spec.rundir import RunDir

pytestmark = pytest.mark.processes


@pytest.fixture
def started(tmp_path):
    """Starts ps of one job; what still runs at the end of a test is killed."""
    run = RunDir.at(tmp_path)
    run.create()
    run.make_token()
    processes = []

    def start(index=0, hosts=None, lifeline=None, **spec):
        hosts = hosts or tuple(f"unix:@{tmp_path.name}-{os.getpid()}-{i}" for i in range(spec.get("ps", 1)))
        run.job_file.write_text(JobSpec(task="mnist", workers=1, **{"ps": 1, **spec}).dump())
        variables = ReplicaEnvironment("ps", index, tuple(hosts), ("unix:@worker",)).variables()
        environ = {**os.environ, **variables}
        if lifeline is not None:
            environ["TFLEET_LIFELINE_FD"] = str(lifeline)
        process = subprocess.Popen(
            [sys.executable, "-m", "tfleet.server", "--index", str(index), "--run-dir", str(tmp_path)],
            env=environ,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            pass_fds=[] if lifeline is None else [lifeline],
            start_new_session=True,
        )
        processes.append(process)
        return process

    start.run = run
    yield start
    for process in processes:
        if process.poll() is None:
            process.kill()
        process.communicate()


def ready(process):
    """Blocks until the ps has said that it is ready."""
    line = process.stdout.readline()
    assert "is ready" in line, line + process.stderr.read()


def status(start):
    return json.loads(start.run.status_file.read_text())


def test_a_job_without_workers_is_given_up_with_exit_code_1(started):
    first, second = started(0, ps=2, join_timeout=0.5), started(1, ps=2, join_timeout=0.5)
    assert first.wait(30) == 1
    assert second.wait(30) in (0, 1)  # 0 when it was told before the connection was closed
    assert status(started)["exit_code"] == 1
    assert "no worker was there for 0.5 s" in status(started)["reason"]


@pytest.mark.parametrize("index", [0, 1])
def test_a_ps_that_is_terminated_has_the_job_interrupted(started, index):
    both = started(0, ps=2), started(1, ps=2)
    for process in both:
        ready(process)
    both[index].send_signal(signal.SIGTERM)
    assert [process.wait(30) for process in both] == [0, 0]
    assert (status(started)["phase"], status(started)["exit_code"]) == ("interrupted", 130)
    assert status(started)["reason"] == f"ps {index} was asked to end (SIGTERM)"


def test_a_taken_port_is_one_sentence_and_exit_code_2(started):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        process = started(hosts=(f"127.0.0.1:{port}",))
        output, errors = process.communicate(timeout=30)
    sentence = f"cannot listen on 127.0.0.1:{port}: Address already in use; choose another address or port"
    assert (process.returncode, output, errors) == (2, "", f"tfleet: {sentence}\n")
    assert (status(started)["phase"], status(started)["reason"], status(started)["exit_code"]) == (
        "failed",
        sentence,
        2,
    )


def test_a_ps_that_still_looks_for_ps_0_ends_with_its_launcher(started):
    read, write = os.pipe()
    process = started(1, ps=2, lifeline=read)
    os.close(read)
    os.close(write)
    assert process.wait(30) == -signal.SIGKILL
