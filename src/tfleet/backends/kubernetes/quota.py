"""Holds what a release asks for against the ResourceQuotas of its namespace; pure functions over plain objects."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from decimal import Decimal
from typing import Any

from tfleet.backends.kubernetes.objects import Object, PodSet

_SUFFIXES = {
    "n": Decimal("1e-9"),
    "u": Decimal("1e-6"),
    "m": Decimal("1e-3"),
    "": Decimal(1),
    **{letter: Decimal(1000) ** power for power, letter in enumerate("kMGTPE", 1)},
    **{f"{letter}i": Decimal(1024) ** power for power, letter in enumerate("KMGTPE", 1)},
}

_QUANTITY = re.compile(r"([+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)([numkMGTPE]?|[KMGTPE]i)")

STORAGE = "requests.storage"


def quantity(value: Any) -> Decimal:
    """Reads a quantity of Kubernetes, such as `600m` or `2Gi`.

    Raises:
        ValueError: when it is none.
    """
    match = _QUANTITY.fullmatch(str(value))
    if match is None:
        raise ValueError(f"{value!r} is not a quantity of Kubernetes, such as 600m or 2Gi")
    return Decimal(match[1]) * _SUFFIXES[match[2]]


def written(name: str, amount: Decimal) -> str:
    """Writes an amount of a resource as people write it: bytes in Mi or Gi, cores in m."""
    if "memory" in name or "storage" in name:
        for suffix, places in (("Gi", 2), ("Mi", 0)):
            scaled = amount / _SUFFIXES[suffix]
            if scaled >= 1 and (places or suffix == "Mi"):
                return f"{_trimmed(round(scaled, places))}{suffix}"
        return f"{_trimmed(amount)}"
    if amount != amount.to_integral_value():
        return f"{math.ceil(amount * 1000)}m"
    return _trimmed(amount)


def usage(pod: Object) -> dict[str, Decimal]:
    """Returns what one pod counts for in a quota: `pods`, `requests.cpu`, `limits.memory`, and so on.

    Init containers run one after the other before the rest, so that the largest counts where it is larger; those
    with `restartPolicy: Always` run beside the rest.
    """
    spec = pod["spec"]
    total: dict[str, Decimal] = {"pods": Decimal(1), "count/pods": Decimal(1)}
    beside = [c for c in spec.get("initContainers") or [] if c.get("restartPolicy") == "Always"]
    before = [c for c in spec.get("initContainers") or [] if c.get("restartPolicy") != "Always"]
    for container in (*spec["containers"], *beside):
        for name, amount in _resources(container).items():
            total[name] = total.get(name, Decimal(0)) + amount
    for container in before:
        for name, amount in _resources(container).items():
            total[name] = max(total.get(name, Decimal(0)), amount)
    for short in ("cpu", "memory"):
        if f"requests.{short}" in total:
            total[short] = total[f"requests.{short}"]
    return total


def object_usage(thing: Object) -> dict[str, Decimal]:
    """Returns what an object other than a pod counts for in a quota."""
    kind, group = thing["kind"], thing["apiVersion"].rpartition("/")[0]
    plural = {"NetworkPolicy": "networkpolicies"}.get(kind, f"{kind.lower()}s")
    one = Decimal(1)
    found = {f"count/{plural}.{group}" if group else f"count/{plural}": one}
    if not group and kind in ("Service", "ConfigMap", "Secret", "PersistentVolumeClaim", "ResourceQuota"):
        found[plural] = one
    if kind == "PersistentVolumeClaim":
        spec = thing["spec"]
        size = quantity(spec["resources"]["requests"]["storage"])
        found[STORAGE] = size
        if spec.get("storageClassName"):
            prefix = f"{spec['storageClassName']}.storageclass.storage.k8s.io"
            found |= {f"{prefix}/{STORAGE}": size, f"{prefix}/persistentvolumeclaims": one}
    return found


def quota_excess(pods: Iterable[PodSet], objects: Iterable[Object], quotas: Iterable[Object]) -> str:
    """Returns one sentence on the first quota that all pods and objects together would exceed; empty: none.

    Args:
        pods: with the resources that the cluster's LimitRange gives them.
        objects: what is installed, without what is there already.
        quotas: the namespace's ResourceQuotas.
    """
    pods, objects = list(pods), list(objects)
    for quota in quotas:
        status = quota.get("status") or {}
        hard = status.get("hard") or quota.get("spec", {}).get("hard") or {}
        used = status.get("used") or {}
        asked: dict[str, Decimal] = {}
        for pod_set in pods:
            if in_scope(pod_set.pod, quota):
                _add(asked, usage(pod_set.pod), pod_set.count)
        if not _scoped(quota):
            for thing in objects:
                _add(asked, object_usage(thing), 1)
        for name in sorted(hard):
            left = quantity(hard[name]) - quantity(used.get(name, 0))
            if asked.get(name, Decimal(0)) > left:
                return _excess(quota, name, asked[name], left, quantity(hard[name]))
    return ""


def in_scope(pod: Object, quota: Object) -> bool:
    """Tells whether a quota counts a pod; a scope that is not known here counts none."""
    spec = pod["spec"]
    ends = spec.get("activeDeadlineSeconds") is not None
    best_effort = not any(_resources(c) for c in spec["containers"])
    verdicts = {
        "Terminating": ends,
        "NotTerminating": not ends,
        "BestEffort": best_effort,
        "NotBestEffort": not best_effort,
    }
    return all(verdicts.get(scope, False) for scope in _scoped(quota))


def _scoped(quota: Object) -> list[str]:
    spec = quota.get("spec", {})
    selectors = (spec.get("scopeSelector") or {}).get("matchExpressions") or []
    # A selector with values (a priority class) is judged by the cluster alone.
    return [*(spec.get("scopes") or []), *(f"{s.get('scopeName')} {s.get('operator')}" for s in selectors)]


def _resources(container: Mapping[str, Any]) -> dict[str, Decimal]:
    resources = container.get("resources") or {}
    limits, requests = resources.get("limits") or {}, resources.get("requests") or {}
    found = {f"limits.{name}": quantity(amount) for name, amount in limits.items()}
    # What is limited and not requested is requested as much as it is limited.
    return found | {f"requests.{name}": quantity(amount) for name, amount in {**limits, **requests}.items()}


def _add(total: dict[str, Decimal], more: Mapping[str, Decimal], times: int) -> None:
    for name, amount in more.items():
        total[name] = total.get(name, Decimal(0)) + amount * times


def _excess(quota: Object, name: str, asked: Decimal, left: Decimal, hard: Decimal) -> str:
    change = "ask for less with worker.number, ps.number, worker.limit or worker.request"
    if name.endswith("storage"):
        change = "ask for less with storage.size, or use an existing claim with storage.kind=claim"
    return (
        f"the quota {quota['metadata']['name']} leaves {written(name, max(left, Decimal(0)))} of {name} "
        f"(of {written(name, hard)}), but the job needs {written(name, asked)}; {change}, "
        "or have the quota raised"
    )


def _trimmed(amount: Decimal) -> str:
    return f"{amount.normalize():f}"
