"""Logs of a job's pods, of one or of all, also of pods that come while they are followed."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator, Mapping
from concurrent.futures import CancelledError
from typing import TYPE_CHECKING, Any

from tfleet.backends.kubernetes.objects import COMPONENT, labels, main_container, name_of
from tfleet.backends.kubernetes.waiting import index_of
from tfleet.spec.errors import TfleetError, WrongInput

if TYPE_CHECKING:
    from tfleet.backends.kubernetes.job import KubernetesJob

ROLES = ("ps", "worker", "evaluator")

PATIENCE = 0.5
"""Seconds to wait for a line before looking for new pods."""


def lines(job: KubernetesJob, role: str, index: int, follow: bool) -> Iterator[str]:
    """Yields log lines, each after its replica's name, as the local backend does.

    Args:
        job: whose pods.
        role: ps, worker or evaluator; empty: all.
        index: of the replica; -1: all.
        follow: go on until the job has ended.

    Raises:
        WrongInput: when there is no such replica.
    """
    pods = replicas(job.pods())
    if not follow and not _wanted(pods, role, index):
        asked = f"{role or 'replica'} {index}" if index >= 0 else role or "replica"
        known = ", ".join(dict.fromkeys(replica(p) for p in pods)) or "none yet"
        raise WrongInput(f"the job {job.handle} has no log of {asked}; there are: {known}")
    return _followed(job, role, index) if follow else _all(job, _wanted(pods, role, index))


def replicas(pods: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Returns the pods of replicas by role, index and age."""
    ours = [p for p in pods if labels(p).get(COMPONENT) in ROLES]
    return sorted(ours, key=lambda p: (ROLES.index(labels(p)[COMPONENT]), index_of(p), str(_created(p)), name_of(p)))


def replica(pod: Mapping[str, Any]) -> str:
    """Returns the name that a local log would have: `worker-1`."""
    return f"{labels(pod).get(COMPONENT, '')}-{max(0, index_of(pod))}"


def _wanted(pods: list[dict[str, Any]], role: str, index: int) -> list[dict[str, Any]]:
    chosen = [p for p in pods if role in ("", labels(p)[COMPONENT])]
    return [p for p in chosen if index in (-1, max(0, index_of(p)))]


def _all(job: KubernetesJob, pods: list[dict[str, Any]]) -> Iterator[str]:
    for pod in pods:
        if _has_log(pod):
            for line in job.cluster.lines(_path(job, pod), container=main_container(pod)["name"]):
                yield _shown(pod, line)


def _followed(job: KubernetesJob, role: str, index: int) -> Iterator[str]:
    """Reads each pod in a thread of its own, and looks for new pods now and then."""
    found: queue.Queue[str] = queue.Queue(maxsize=10_000)
    readers: dict[str, threading.Thread] = {}

    def read(pod: dict[str, Any]) -> None:
        # A pod that dies ends its log; so does the job's end, which closes the connections.
        try:
            query = {"container": main_container(pod)["name"], "follow": "true"}
            for line in job.cluster.lines(_path(job, pod), **query):
                found.put(_shown(pod, line))
        except (TfleetError, CancelledError, RuntimeError):
            return

    over = False
    while True:
        for pod in _wanted(replicas(job.pods()), role, index):
            # A container that was started again in place is a log of its own.
            name = f"{name_of(pod)}/{_restarts(pod)}"
            if name not in readers and _has_log(pod):
                readers[name] = threading.Thread(target=read, args=(pod,), daemon=True)
                readers[name].start()
        try:
            while True:
                yield found.get(timeout=PATIENCE)
        except queue.Empty:
            if over and not any(reader.is_alive() for reader in readers.values()):
                return
            over = over or job.poll() is not None


def _has_log(pod: Mapping[str, Any]) -> bool:
    statuses = pod.get("status", {}).get("containerStatuses") or []
    return any(_started(s.get("state") or {}) or s.get("restartCount") for s in statuses)


def _started(state: Mapping[str, Any]) -> bool:
    return bool(state.get("running") or (state.get("terminated") or {}).get("startedAt"))


def _restarts(pod: Mapping[str, Any]) -> int:
    statuses = pod.get("status", {}).get("containerStatuses") or []
    return max((int(s.get("restartCount", 0)) for s in statuses), default=0)


def _path(job: KubernetesJob, pod: Mapping[str, Any]) -> str:
    return f"/api/v1/namespaces/{job.at.namespace}/pods/{name_of(pod)}/log"


def _created(pod: Mapping[str, Any]) -> str:
    return str(pod["metadata"].get("creationTimestamp", ""))


def _shown(pod: Mapping[str, Any], line: str) -> str:
    # A progress bar returns to the start of the line, where it would overwrite the name: show its last state.
    return f"{replica(pod)} | {line.rstrip(chr(13)).rpartition(chr(13))[2]}"
