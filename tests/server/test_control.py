"""What commands ask of a running job."""

import socket
import threading

import pytest

from tfleet.server.control import request_end
from tfleet.server.replica import PsReplica
from tfleet.spec.errors import WrongInput
from tfleet.spec.job import JobSpec
from tfleet.spec.rundir import RunDir
from tfleet.wire.address import Address
from tfleet.wire.client import ConnectionLost
from tfleet.wire.loop import Loop
from tfleet.wire.server import Server


class Ending:
    """Stands in for the coordinator: remembers what it was asked."""

    def __init__(self):
        self.asked = []

    def call(self, _connection, values, _payload, reply):
        if values["how"] not in ("stop", "interrupt", "fail"):
            raise WrongInput("the ways are stop, interrupt, fail")
        self.asked.append((values["call"], values["how"], values["reason"]))
        reply({})

    def payload_limit(self, _values):
        return 0

    def gone(self, _connection):
        pass


@pytest.fixture
def run(tmp_path):
    made = RunDir.at(tmp_path)
    made.create()
    made.make_token()
    made.job_file.write_text(JobSpec(task="mnist", tcp=True).dump())
    return made


@pytest.fixture
def job(run):
    loop, listener = Loop(), socket.create_server(("127.0.0.1", 0))
    listener.setblocking(False)
    replica = PsReplica(0, loop, None)
    replica.listener = Ending()
    server = Server(loop, listener, run.token_file.read_bytes(), replica)
    run.endpoint_file.write_text(f"{Address('127.0.0.1', listener.getsockname()[1])}\n")
    thread = threading.Thread(target=loop.run)
    thread.start()
    yield replica.listener
    loop.call_from_thread(loop.stop)
    thread.join(20)
    server.close()
    loop.close()


def test_a_job_is_asked_to_end(run, job):
    request_end(run, "stop", "")
    request_end(run, "interrupt", "the user pressed Ctrl-C")
    assert job.asked == [("end", "stop", ""), ("end", "interrupt", "the user pressed Ctrl-C")]


def test_what_the_job_refuses_is_told(run, job):
    with pytest.raises(WrongInput, match="the ways are"):
        request_end(run, "sing", "")


def test_another_jobs_token_is_told(run, job):
    run.make_token()
    with pytest.raises(WrongInput, match="wrong token: give the token file of this job"):
        request_end(run, "stop", "")
    assert job.asked == []


def test_where_no_job_runs_that_is_told(run):
    with pytest.raises(WrongInput, match=r"no job runs in .*; start one with 'tfleet train'"):
        request_end(run, "stop", "")


def test_a_job_that_has_ended_does_not_answer(run):
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    run.endpoint_file.write_text(f"127.0.0.1:{port}")
    with pytest.raises(ConnectionLost, match=f"nobody answers at 127.0.0.1:{port}"):
        request_end(run, "stop", "")
