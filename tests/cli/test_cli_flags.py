"""Every field of the job is a flag, and its description the flag's help."""

import json
import re

import pytest

from tfleet.api.names import names
from tfleet.cli.flags import params_of
from tfleet.cli.main import run
from tfleet.spec.errors import WrongInput
from tfleet.spec.job import JobSpec

SAMPLES = {
    "overlap": "always",
    "ps_placement": "colocated",
    "shared_memory": "never",
    "wire_dtype": "bfloat16",
    "sparse": "lazy",
    "strategy": "sync",
    "xla": "never",
    "data_dir": "/data",
    "tls_cert": "/cert",
    "tls_key": "/key",
    "tls_ca": "/ca",
    "keep_best": "accuracy",
    "stop_metric": "loss",
    "learning_rate": "0.5",
    "stop_min_delta": "0.25",
}
NEEDS = {
    "elastic_min": ["--workers", "9"],
    "replicas_to_aggregate": ["--strategy", "sync"],
    "staleness": ["--strategy", "bounded"],
    "local_steps": ["--strategy", "average"],
    "rounds": ["--strategy", "average"],
    "keep_best": ["--eval-every", "100"],
    "stop_metric": ["--eval-every", "100"],
    "tls_cert": ["--tls-key", "/key", "--tls-ca", "/ca"],
    "tls_key": ["--tls-cert", "/cert", "--tls-ca", "/ca"],
    "tls_ca": ["--tls-cert", "/cert", "--tls-key", "/key"],
    "tls_server_name": ["--tls-cert", "/cert", "--tls-key", "/key", "--tls-ca", "/ca"],
}


def dry_run(capsys, *flags):
    assert run(["train", "mnist", "--dry-run", "-o", "json", *flags]) == 0
    return json.loads(capsys.readouterr().out)["job"]


def value_at(job, path):
    for key in path:
        job = job[key]
    return job


@pytest.mark.parametrize("name", names().values(), ids=lambda name: name.keyword)
def test_every_field_can_be_set_by_its_flag(name, backend, capsys):
    if name.field.annotation is bool:
        assert value_at(dry_run(capsys, name.flag), name.path) is True
        assert value_at(dry_run(capsys, f"--no-{name.flag[2:]}"), name.path) is False
        return
    text = SAMPLES.get(name.keyword, "7")
    job = dry_run(capsys, *NEEDS.get(name.keyword, []), name.flag, text)
    assert str(value_at(job, name.path)) in (text, f"{text}.0")
    assert value_at(job, name.path) != value_at(JobSpec().model_dump(), name.path)


def test_help_shows_every_flag_with_its_description(monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "300")
    assert run(["train", "--help"]) == 0
    shown = re.sub(r"\s+", " ", capsys.readouterr().out)
    for name in names().values():
        assert f"{name.flag} " in shown
        assert name.field.description in shown


def test_params_are_read():
    assert params_of(["hidden_units=100", "note=a=b", "empty="]) == {"hidden_units": "100", "note": "a=b", "empty": ""}


@pytest.mark.parametrize("wrong", ["hidden_units", "=3"])
def test_a_param_without_value_is_refused(wrong):
    with pytest.raises(WrongInput, match=f"--param {wrong} has no value; write --param name=value"):
        params_of([wrong])


def test_a_param_given_twice_is_refused():
    with pytest.raises(WrongInput, match="--param a is given twice"):
        params_of(["a=1", "a=2"])
