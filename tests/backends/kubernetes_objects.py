"""Objects as the API server gives them, as small as the decisions on them allow."""

from __future__ import annotations

import json
from typing import Any

LABELS = "app.kubernetes.io"


def pod(role: str = "worker", index: int = 0, phase: str = "Running", name: str = "", **status: Any) -> dict[str, Any]:
    name = name or f"j-{role}-{index}-abcde"
    return {
        "kind": "Pod",
        "apiVersion": "v1",
        "metadata": {
            "name": name,
            "creationTimestamp": "2026-01-01T00:00:00Z",
            "labels": {f"{LABELS}/component": role, "batch.kubernetes.io/job-completion-index": str(index)},
            "ownerReferences": [{"name": f"j-{role}"}],
        },
        "spec": {"nodeName": "node-1", "containers": [{"name": "main"}]},
        "status": {"phase": phase, **status},
    }


def container(**state: Any) -> dict[str, Any]:
    return {"name": "main", "image": "tfleet-worker:0.1.0", "state": state}


def waiting(reason: str, message: str = "") -> dict[str, Any]:
    return {"containerStatuses": [container(waiting={"reason": reason, "message": message})]}


def terminated(message: Any = "", code: int = 1, reason: str = "Error") -> dict[str, Any]:
    text = message if isinstance(message, str) else json.dumps(message)
    return {"containerStatuses": [container(terminated={"reason": reason, "exitCode": code, "message": text})]}


def unschedulable(message: str) -> dict[str, Any]:
    return {"conditions": [{"type": "PodScheduled", "status": "False", "message": message}]}


def event(name: str, reason: str, message: str, when: str = "2026-01-01T00:00:00Z") -> dict[str, Any]:
    return {"involvedObject": {"name": name}, "reason": reason, "message": message, "lastTimestamp": when}


def job(role: str = "worker", *conditions: str, parallelism: int = 1, **words: str) -> dict[str, Any]:
    return {
        "kind": "Job",
        "apiVersion": "batch/v1",
        "metadata": {"name": f"j-{role}", "labels": {f"{LABELS}/component": role, f"{LABELS}/instance": "j"}},
        "spec": {"parallelism": parallelism, "template": {"spec": {"containers": [{"name": "main"}]}}},
        "status": {"conditions": [{"type": c, "status": "True", **words} for c in conditions]},
    }
