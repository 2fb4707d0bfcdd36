"""Runs a pod beside a job that sees the job's volume: to copy from it, to evaluate, to export."""

from __future__ import annotations

import contextlib
import json
import secrets
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from tfleet.backends.kubernetes import chart, helm, objects
from tfleet.backends.kubernetes.cluster import Cluster, refusal
from tfleet.backends.kubernetes.handle import Handle
from tfleet.backends.kubernetes.start import not_admitted
from tfleet.backends.kubernetes.waiting import pod_reason
from tfleet.spec.errors import JobFailed, error_for

TEMPLATE = "templates/tool.yaml"

INTERVAL = 0.5
"""Seconds between two looks at the pod."""

Tell = Callable[[str], None]
"""Shows a line to a person."""


@contextlib.contextmanager
def tool_pod(
    cluster: Cluster, at: Handle, kind: str, tell: Tell, arguments: Sequence[str] = ()
) -> Iterator[dict[str, Any]]:
    """Starts a tool's pod, waits until it runs, and deletes it in any case; yields it.

    Args:
        cluster: where.
        at: the release whose volume the pod sees.
        kind: copy, eval or export.
        tell: shows what the pod waits for.
        arguments: of the command in the pod.

    Raises:
        WrongInput: when there is no such release, or the namespace does not admit the pod.
        JobFailed: when the pod cannot start.
    """
    identity = f"{kind}-{secrets.token_hex(3)}"
    values = {**helm.values_of(at), "tool": {"kind": kind, "id": identity, "arguments": list(arguments)}}
    values.pop("format", None)
    pods = objects.parse(helm.template(chart.chart_path(), at, values, "--show-only", TEMPLATE))
    pod = next(p for p in pods if p["kind"] == "Pod")
    path = f"/api/v1/namespaces/{at.namespace}/pods"
    answer = cluster.request("POST", path, pod)
    if not answer.ok:
        if answer.code in (401, 500, 502, 503, 504):
            raise refusal(answer)
        raise not_admitted(f"the {kind} pod", at.namespace, answer.message)
    name = objects.name_of(pod)
    try:
        yield _running(cluster, at, name, tell)
    finally:
        cluster.request("DELETE", f"{path}/{name}", params={"gracePeriodSeconds": 0})


def run_tool(cluster: Cluster, at: Handle, kind: str, tell: Tell, arguments: Sequence[str]) -> dict[str, Any]:
    """Runs `tfleet eval` or `tfleet export` in a pod and returns its JSON answer; what else it says is told.

    Raises:
        TfleetError: what it said, with its exit code.
    """
    with tool_pod(cluster, at, kind, tell, [*arguments, "-o", "json"]) as pod:
        name, container = objects.name_of(pod), objects.main_container(pod)["name"]
        path = f"/api/v1/namespaces/{at.namespace}/pods/{name}"
        answer: list[str] = []
        said = f"tfleet {kind} ended in pod {name} without a word"
        for line in cluster.lines(f"{path}/log", container=container, follow="true"):
            if answer or line == "{":
                answer.append(line)
            elif not line.startswith("tfleet: "):
                tell(line)
            else:
                said = line.removeprefix("tfleet: ")
        code = _exit_code(cluster, path)
        if code == 0 and answer:
            values: dict[str, Any] = json.loads("\n".join(answer))
            return values
        if code == 137:
            raise JobFailed(f"the {kind} pod was killed: it needed more memory than worker.limit.memory allows")
        raise error_for(code, said)


def _running(cluster: Cluster, at: Handle, name: str, tell: Tell) -> dict[str, Any]:
    """Waits until a pod has started, or has ended already."""
    told = ""
    while True:
        pod = cluster.get(f"/api/v1/namespaces/{at.namespace}/pods/{name}")
        if pod is None:
            raise JobFailed(f"the pod {name} was deleted while it was waited for; try again")
        phase = pod.get("status", {}).get("phase")
        if phase in ("Running", "Succeeded", "Failed"):
            return pod
        selector = f"involvedObject.name={name}"
        events = cluster.items(f"/api/v1/namespaces/{at.namespace}/events", fieldSelector=selector)
        reason = pod_reason(pod, events)
        if reason and reason != told:
            tell(f"waiting: pod {name} waits for {reason}")
            told = reason
        time.sleep(INTERVAL)


def _exit_code(cluster: Cluster, path: str) -> int:
    """Returns the exit code of a pod's container, once it has one."""
    for _ in range(40):
        pod = cluster.get(path) or {}
        for status in pod.get("status", {}).get("containerStatuses") or []:
            ended = (status.get("state") or {}).get("terminated")
            if ended:
                return int(ended["exitCode"])
        if not pod:
            break
        time.sleep(INTERVAL)
    raise JobFailed("the pod was deleted before it had answered; try again")
