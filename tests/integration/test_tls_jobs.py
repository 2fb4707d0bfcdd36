"""A real job whose replicas talk by TLS, and real replicas that it does not let in."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from certificates import NAME, files
from jobs import LiveJob, nothing_left, tfleet, wait_until

from tfleet.spec.environment import JOB_FILE, TOKEN_FILE, ReplicaEnvironment
from tfleet.spec.errors import WrongInput
from tfleet.spec.job import JobSpec
from tfleet.wire import client
from tfleet.wire.address import Address

pytestmark = [pytest.mark.processes, pytest.mark.tf]

JOB = ("mnist", "--workers", "2", "--ps", "2", "--param", "hidden_units=100", "--tcp", "--summary-every", "0")


def flags(given: dict[str, str]) -> list[str]:
    return [word for name, value in given.items() for word in (f"--{name.replace('_', '-')}", value)]


def stray(run: Path, job: Path, token: Path) -> tuple[int, str]:
    """Starts one more worker with a job file and token of its own; returns exit code and what it said."""
    endpoint = (run / ".tfleet" / "endpoint").read_text().strip()
    variables = ReplicaEnvironment("worker", 7, (endpoint, endpoint), ("127.0.0.1:1",) * 8).variables()
    env = {**os.environ, **variables, JOB_FILE: str(job), TOKEN_FILE: str(token)}
    done = subprocess.run(
        [sys.executable, "-m", "tfleet.worker", "--index", "7", "--run-dir", str(run)],
        env=env, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    return done.returncode, done.stderr


def test_a_job_over_tls_survives_the_death_of_a_ps_takes_orders_and_lets_nobody_else_in(
    live: Callable[..., LiveJob], tmp_path: Path
) -> None:
    given = {**files(NAME), "tls_server_name": NAME}
    job = live(*JOB, "--steps", "0", "--checkpoint-every-steps", "100", *flags(given))
    job.wait_for_step(150)
    run = job.run.path
    endpoint, token = Address.parse((run / ".tfleet" / "endpoint").read_text().strip()), job.run.token_file
    with pytest.raises(WrongInput, match="this ps speaks TLS only; give tls_cert, tls_key and tls_ca of the job"):
        client.connect(endpoint, token.read_bytes(), patience=5)

    another, wrong = tmp_path / "another.yaml", tmp_path / "token"
    spec = JobSpec.load(job.run.job_file)
    another.write_text(spec.model_copy(update=files(NAME, ca="another")).dump())
    code, said = stray(run, another, token)
    assert (code, said.count("\n")) == (2, 1), said
    assert f"the certificate of {endpoint} is not signed by a CA in tls_ca" in said
    for more, words in (
        (flags(files(NAME, ca="another")), f"the certificate of {endpoint} is not signed by a CA in tls_ca"),
        ([*flags(files(NAME)), "--tls-server-name", "another"], f"the certificate of {endpoint} is not for another"),
        ([], "this ps speaks TLS only; give tls_cert, tls_key and tls_ca of the job"),
    ):
        done = tfleet("join", str(endpoint), "--token-file", str(token), *more)
        assert (done.code, done.out, done.err.count("\n")) == (2, "", 1), (more, done)
        assert words in done.err
    wrong.write_text("0" * 64)
    wrong.chmod(0o600)
    done = tfleet("join", str(endpoint), "--token-file", str(wrong), *flags(given))
    assert (done.code, done.err.count("\n")) == (2, 1), done.err
    assert "wrong token: give the token file of this job" in done.err

    job.kill("ps", 1)
    wait_until(lambda: job.run.status().get("generation", 0) >= 2 and job.run.status().get("phase") == "training")
    assert tfleet("stop", str(run)).code == 0
    code, out = job.finish()
    assert code == 0, out
    status = job.run.status()
    assert status["phase"] == "stopped"
    assert not [m for m in status["members"] if m["index"] == 7]  # it never was one
    log = (run / "logs" / "ps-0.log").read_text()
    assert "refused a connection from 127.0.0.1: it does not speak TLS" in log
    assert "refused a connection from 127.0.0.1: wrong token" in log
    assert "tlsv1 alert" not in log
    nothing_left(run)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (lambda: files(valid="expired"), "or that of its CA, has expired; renew it"),
        (lambda: files("elsewhere.org"), "is not for 127.0.0.1; give one that has this name"),
        (lambda: {**files(), "tls_key": "/nowhere/tls.key"}, "/nowhere/tls.key cannot be read: No such file"),
        (lambda: {"tls_cert": files()["tls_cert"]}, "go together: give tls_key and tls_ca too, or none of them"),
    ],
)
def test_wrong_certificates_are_one_sentence_and_leave_nothing(
    tmp_path: Path, given: Callable[[], dict[str, str]], words: str
) -> None:
    run = tmp_path / "run"
    done = tfleet("train", *JOB, *flags(given()), "--run-dir", str(run))
    assert (done.code, done.out, done.err.count("\n")) == (2, "", 1), done.err
    assert words in done.err
    assert not run.exists()
