"""Says in one sentence what pods wait for; pure functions over the objects that the API server gives."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from tfleet.backends.kubernetes.objects import COMPONENT, Object, labels, name_of

INDEX = "batch.kubernetes.io/job-completion-index"

PULLING = ("ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull", "RegistryUnavailable")

WHY_NOT_PULLED = (
    (r"ErrImageNeverPull|not present with pull policy of Never", "it is not on the node, and pullPolicy is Never"),
    (r"InvalidImageName|invalid reference format", "it is no valid name"),
    (r"not found|manifest unknown", "its registry does not have it"),
    (r"unauthorized|denied|forbidden|authentication required", "its registry wants a login: set imagePullSecrets"),
    (r"dial tcp|lookup |timeout|connection refused|no such host", "its registry cannot be reached"),
)
"""What the runtime's words mean. They change from try to try and are long; what they mean does not and is not."""

LONGEST = 300
"""Characters of the cluster's own words."""

_LACKING = re.compile(r"Insufficient ([\w./-]*\w)")


def waiting_reason(pods: Sequence[Object], events: Sequence[Object] = (), jobs: Sequence[Object] = ()) -> str:
    """Returns what the pods of a job wait for, in one sentence; empty when none waits, or only for its start.

    Args:
        pods: of the release.
        events: of the namespace, any order.
        jobs: of the release; those without pods tell by events why they cannot make any.
    """
    reasons: dict[str, list[str]] = {}
    for pod in sorted(pods, key=replica_name):
        reason = pod_reason(pod, events)
        if reason:
            reasons.setdefault(reason, []).append(replica_name(pod))
    for job in jobs:
        reason = _job_reason(job, pods, events)
        if reason:
            reasons.setdefault(reason, []).append(f"the pods of {name_of(job)}")
    return "; ".join(f"{_listed(names)} {_verb(names)} for {reason}" for reason, names in reasons.items())


def absence(pods: Iterable[Object]) -> str:
    """Returns why ps 0 cannot answer although nothing is pending, in one sentence; empty when its pod is well."""
    own = [p for p in pods if labels(p).get(COMPONENT) == "ps" and index_of(p) == 0]
    alive = [p for p in own if p.get("status", {}).get("phase") in ("Pending", "Running")]
    if not own or any(p.get("status", {}).get("phase") == "Succeeded" for p in own):
        return ""
    if not alive:
        return "ps 0 has no pod at the moment; its Job makes one"
    if all(p["metadata"].get("deletionTimestamp") for p in alive):
        return "the pod of ps 0 is being deleted; its Job makes another"
    status = alive[-1].get("status", {})
    runs = all("running" in (c.get("state") or {}) for c in _containers(status))
    for condition in status.get("conditions") or []:
        # The pods have no probe: one that runs is not ready when its node is silent.
        if (
            runs
            and status.get("phase") == "Running"
            and condition.get("type") == "Ready"
            and condition["status"] != "True"
        ):
            node = alive[-1].get("spec", {}).get("nodeName", "")
            return f"ps 0 runs on node {node}, which does not answer; it is started elsewhere once it is given up"
    return ""


def pod_reason(pod: Object, events: Iterable[Object]) -> str:
    """Returns what one pod waits for, to stand after `waits for`; empty when for nothing that takes long."""
    status = pod.get("status") or {}
    if status.get("phase") in ("Running", "Succeeded", "Failed") and not _stuck(status):
        return ""
    for condition in status.get("conditions") or []:
        if condition.get("type") == "PodScheduled" and condition.get("status") == "False":
            return unschedulable(str(condition.get("message", "")))
    for container in _containers(status):
        reason = container_reason(container)
        if reason:
            return reason
    for event in _newest(events, name_of(pod)):
        if event.get("reason") in ("FailedMount", "FailedAttachVolume"):
            return f"a volume: {_words(event)}"
        if event.get("reason") in ("FailedCreatePodSandBox", "FailedPreStopHook", "NetworkNotReady"):
            return f"its network: {_words(event)}"
    return ""


def unschedulable(message: str) -> str:
    """Returns what the scheduler's words mean: the resources that no node has, else the words themselves."""
    # The rest is about preemption, and longer.
    message = message.partition(". ")[0]
    lacking = sorted({_plain(name) for name in _LACKING.findall(message)})
    if lacking:
        return (
            f"more {' and '.join(lacking)} than any node has left ({_shorten(message)}); ask for less with "
            "worker.request or worker.number, or add a node"
        )
    if "unbound immediate PersistentVolumeClaims" in message:
        return "its volume claim, which no volume is bound to; set storage.className to a class of this cluster"
    if "persistentvolumeclaim" in message and "not found" in message:
        return f"a volume claim that does not exist ({_shorten(message)}); correct storage.claim"
    if "didn't match Pod's node affinity/selector" in message or "had untolerated taint" in message:
        return f"a node that it may run on ({_shorten(message)}); change nodeSelector, affinity or tolerations"
    return f"a node ({_shorten(message)})" if message else "a node"


