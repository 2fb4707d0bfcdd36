from __future__ import annotations

import json
import sys

import pytest
from certificates import NAME, files

from tfleet.backends.local import LocalBackend
from tfleet.spec.environment import ReplicaEnvironment
from tfleet.spec.errors import WrongInput
from tfleet.spec.job import JobSpec
from tfleet.testing.backends import BackendConformance

linux = pytest.mark.skipif(sys.platform != "linux", reason="abstract Unix sockets are Linux's")


class TestLocalBackendConforms(BackendConformance):
    def backend(self):
        return LocalBackend()


def test_replicas_are_recognisable_in_the_process_list(tmp_path):
    spec = JobSpec.parse({"task": "mnist", "workers": 2, "ps": 1, "evaluation": {"evaluator": True}})
    plan = LocalBackend().plan(spec, tmp_path / "run", resume=True)
    run = str(tmp_path / "run")
    assert [r.command[1:] for r in plan.replicas] == [
        ("-m", "tfleet.server", "--index", "0", "--run-dir", run, "--resume"),
        ("-m", "tfleet.worker", "--index", "0", "--run-dir", run),
        ("-m", "tfleet.worker", "--index", "1", "--run-dir", run),
        ("-m", "tfleet.worker", "--evaluator", "--index", "0", "--run-dir", run),
    ]


@linux
def test_sockets_are_abstract_and_belong_to_the_run_directory(tmp_path):
    plans = [LocalBackend().plan(JobSpec(task="mnist"), tmp_path / name) for name in ("a", "b")]
    hosts = [plan.replicas[0].env["PS_HOSTS"].split(",") for plan in plans]
    assert all(host.startswith("unix:@tfleet-") for host in hosts[0] + hosts[1])
    assert len({*hosts[0], *hosts[1]}) == 4


@linux
def test_certificates_are_checked_and_refused_where_no_network_is(tmp_path):
    good = {**files(NAME), "tls_server_name": NAME}
    assert LocalBackend().plan(JobSpec(task="mnist", tcp=True, **good), tmp_path)
    with pytest.raises(WrongInput, match=r"--tls-cert does nothing on one machine, .* or add --tcp"):
        LocalBackend().plan(JobSpec(task="mnist", **good), tmp_path)
    with pytest.raises(WrongInput, match=r"is not for 127.0.0.1; give one that has this name"):
        LocalBackend().plan(JobSpec(task="mnist", tcp=True, **files(NAME)), tmp_path)


def test_tcp_ports_are_left_open_in_the_plan(tmp_path):
    plan = LocalBackend().plan(JobSpec(task="mnist", tcp=True), tmp_path)
    assert plan.replicas[0].env["PS_HOSTS"] == "127.0.0.1:auto,127.0.0.1:auto"
    assert json.loads(plan.replicas[0].env["TF_CONFIG"])["cluster"]["worker"] == ["127.0.0.1:auto"] * 2


@pytest.mark.parametrize(
    ("listen", "hosts"),
    [
        ("10.0.0.5", "10.0.0.5:auto,10.0.0.5:auto"),
        ("10.0.0.5:7000", "10.0.0.5:7000,10.0.0.5:7001"),
        ("fd00::5", "[fd00::5]:auto,[fd00::5]:auto"),
    ],
)
def test_a_job_that_may_be_joined_listens_where_it_was_told(tmp_path, listen, hosts):
    found = LocalBackend().plan(JobSpec.parse({"task": "mnist", "listen": listen, "wire_dtype": "float16"}), tmp_path)
    assert {replica.env["PS_HOSTS"] for replica in found.replicas} == {hosts}


def test_threads_of_workers_follow_the_spec_and_a_ps_has_one(tmp_path):
    plan = LocalBackend().plan(JobSpec(task="mnist", threads=3), tmp_path)
    threads = {r.role: r.env["OMP_NUM_THREADS"] for r in plan.replicas}
    assert threads == {"ps": "1", "worker": "3"}


def test_the_token_is_named_not_shown(tmp_path):
    for replica in LocalBackend().plan(JobSpec(task="mnist"), tmp_path).replicas:
        assert replica.env["TFLEET_TOKEN_FILE"] == str(tmp_path / ".tfleet" / "token")


@linux
def test_the_environment_of_each_replica_names_it(tmp_path):
    spec = JobSpec.parse({"task": "mnist", "evaluation": {"evaluator": True}})
    for replica in LocalBackend().plan(spec, tmp_path).replicas:
        environment = ReplicaEnvironment.from_environ(replica.env)
        assert (environment.role, environment.index) == (replica.role, replica.index)


def test_resuming_nothing_is_refused(tmp_path):
    backend = LocalBackend()
    with pytest.raises(WrongInput, match="not a run directory"):
        backend.start(backend.plan(JobSpec(task="mnist"), tmp_path / "none", resume=True))
    assert not (tmp_path / "none").exists()
