from __future__ import annotations

import json
import os
import re

import pytest

from tfleet.spec.environment import ReplicaEnvironment, grace_of, is_address
from tfleet.spec.errors import WrongInput
from tfleet.spec.lifeline import lifeline_fd, watch_lifeline

TCP = ReplicaEnvironment("worker", 1, ("a:1", "b:2"), ("c:3", "d:4"))
UNIX = ReplicaEnvironment("ps", 0, ("unix:@p",), ("unix:@w", "unix:/tmp/w1"))


@pytest.mark.parametrize(
    "environment",
    [
        TCP,
        UNIX,
        ReplicaEnvironment("evaluator", 0, ("a:1",), ("c:3",)),
        ReplicaEnvironment("chief", 0, ("a:1",), ("c:3",), "h:9"),
        ReplicaEnvironment("worker", 0, (), ("c:3",)),
    ],
)
def test_what_is_written_is_read(environment):
    assert ReplicaEnvironment.from_environ(environment.variables()) == environment


def test_the_variables_are_those_of_the_contract():
    values = TCP.variables()
    assert json.loads(values.pop("TF_CONFIG")) == {
        "cluster": {"ps": ["a:1", "b:2"], "worker": ["c:3", "d:4"]},
        "task": {"type": "worker", "index": 1},
    }
    assert values == {"JOB_NAME": "worker", "POD_NAME": "worker-1", "PS_HOSTS": "a:1,b:2", "WORKER_HOSTS": "c:3,d:4"}


def test_no_tf_config_over_unix_sockets():
    assert "TF_CONFIG" not in UNIX.variables()


def test_the_chief_is_in_the_cluster_of_everyone():
    environment = ReplicaEnvironment("ps", 0, ("a:1",), ("c:3",), "h:9")
    assert environment.tf_config()["cluster"]["chief"] == ["h:9"]


def test_the_ordinal_follows_the_last_dash():
    values = {**TCP.variables(), "POD_NAME": "my-train-2-worker-0"}
    del values["TF_CONFIG"]
    assert ReplicaEnvironment.from_environ(values).index == 0


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"JOB_NAME": "workr"}, "did you mean 'worker'"),
        ({"POD_NAME": "worker"}, "must end in '-' and a number"),
        ({"POD_NAME": "worker-²"}, "must end in '-' and a number"),
        ({"POD_NAME": "worker-2"}, "WORKER_HOSTS lists 2 of that role"),
        ({"JOB_NAME": "ps", "POD_NAME": "ps-5"}, "PS_HOSTS lists 2 of that role"),
        ({"JOB_NAME": "chief", "POD_NAME": "chief-0"}, "TF_CONFIG lists 0 of that role"),
        ({"PS_HOSTS": "a"}, "PS_HOSTS holds 'a'"),
        ({"WORKER_HOSTS": "c:3,,d:4"}, "WORKER_HOSTS holds ''"),
        ({"TF_CONFIG": "{"}, "TF_CONFIG is '{'"),
        ({"TF_CONFIG": "[]"}, "TF_CONFIG is '[]'"),
        ({"TF_CONFIG": '{"cluster": {"worker": ["x:1"]}, "task": {}}'}, "contradicts"),
        ({"JOB_NAME": None}, "JOB_NAME is not set"),
        ({"WORKER_HOSTS": None}, "WORKER_HOSTS is not set"),
    ],
)
def test_wrong_values_are_refused_in_a_sentence(change, words):
    values = {name: value for name, value in {**TCP.variables(), **change}.items() if value is not None}
    with pytest.raises(WrongInput, match=re.escape(words)):
        ReplicaEnvironment.from_environ(values)


def test_addresses():
    good = ("h:1", "127.0.0.1:65535", "[::1]:80", "unix:@x", "unix:/x")
    bad = ("", "h", "h:", ":1", "h:0", "h:65536", "h:x", "unix:", "unix:@", "unix:x")
    assert [text for text in good if not is_address(text)] == []
    assert [text for text in bad if is_address(text)] == []


def test_the_lifeline_calls_when_the_launcher_closes_its_end():
    reader, writer = os.pipe()
    called = []
    thread = watch_lifeline(lambda: called.append(True), {"TFLEET_LIFELINE_FD": str(reader)})
    assert called == []
    os.close(writer)
    thread.join(10)
    os.close(reader)
    assert called == [True]


def test_without_a_launcher_there_is_no_lifeline():
    assert watch_lifeline(lambda: None, {}) is None


@pytest.mark.parametrize("text", ["x", "-1", "99999", "99999999999999999999"])
def test_a_lifeline_that_is_no_pipe_is_refused(text):
    with pytest.raises(WrongInput, match="not an open pipe"):
        lifeline_fd({"TFLEET_LIFELINE_FD": text})


def test_the_grace_period_is_that_of_the_pod():
    assert grace_of({}) == 30.0
    assert grace_of({"TFLEET_GRACE_SECONDS": "120"}) == 120.0


@pytest.mark.parametrize("text", ["", "0", "-5", "30s", "1.5", "²"])
def test_another_grace_period_is_refused(text):
    with pytest.raises(WrongInput, match=r"TFLEET_GRACE_SECONDS is .*; give the whole seconds of the pod's"):
        grace_of({"TFLEET_GRACE_SECONDS": text})
