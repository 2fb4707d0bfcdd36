"""What pods wait for, from objects as a cluster gave them."""

import re

import pytest
from kubernetes_objects import container, event, job, pod, unschedulable, waiting

from tfleet.backends.kubernetes.waiting import absence, waiting_reason

SCHEDULER = (
    "0/2 nodes are available: 2 Insufficient {}. no new claims to deallocate, preemption: 0/2 nodes are available"
)


@pytest.mark.parametrize(
    ("status", "said"),
    [
        (
            unschedulable(SCHEDULER.format("memory")),
            r"^worker 0 waits for more memory than any node has left "
            r"\(0/2 nodes are available: 2 Insufficient memory\); "
            "ask for less with worker.request or worker.number, or add a node$",
        ),
        (unschedulable("0/1 nodes are available: 1 Insufficient nvidia.com/gpu."), "more GPUs than any node has left"),
        (unschedulable("1 Insufficient cpu, 1 Insufficient memory"), "more cpu and memory than any node has left"),
        (unschedulable("pod has unbound immediate PersistentVolumeClaims"), "set storage.className to a class"),
        (unschedulable('persistentvolumeclaim "data" not found'), "claim that does not exist.*correct storage.claim"),
        (unschedulable("2 node(s) had untolerated taint {a: b}"), "change nodeSelector, affinity or tolerations"),
        (waiting("ErrImagePull", "dial tcp: lookup r.io: no such host"), r"pulled \(its registry cannot be reached\)"),
        (waiting("ImagePullBackOff", 'Back-off: "x": not found'), r"pulled \(its registry does not have it\); correct"),
        (waiting("ErrImageNeverPull"), "it is not on the node, and pullPolicy is Never"),
        (waiting("ImagePullBackOff", "401 unauthorized"), "wants a login: set imagePullSecrets"),
        (waiting("CreateContainerConfigError", 'secret "t" not found'), 'its configuration: secret "t" not found'),
        (waiting("ContainerCreating"), "^$"),
        ({}, "^$"),
    ],
)
def test_a_pending_worker(status, said):
    assert re.search(said, waiting_reason([pod(phase="Pending", **status)]))


def test_pods_that_wait_for_the_same_are_named_once():
    pods = [pod("worker", i, "Pending", **waiting("CreateContainerConfigError", "no such key")) for i in range(2)]
    assert waiting_reason(pods) == "worker 0 and worker 1 wait for its configuration: no such key"
    many = [pod("worker", i, "Pending", **waiting("CreateContainerConfigError", "no such key")) for i in range(9)]
    assert waiting_reason(many).startswith("worker 0, worker 1 and 7 more wait for")


def test_a_volume_that_cannot_be_mounted_is_told_by_the_newest_event():
    stuck = pod("ps", 0, "Pending", **waiting("ContainerCreating"))
    events = [
        event(stuck["metadata"]["name"], "FailedMount", "old words", "2026-01-01T00:00:01Z"),
        event(
            stuck["metadata"]["name"], "FailedMount", "MountVolume.SetUp failed: no such path", "2026-01-01T00:00:02Z"
        ),
        event("another", "FailedMount", "not ours", "2026-01-01T00:00:03Z"),
    ]
    assert waiting_reason([stuck], events) == "ps 0 waits for a volume: MountVolume.SetUp failed: no such path"


def test_a_job_whose_pods_are_not_admitted_tells_the_quota():
    words = 'pods "j-worker-0-x" is forbidden: exceeded quota: team, requested: pods=1, used: pods=3, limited: pods=3'
    said = waiting_reason([], [event("j-worker", "FailedCreate", words)], [job("worker", parallelism=2)])
    assert said == (
        "the pods of j-worker wait for leave to be made: the quota team has pods=3, of which pods=3 is used, "
        "and one pod more needs pods=1"
    )


def test_a_job_that_made_its_pods_after_all_waits_for_nothing():
    events = [
        event("j-worker", "FailedCreate", "exceeded quota", "2026-01-01T00:00:01Z"),
        event("j-worker", "SuccessfulCreate", "Created pod", "2026-01-01T00:00:02Z"),
    ]
    assert waiting_reason([], events, [job("worker")]) == ""
    assert waiting_reason([pod()], events[:1], [job("worker")]) == ""
    assert waiting_reason([], events[:1], [job("worker", "Complete")]) == ""


def test_a_command_that_cannot_be_started():
    stuck = pod(
        phase="Failed", containerStatuses=[container(terminated={"reason": "StartError", "message": "no file"})]
    )
    assert waiting_reason([stuck]) == "worker 0 waits for its command, which cannot be started: no file"


def test_a_container_in_back_off_tells_its_last_exit_code():
    back_off = container(waiting={"reason": "CrashLoopBackOff"})
    back_off["lastState"] = {"terminated": {"exitCode": 1, "message": "ps 0 did not answer"}}
    assert waiting_reason([pod("ps", 1, containerStatuses=[back_off])]) == (
        "ps 1 waits for its next start, after exit code 1 (ps 0 did not answer)"
    )


def test_words_of_the_cluster_are_cut():
    assert len(waiting_reason([pod(phase="Pending", **waiting("CreateContainerConfigError", "x" * 5000))])) < 400


def silent(**changes):
    return pod("ps", 0, containerStatuses=[container(running={})], **changes)


@pytest.mark.parametrize(
    ("pods", "said"),
    [
        ([], ""),
        ([silent(conditions=[{"type": "Ready", "status": "True"}])], ""),
        (
            [silent(conditions=[{"type": "Ready", "status": "False"}])],
            "ps 0 runs on node node-1, which does not answer",
        ),
        ([pod("ps", 0, "Succeeded")], ""),
        ([pod("ps", 0, "Failed")], "ps 0 has no pod at the moment; its Job makes one"),
    ],
)
def test_why_ps_0_does_not_answer(pods, said):
    assert absence(pods).startswith(said)
    assert bool(absence(pods)) == bool(said)


def test_a_ps_0_that_is_deleted_and_replaced():
    old = silent()
    old["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:05Z"
    assert absence([old]) == "the pod of ps 0 is being deleted; its Job makes another"
    assert absence([old, pod("ps", 0, "Pending")]) == ""
