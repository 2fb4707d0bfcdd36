"""The processes of the ps alone, without workers: they find each other again whoever dies, and end when they should."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request

import pytest

from tfleet.spec.environment import LIFELINE_FD, TOKEN_FILE, ReplicaEnvironment
from tfleet.spec.job import JobSpec
from tfleet.spec.rundir import RunDir

pytestmark = pytest.mark.processes


def wait(condition, seconds=30.0):
    end = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < end, f"{condition} was not met"
        time.sleep(0.02)
    return value


class Servers:
    """The ps processes of one job."""

    def __init__(self, folder, **values):
        self.run = RunDir.at(folder)
        self.run.create()
        self.run.make_token()
        spec = JobSpec.parse({"task": "mnist", "ps": 2, **values})
        self.run.job_file.write_text(spec.dump())
        self.hosts = [f"unix:@tfleet-test-{os.getpid()}-{folder.name}-{i}" for i in range(2)]
        self.processes = {}
        self.reader, self.lifeline = os.pipe()

    def start(self, index, resume=False):
        command = [sys.executable, "-m", "tfleet.server", "--index", str(index), "--run-dir", str(self.run.path)]
        environment = ReplicaEnvironment("ps", index, tuple(self.hosts), ("unix:@none",)).variables()
        more = {TOKEN_FILE: str(self.run.token_file), LIFELINE_FD: str(self.reader)}
        with self.run.log("ps", index).open("ab") as log:
            self.processes[index] = subprocess.Popen(
                command + ["--resume"] * resume,
                env={**os.environ, **environment, **more},
                pass_fds=(self.reader,),
                stdout=log,
                stderr=log,
            )
        return self

    def log(self, index):
        return self.run.log("ps", index).read_text()

    def ended(self, index):
        return self.processes[index].wait(30)

    def kill(self, index, number=signal.SIGKILL):
        self.processes[index].send_signal(number)
        if number == signal.SIGKILL:
            self.ended(index)

    def complete(self, generation):
        """Waits until both are in this generation."""

        def there():
            status = self.run.status()
            states = [row["state"] for row in status.get("ps", [])]
            return status.get("generation") == generation and states == ["joined", "joined"]

        wait(there)

    def close(self):
        for process in self.processes.values():
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            process.wait()
        for handle in (self.reader, self.lifeline):
            with contextlib.suppress(OSError):
                os.close(handle)


@pytest.fixture
def servers(tmp_path):
    made = []

    def make(**values):
        made.append(Servers(tmp_path, **values))
        return made[-1]

    yield make
    for one in made:
        one.close()


def test_both_find_each_other_again_whichever_dies(servers):
    pair = servers().start(1).start(0)
    pair.complete(1)
    pair.kill(1)
    wait(lambda: pair.run.status()["generation"] == 2)
    assert pair.run.status()["ps"][1]["state"] == "missing"
    pair.start(1, resume=True)
    pair.complete(2)
    pair.kill(0)
    pair.start(0, resume=True)
    pair.complete(3)
    status = pair.run.status()
    assert status["rollbacks"] == 2
    assert [note for note in status["notes"] if note.startswith("ps 1 is lost")]
    (lost,) = [note for note in status["notes"] if note.startswith("ps 0 is lost: nothing was heard of it since 2")]
    assert lost.endswith(" UTC; everybody goes back to the last commit")
    assert pair.log(1).count("is ready") == 3
    pair.kill(0, signal.SIGTERM)
    assert (pair.ended(0), pair.ended(1)) == (0, 0)
    assert pair.run.status()["phase"] == "interrupted"


def test_the_status_port_answers_through_all_generations(servers):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    pair = servers(status_port=port).start(0).start(1)
    pair.complete(1)
    token = pair.run.token_file.read_text()

    def generation():
        request = urllib.request.Request(f"http://127.0.0.1:{port}/status", headers={"X-Tfleet-Token": token})
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=5) as answer:
            return json.load(answer)["generation"]

    assert generation() == 1
    pair.kill(1)
    wait(lambda: generation() == 2)


def test_a_ps_that_waits_for_ps_0_ends_with_130_when_it_is_asked_to(servers):
    pair = servers().start(1)
    wait(lambda: listens(pair, 1))
    pair.kill(1, signal.SIGTERM)
    assert pair.ended(1) == 130
    assert "while it was not part of the job" in pair.log(1)


def listens(pair, index):
    """Whether the ps has come as far as to listen, and so handles signals soon."""
    with socket.socket(socket.AF_UNIX) as probe, contextlib.suppress(OSError):
        probe.connect("\0" + pair.hosts[index].removeprefix("unix:@"))
        time.sleep(0.1)
        return True
    return False


def test_a_ps_that_is_part_of_the_job_has_it_interrupted_when_it_is_asked_to_end(servers):
    pair = servers().start(0).start(1)
    pair.complete(1)
    pair.kill(1, signal.SIGTERM)
    assert (pair.ended(1), pair.ended(0)) == (0, 0)
    status = pair.run.status()
    assert (status["phase"], status["exit_code"]) == ("interrupted", 130)
    assert status["reason"] == "ps 1 was asked to end (SIGTERM)"


def test_a_ps_learns_from_the_run_directory_that_the_job_is_over(servers):
    pair = servers().start(0).start(1)
    pair.complete(1)
    pair.kill(0)
    earlier = {**pair.run.status(), "phase": "failed", "exit_code": 1, "generation": 0}
    pair.run.status_file.write_text(json.dumps(earlier))  # of another run: it says nothing about this one
    wait(lambda: "joins again" in pair.log(1))
    time.sleep(0.3)
    assert pair.processes[1].poll() is None
    pair.run.status_file.write_text(json.dumps({**earlier, "generation": 1}))
    assert pair.ended(1) == 0


def test_a_ps_gives_up_when_ps_0_does_not_come(servers):
    pair = servers(join_timeout=0.5).start(1)
    assert pair.ended(1) == 1
    assert "nobody answers at" in pair.log(1)
    assert "Traceback" not in pair.log(1)


def test_nobody_outlives_the_launcher_in_any_state(servers):
    pair = servers().start(0).start(1)
    pair.complete(1)
    pair.kill(0)
    wait(lambda: "joins again" in pair.log(1))
    os.close(pair.lifeline)
    assert pair.ended(1) == -signal.SIGKILL


def test_ps_0_ends_well_when_the_launcher_dies_while_a_ps_is_missing(servers):
    pair = servers().start(0).start(1)
    pair.complete(1)
    pair.kill(1)
    wait(lambda: pair.run.status()["generation"] == 2)
    os.close(pair.lifeline)
    assert pair.ended(0) == 0
    assert pair.run.status()["phase"] == "interrupted"


def test_the_deadline_ends_the_job_with_the_reason_in_status_and_log(servers):
    pair = servers(deadline=0.1).start(0)
    assert pair.ended(0) == 0
    status = pair.run.status()
    sentence = "the job was not done within its deadline of 0.1 s; the last commit is kept: go on with --resume, and a"
    assert (status["phase"], status["exit_code"]) == ("failed", 1)
    assert status["reason"].startswith(sentence)
    assert f"tfleet: failed: {sentence}" in pair.log(0)
