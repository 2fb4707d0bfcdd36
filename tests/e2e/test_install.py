"""The main scenario: `helm install` in a restricted namespace trains the digits, and what is left afterwards."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from finished import Finished
from namespaces import Namespace
from releases import Release, node_of
from waiting import wait_until

from tfleet.data import load_digits

pytestmark = [pytest.mark.tf, pytest.mark.processes]
STEPS = 2000
VALUES = ("job.task=mnist", "worker.number=2", "ps.number=2", "job.evaluation.evaluator=true")


@dataclass
class Trained:
    """A job that has run to its end, and what was seen on the way."""

    release: Release
    asked: Finished
    nodes: dict[str, set[str]]
    conditions: dict[str, set[str]] = field(default_factory=dict)

    @property
    def export(self) -> Path:
        return self.release.run_dir / "export" / "1"


@pytest.fixture(scope="module")
def trained(images: None, shared_namespace: Namespace) -> Trained:
    release = Release(shared_namespace, "digits")
    release.install(*VALUES, f"job.steps={STEPS}", "job.checkpoint.every_steps=500", "tensorboard.enabled=true")
    wait_until(release.status, "ps 0 to answer")
    asked = shared_namespace.helm("test", "digits", "--timeout", "120s")
    nodes = {role: {node_of(pod) for pod in release.pods(role)} for role in ("ps", "worker")}
    return Trained(release, asked, nodes, release.wait_over())


def test_helm_test_asks_the_job(trained: Trained) -> None:
    trained.asked.good()


def test_every_job_completes(trained: Trained) -> None:
    assert set(trained.conditions) == {"ps", "worker", "evaluator"}
    for component, conditions in trained.conditions.items():
        assert "Complete" in conditions, component
        assert not conditions & {"Failed", "FailureTarget"}, component


def test_both_roles_are_spread_over_the_nodes(trained: Trained) -> None:
    assert trained.nodes == {"ps": {"node-1", "node-2"}, "worker": {"node-1", "node-2"}}


def test_the_job_reaches_the_accuracy(trained: Trained) -> None:
    status = trained.release.final_status()
    assert status["phase"] == "done"
    assert status["step"] == STEPS
    assert status["ledger"]["acknowledged"] == STEPS
    assert status["ledger"]["leased"] == status["ledger"]["returned"] == 0
    assert status["evaluation"]["metrics"]["accuracy"] >= 0.93


def test_pods_tell_the_result_when_nobody_answers_any_more(trained: Trained) -> None:
    assert trained.release.status() == {}
    told = trained.release.ends("worker")
    # One worker that was told the end is enough for its Job; Kubernetes may then end the other first.
    assert {end["code"] for end in told} <= {0, 130}
    done = [end for end in told if end["code"] == 0]
    assert done
    for end in done:
        assert (end["phase"], end["step"]) == ("done", STEPS)
        assert end["export"].endswith("export/1")


def test_run_directory_on_the_claim_is_as_on_one_machine(trained: Trained) -> None:
    run = trained.release.run_dir
    for name in (
        "job.yaml", "deploy.log", "metrics.jsonl", "status.json", "export/1/saved_model.pb", "export/1/model.keras",
        "logs/ps-0.log", "logs/ps-1.log", "logs/worker-0.log", "logs/worker-1.log", "logs/evaluator-0.log",
    ):  # fmt: skip
        assert (run / name).is_file(), name


def test_the_evaluator_ended_with_the_job(trained: Trained) -> None:
    assert [end["code"] for end in trained.release.ends("evaluator")] == [0]
    rows = [json.loads(line) for line in (trained.release.run_dir / "metrics.jsonl").read_text().splitlines()]
    assert rows[-1]["kind"] == "eval"
    assert rows[-1]["step"] == STEPS


def test_export_on_the_claim_knows_the_digits(trained: Trained) -> None:
    model = keras.models.load_model(trained.export / "model.keras")
    images, labels = load_digits().as_inputs()["test"]
    classes = np.argmax(model.predict(images, verbose=0), axis=-1)
    assert float((classes == labels).mean()) >= 0.93


def test_tensorboard_shows_the_run(trained: Trained) -> None:
    namespace = trained.release.namespace
    path = f"/api/v1/namespaces/{namespace.name}/services/digits-tensorboard:6006/proxy/data/runs"

    def runs() -> list[Any]:
        code, body = namespace.cluster.get(path)
        assert code == 200, (code, body[:300])
        return list(json.loads(body))

    shown = wait_until(runs, "TensorBoard to show runs")
    assert any("train" in run for run in shown), shown
    assert any("eval" in run for run in shown), shown


def test_claim_outlives_the_release_and_an_earlier_job_is_not_overwritten(trained: Trained) -> None:
    release, namespace = trained.release, trained.release.namespace
    release.uninstall()
    wait_until(
        lambda: namespace.left() == ["persistentvolumeclaim/digits"] or not f"still there: {namespace.left()}",
        "everything but the claim to go",
    )
    before = (release.run_dir / "status.json").read_text()

    release.install(*VALUES, f"job.steps={STEPS}")
    assert "Failed" in release.wait_over()["worker"]
    refused = [end for end in release.ends("worker") if end["code"] == 2]
    assert refused
    assert all("resume" in end["reason"] for end in refused), refused
    assert (release.run_dir / "status.json").read_text() == before
    release.uninstall()

    release.install(*VALUES, f"job.steps={STEPS + 500}", "resume=true")
    assert "Complete" in release.wait_over()["worker"]
    after = release.final_status()
    assert after["step"] == STEPS + 500
    assert after["generation"] > json.loads(before)["generation"]
    assert after["ledger"]["acknowledged"] == STEPS + 500, "it went on from where the first job ended"
    assert sum(m["steps"] for m in after["members"] if m["role"] == "worker") == 500
