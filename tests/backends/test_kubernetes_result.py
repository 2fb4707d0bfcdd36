"""How a job ended, from conditions and last words."""

import pytest
from kubernetes_objects import job, pod, terminated

from tfleet.backends.kubernetes.result import result
from tfleet.spec.errors import ExitCode

DONE = {"phase": "done", "exit_code": 0, "step": 700, "export": "/mnt/tfleet/j/export/1", "reason": ""}
REFUSED = {"phase": "failed", "exit_code": 2, "reason": "the model is not compiled"}


@pytest.mark.parametrize(
    ("jobs", "code"),
    [
        ([job("ps"), job("worker")], None),
        ([job("ps"), job("worker", "Suspended")], None),
        ([job("ps"), job("worker", "SuccessCriteriaMet")], ExitCode.DONE),
        ([job("ps"), job("worker", "SuccessCriteriaMet", "Complete")], ExitCode.DONE),
        ([job("ps"), job("worker", "FailureTarget")], ExitCode.FAILED),
        ([job("ps"), job("worker", "Failed")], ExitCode.FAILED),
        ([job("ps", "Failed"), job("worker")], ExitCode.FAILED),
        ([job("ps", "Complete"), job("worker")], None),
        ([job("ps")], None),
        ([], None),
    ],
)
def test_code_by_conditions(jobs, code):
    found = result(jobs, [])
    assert (found.code if found else None) == code


def test_a_condition_that_is_false_does_not_count():
    open_job = job("worker", "Failed")
    open_job["status"]["conditions"][0]["status"] = "False"
    assert result([open_job], []) is None


def test_the_words_of_ps_0_are_the_status():
    pods = [
        pod("worker", 0, "Succeeded", **terminated(DONE | {"step": 3}, 0)),
        pod("ps", 0, "Succeeded", **terminated(DONE, 0)),
    ]
    found = result([job("worker", "Complete")], pods)
    assert found.status() == {**DONE, "exit_code": 0}


def test_wrong_input_is_told_as_such():
    pods = [pod("ps", 0, "Succeeded", **terminated(REFUSED, 0)), pod("worker", 1, "Failed", **terminated(REFUSED, 2))]
    found = result([job("worker", "Failed", message="exit code 2")], pods)
    assert (found.code, found.reason) == (ExitCode.WRONG_INPUT, "the model is not compiled")
    assert found.status()["phase"] == "failed"


def test_a_worker_that_was_started_again_tells_its_newest_words():
    old = pod("worker", 0, "Failed", name="old", **terminated(REFUSED, 2))
    new = pod("worker", 0, "Failed", name="new", **terminated({**REFUSED, "reason": "newer"}, 2))
    new["metadata"]["creationTimestamp"] = "2026-01-02T00:00:00Z"
    assert result([job("worker", "Failed")], [old, new]).reason == "newer"


@pytest.mark.parametrize(
    ("pods", "words", "reason"),
    [
        ([pod(phase="Failed", **terminated("", 137, "OOMKilled"))], {}, "worker 0 was killed: it needed more memory"),
        (
            [pod(phase="Failed", **terminated("exec: nope: not found", 128, "StartError"))],
            {},
            "the command of worker 0 could not be started: exec: nope: not found",
        ),
        (
            [],
            {"reason": "DeadlineExceeded"},
            "the Job j-worker took longer than the deadline; raise it with --deadline",
        ),
        (
            [pod(phase="Failed", **terminated("Traceback", 3))],
            {"message": "Job has failed indexes"},
            "the Job j-worker failed: Job has failed indexes (worker 0 ended with exit code 3)",
        ),
    ],
)
def test_reason_where_no_pod_could_say_it(pods, words, reason):
    found = result([job("worker", "Failed", **words)], pods)
    assert found.reason.startswith(reason)
    assert found.status()["reason"] == found.reason


def test_a_job_that_ps_0_ended_while_no_worker_ran_is_over():
    told = {"phase": "interrupted", "exit_code": 130, "reason": ""}
    pods = [pod("ps", 0, "Succeeded", **terminated(told, 0)), pod("worker", 0, "Pending")]
    jobs = [job("ps", "Complete"), job("worker")]
    assert result(jobs, pods).code == ExitCode.INTERRUPTED
    assert result(jobs, [*pods, pod("worker", 1, "Running")]) is None
