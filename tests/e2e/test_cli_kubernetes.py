"""`tfleet train --on kubernetes`, and what its handle is good for."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from cluster import environment, tfleet
from finished import Finished
from namespaces import Namespace
from releases import Release
from tasks_on_claim import SCRIPTS
from waiting import wait_until

from tfleet.data import load_digits

pytestmark = [pytest.mark.tf, pytest.mark.processes]
STEPS = 2000


def on(namespace: Namespace, *arguments: str) -> tuple[str, ...]:
    return ("train", *arguments, "--on", "kubernetes", "--namespace", namespace.name)


def paced(namespace: Namespace, name: str, *arguments: str) -> tuple[str, ...]:
    """A job that lasts until it is stopped."""
    task = ("paced_digits.py:task", "--task-file", str(SCRIPTS / "paced_digits.py"))
    return on(namespace, *task, "--steps", "0", "--name", name, "--ps", "1", *arguments)


def handle(namespace: Namespace, name: str) -> str:
    return f"k8s://local/{namespace.name}/{name}"


def test_doctor_finds_the_cluster_fit(shared_namespace: Namespace) -> None:
    found = tfleet("doctor", "--on", "kubernetes", "--namespace", shared_namespace.name, "-o", "json")
    assert found.code == 0, found.out + found.err
    assert found.json()


# --- a job from its start to its copy


@pytest.fixture(scope="module")
def finished(images: None, shared_namespace: Namespace) -> Finished:
    return tfleet(
        *on(shared_namespace, "mnist", "--workers", "2", "--ps", "2", "--steps", str(STEPS), "--name", "digits")
    )


@pytest.fixture(scope="module")
def digits(finished: Finished, shared_namespace: Namespace) -> str:
    finished.good()
    return handle(shared_namespace, "digits")


def test_train_streams_progress_and_ends_with_the_result(finished: Finished, digits: str) -> None:
    assert re.search(r"accuracy 0\.9[3-9]", finished.out), finished.out
    assert digits in finished.out
    assert re.search(r"step\s+[\d,]+", finished.out + finished.err), finished.err
    assert "export/1" in finished.out


def test_status_of_a_job_that_is_over(digits: str) -> None:
    status = tfleet("status", digits, "-o", "json").good().json()
    assert status["phase"] == "done"
    assert status["step"] == STEPS
    assert "done" in tfleet("status", digits).good().out


def test_logs_of_every_replica(digits: str) -> None:
    said = tfleet("logs", digits).good().out
    for replica in ("ps-0", "ps-1", "worker-0", "worker-1"):
        assert replica in said, said[-3000:]


def test_copy_brings_the_results(digits: str, tmp_path: Path) -> None:
    import keras

    tfleet("copy", digits, str(tmp_path / "copy")).good()
    status = json.loads((tmp_path / "copy" / "status.json").read_text())
    assert status["step"] == STEPS
    model = keras.models.load_model(tmp_path / "copy" / "export" / "1" / "model.keras")
    images, labels = load_digits().as_inputs()["test"]
    right = np.argmax(model.predict(images, verbose=0), axis=-1) == labels
    assert float(right.mean()) == pytest.approx(status["evaluation"]["metrics"]["accuracy"], abs=1e-6)
    assert tfleet("status", str(tmp_path / "copy"), "-o", "json").good().json()["phase"] == "done"


def test_eval_on_the_cluster_says_the_same(digits: str) -> None:
    there = tfleet("status", digits, "-o", "json").good().json()["evaluation"]["metrics"]
    assert tfleet("eval", digits, "-o", "json").good().json()["metrics"] == pytest.approx(there, rel=1e-5)


def test_export_on_the_cluster_makes_another_version(digits: str, shared_namespace: Namespace) -> None:
    said = tfleet("export", digits).good().out
    assert "export/2" in said, said
    assert (Release(shared_namespace, "digits").run_dir / "export" / "2" / "model.keras").is_file()


def test_a_name_in_use_is_refused(digits: str, shared_namespace: Namespace) -> None:
    refused = tfleet(*on(shared_namespace, "mnist", "--name", "digits"))
    assert refused.code == 2
    assert "digits" in refused.err
    assert len(refused.err.strip().splitlines()) == 1, refused.err


# --- a job that lasts


@pytest.fixture(scope="module")
def lasting(images: None, shared_namespace: Namespace) -> Iterator[Release]:
    """A job that was interrupted at its start, which leaves it running; ends with the tests of this file."""
    command = paced(shared_namespace, "lasting", "--workers", "2")
    release = Release(shared_namespace, "lasting")
    process = subprocess.Popen(
        [sys.executable, "-m", "tfleet", *command],
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment(),
    )  # fmt: skip
    try:
        wait_until(
            lambda: shared_namespace.kubectl("get", "secret", "lasting-token").code == 0, "the job to be installed"
        )
        release.wait_for_step(20)
        process.send_signal(signal.SIGINT)
        said, _ = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 130, said
    assert handle(shared_namespace, "lasting") in said, said
    yield release
    if "lasting" in shared_namespace.helm("list", "--short").out.split():
        release.uninstall()


def test_interrupt_leaves_the_job_running(lasting: Release) -> None:
    step = lasting.status()["step"]
    lasting.wait_for_step(step + 10)


def test_status_of_a_job_that_runs(lasting: Release) -> None:
    status = tfleet("status", handle(lasting.namespace, "lasting"), "-o", "json").good().json()
    assert status["phase"] == "training"
    assert status["step"] > 0


def test_scale_adds_a_worker(lasting: Release) -> None:
    tfleet("scale", handle(lasting.namespace, "lasting"), "--workers", "3").good()
    wait_until(
        lambda: (
            [m["index"] for m in lasting.status().get("members", []) if m["role"] == "worker" and m["steps"]]
            == [0, 1, 2]
        ),
        "three workers to train",
    )


def test_stop_ends_it_with_an_export(lasting: Release) -> None:
    stopped = tfleet("stop", handle(lasting.namespace, "lasting")).good()
    assert "stopped" in stopped.out + stopped.err
    jobs = lasting.wait_over()
    assert all("Complete" in conditions for conditions in jobs.values()), jobs
    assert (lasting.run_dir / "export" / "1" / "model.keras").is_file()


def test_rm_leaves_the_claim_only(images: None, namespace: Namespace) -> None:
    done = tfleet(*on(namespace, "mnist", "--steps", "100", "--workers", "1", "--ps", "1", "--name", "brief", "--rm"))
    done.good()
    wait_until(lambda: namespace.left() == ["persistentvolumeclaim/brief"], "everything but the claim to go")


def test_wrong_input_in_a_pod_ends_the_command_with_2(images: None, namespace: Namespace) -> None:
    done = tfleet(*on(namespace, "mnist", "--param", "hiden_units=3", "--name", "wrong"))
    assert done.code == 2, done.out + done.err
    assert "hiden_units" in done.err
    assert "Traceback" not in done.err


def test_detach_prints_the_handle_only(images: None, namespace: Namespace) -> None:
    started = tfleet(*paced(namespace, "behind", "--workers", "1", "--detach")).good()
    assert started.out.strip() == handle(namespace, "behind")
    assert "behind" in namespace.helm("list", "--short").out.split()