def container_reason(container: Mapping[str, Any]) -> str:
    """Returns what a container waits for; empty when it runs, or is only just being made."""
    state = container.get("state") or {}
    waiting, ended = state.get("waiting") or {}, state.get("terminated") or {}
    reason, message = str(waiting.get("reason", "")), str(waiting.get("message", ""))
    if reason in PULLING:
        found = (why for pattern, why in WHY_NOT_PULLED if re.search(pattern, f"{reason} {message}"))
        why = next(found, _shorten(message))
        told = f" ({why})" if why else ""
        return f"its image {container.get('image', '')}, which cannot be pulled{told}; correct image.repository or tag"
    if reason == "CreateContainerConfigError":
        return f"its configuration: {_shorten(message)}"
    if reason in ("CreateContainerError", "RunContainerError"):
        return f"its container, which cannot be made: {_shorten(message)}"
    last = (container.get("lastState") or {}).get("terminated") or {}
    if reason == "CrashLoopBackOff":
        return f"its next start, after exit code {last.get('exitCode', '?')} {_last(last)}".rstrip()
    if ended.get("reason") == "StartError":
        return f"its command, which cannot be started: {_shorten(str(ended.get('message', '')))}"
    return ""


def replica_name(pod: Object) -> str:
    """Returns how people call a pod's replica: `worker 1`, `ps 0`, `evaluator`; else the pod's own name."""
    component = labels(pod).get(COMPONENT, "")
    index = index_of(pod)
    if component in ("ps", "worker") and index >= 0:
        return f"{component} {index}"
    return component if component in ("evaluator", "tensorboard", "serving") else f"pod {name_of(pod)}"


def index_of(pod: Object) -> int:
    """Returns a pod's index in its Job, or -1."""
    annotated = (pod.get("metadata", {}).get("annotations") or {}).get(INDEX, "")
    text = labels(pod).get(INDEX, annotated)
    return int(text) if str(text).isdigit() else -1


def _job_reason(job: Object, pods: Iterable[Object], events: Iterable[Object]) -> str:
    name = name_of(job)
    alive = [p for p in pods if _owner(p) == name and p.get("status", {}).get("phase") in ("Pending", "Running")]
    wanted = int(job.get("spec", {}).get("parallelism", 1))
    ended = any(c.get("status") == "True" for c in job.get("status", {}).get("conditions") or [])
    if ended or len(alive) >= wanted:
        return ""
    for event in _newest(events, name):
        if event.get("reason") == "FailedCreate":
            return f"leave to be made: {_admission(_words(event))}"
        if event.get("reason") == "SuccessfulCreate":
            return ""
    return ""


def _admission(words: str) -> str:
    quota = re.search(r"exceeded quota: ([\w.-]+), requested: (.+?), used: (.+?), limited: (.+)", words)
    if quota:
        name, asked, used, limit = quota.groups()
        return f"the quota {name} has {limit}, of which {used} is used, and one pod more needs {asked}"
    return words


def _owner(pod: Object) -> str:
    owners = pod.get("metadata", {}).get("ownerReferences") or [{}]
    return str(owners[0].get("name", ""))


def _stuck(status: Mapping[str, Any]) -> bool:
    """Tells whether a pod that ran is kept from running again."""
    return any((c.get("state") or {}).get("waiting") or _start_failed(c) for c in _containers(status))


def _start_failed(container: Mapping[str, Any]) -> bool:
    return ((container.get("state") or {}).get("terminated") or {}).get("reason") == "StartError"


def _containers(status: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    return [*(status.get("initContainerStatuses") or []), *(status.get("containerStatuses") or [])]


def _newest(events: Iterable[Object], name: str) -> list[Object]:
    ours = [e for e in events if (e.get("involvedObject") or {}).get("name") == name]
    return sorted(ours, key=lambda e: str(e.get("lastTimestamp") or e.get("eventTime") or ""), reverse=True)


def _words(event: Object) -> str:
    return _shorten(str(event.get("message", "")))


def _last(ended: Mapping[str, Any]) -> str:
    message = str(ended.get("message", "")).strip()
    return f"({_shorten(message.splitlines()[-1])})" if message and not message.startswith("{") else ""


def _shorten(text: str) -> str:
    line = " ".join(text.split()).rstrip(". ")
    return line if len(line) <= LONGEST else f"{line[:LONGEST]} …"


def _plain(resource: str) -> str:
    return {"cpu": "cpu", "memory": "memory", "nvidia.com/gpu": "GPUs"}.get(resource, resource)


def _listed(names: Sequence[str]) -> str:
    names = list(dict.fromkeys(names))
    if len(names) <= 3:
        return " and ".join(filter(None, (", ".join(names[:-1]), names[-1])))
    return f"{', '.join(names[:2])} and {len(names) - 2} more"


def _verb(names: Sequence[str]) -> str:
    return "waits" if len(set(names)) == 1 and not names[0].startswith("the pods") else "wait"
