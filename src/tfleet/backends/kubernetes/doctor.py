"""`tfleet doctor --on kubernetes`: will a cluster take a job of 2 workers and 2 ps, and what to do where not."""

from __future__ import annotations

import importlib.metadata
import re
from collections.abc import Mapping, Sequence
from typing import Any

from tfleet.backends.doctor import Finding
from tfleet.backends.kubernetes import helm, kubeconfig, objects
from tfleet.backends.kubernetes.backend import KubernetesBackend
from tfleet.backends.kubernetes.cluster import EXTRA, Cluster
from tfleet.backends.kubernetes.handle import Handle
from tfleet.backends.kubernetes.quota import quota_excess
from tfleet.spec.errors import TfleetError
from tfleet.spec.job import JobSpec

LEAST_KUBERNETES = (1, 31)
"""successPolicy of Jobs."""

LEAST_HELM = (3, 14)

DEFAULT_CLASS = "storageclass.kubernetes.io/is-default-class"

NEEDED: tuple[tuple[str, str, str], ...] = (
    ("create", "batch", "jobs"),
    ("create", "", "services"),
    ("create", "", "configmaps"),
    ("create", "", "secrets"),
    ("create", "", "serviceaccounts"),
    ("create", "", "persistentvolumeclaims"),
    ("create", "networking.k8s.io", "networkpolicies"),
    ("create", "", "pods"),
    ("list", "", "secrets"),
    ("update", "", "secrets"),
)
"""Verb, API group and resource without which nothing can be installed; helm keeps its releases as Secrets."""

USEFUL: tuple[tuple[str, str, str, str], ...] = (
    ("get", "", "services/proxy", "the status is then read by a forwarded port, which is slower"),
    ("create", "", "pods/portforward", "'tfleet stop' then does not work; remove the job with helm uninstall"),
    ("create", "", "pods/exec", "'tfleet copy' then does not work"),
    ("get", "", "pods/log", "'tfleet logs', 'eval' and 'export' then do not work"),
    ("delete", "", "pods", "'tfleet copy', 'eval' and 'export' then leave their pods behind for an hour"),
    ("list", "", "events", "what pods wait for is then told less well"),
)
"""Verb, API group, resource, and what is missing without."""


def examine(context: str = "", namespace: str = "") -> list[Finding]:
    """Checks cluster and tools; blocks for some questions to the API server.

    Args:
        context: of the kubeconfig; empty: the current one.
        namespace: empty: the context's.
    """
    findings = [client(), helm_program()]
    try:
        context, namespace = kubeconfig.choose(context, namespace)
    except TfleetError as error:
        return [*findings, Finding("context", False, str(error), "set KUBECONFIG, or choose with --context")]
    findings.append(Finding("context", True, f"{context}, namespace {namespace}"))
    if not findings[0].ok:
        return findings
    with Cluster(context) as cluster:
        try:
            answer = cluster.request("GET", "/version", timeout=5.0)
        except TfleetError as error:
            return [*findings, Finding("cluster", False, str(error), "start it, or choose another with --context")]
        findings.append(kubernetes(answer.json()))
        there = space(cluster, namespace)
        findings.append(there)
        if there.ok:
            classes = cluster.request("GET", "/apis/storage.k8s.io/v1/storageclasses")
            findings += [*rights(cluster, namespace), storage(classes.json().get("items") if classes.ok else None)]
            if findings[1].ok:
                findings.append(quota(cluster, Handle(context, namespace, "doctor")))
    return findings


def client() -> Finding:
    """Checks that the Python client is installed."""
    try:
        return Finding("kr8s", True, importlib.metadata.version("kr8s"))
    except importlib.metadata.PackageNotFoundError:
        return Finding("kr8s", False, "not installed", EXTRA.partition("; ")[2])


def helm_program() -> Finding:
    """Checks helm and its version."""
    try:
        version = helm.version()
    except TfleetError as error:
        return Finding("helm", False, "not found in PATH", str(error).partition("; ")[2])
    numbers = tuple(int(n) for n in re.findall(r"\d+", version)[:2])
    least = ".".join(map(str, LEAST_HELM))
    ok = numbers >= LEAST_HELM
    return Finding("helm", ok, version, "" if ok else f"install Helm {least} or newer")


def kubernetes(version: Mapping[str, Any]) -> Finding:
    """Checks the version that the API server tells."""
    numbers = tuple(int(re.sub(r"\D", "", str(version.get(key, "0"))) or 0) for key in ("major", "minor"))
    least = ".".join(map(str, LEAST_KUBERNETES))
    ok = numbers >= LEAST_KUBERNETES
    told = str(version.get("gitVersion") or "answers, but tells no version")
    advice = f"use a cluster of Kubernetes {least} or newer: the Jobs of older ones cannot end early"
    return Finding("Kubernetes", ok, told, "" if ok else advice)


def space(cluster: Cluster, namespace: str) -> Finding:
    """Checks that the namespace exists."""
    answer = cluster.request("GET", f"/api/v1/namespaces/{namespace}")
    level = objects.labels(answer.json()).get("pod-security.kubernetes.io/enforce", "none enforced")
    if answer.code == 404:
        advice = f"make it with 'kubectl create namespace {namespace}', or choose another with --namespace"
        return Finding("namespace", False, f"{namespace} does not exist", advice)
    return Finding("namespace", True, namespace if answer.code == 403 else f"{namespace}, Pod Security: {level}")


def rights(cluster: Cluster, namespace: str) -> list[Finding]:
    """Asks what the user may do in the namespace."""
    verbs: dict[str, list[str]] = {}
    for verb, group, what in NEEDED:
        if not _may(cluster, namespace, verb, group, what):
            verbs.setdefault(verb, []).append(what)
    refused = [f"{verb} {', '.join(resources)}" for verb, resources in verbs.items()]
    detail = (
        f"you may not {', nor '.join(refused)} in namespace {namespace}" if refused else "all that installing needs"
    )
    advice = "" if not refused else "ask for a role that may; workspace.role of the chart is one"
    findings = [Finding("rights", not refused, detail, advice)]
    for verb, group, what, loss in USEFUL:
        if not _may(cluster, namespace, verb, group, what):
            findings.append(Finding("rights", False, f"you may not {verb} {what}", loss, required=False))
    return findings


def storage(classes: Sequence[Mapping[str, Any]] | None) -> Finding:
    """Checks that a claim without a class gets a volume; None: the classes may not be seen."""
    if classes is None:
        return Finding("storage class", True, "you may not see them; a claim without a class gets the default one")
    names = [objects.name_of(c) for c in classes]
    default = [objects.name_of(c) for c in classes if objects.notes(c).get(DEFAULT_CLASS) == "true"]
    if default:
        return Finding("storage class", True, f"{default[0]} (several nodes need one that can ReadWriteMany)")
    told = f"none is the default; there are: {', '.join(names)}" if names else "there is none"
    advice = "choose one with --set storage.className=NAME, or use a claim of yours with --set storage.kind=claim"
    return Finding("storage class", False, told, advice, required=False)


def quota(cluster: Cluster, at: Handle) -> Finding:
    """Holds a job of default size against the namespace's quotas."""
    quotas = _items(cluster, f"/api/v1/namespaces/{at.namespace}/resourcequotas")
    if not quotas:
        return Finding("quota", True, "none")
    made = objects.installed(objects.parse(KubernetesBackend(at).plan(JobSpec(task="mnist")).manifest))
    things = [o for o in made if o["kind"] != "Pod"]
    excess = quota_excess(objects.pod_sets(made), things, quotas)
    names = ", ".join(objects.name_of(q) for q in quotas)
    if not excess:
        return Finding("quota", True, f"{names}: leaves room for 2 workers and 2 ps")
    return Finding("quota", False, *_split(excess), required=False)


def _split(sentence: str) -> tuple[str, str]:
    told, _, advice = sentence.partition("; ")
    return told, advice


def _may(cluster: Cluster, namespace: str, verb: str, group: str, resource: str) -> bool:
    name, _, sub = resource.partition("/")
    attributes = {"namespace": namespace, "verb": verb, "group": group, "resource": name, "subresource": sub}
    review = {
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SelfSubjectAccessReview",
        "spec": {"resourceAttributes": attributes},
    }
    answer = cluster.request("POST", "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews", review)
    return bool((answer.json().get("status") or {}).get("allowed"))


def _items(cluster: Cluster, path: str) -> list[dict[str, Any]]:
    """Returns a list that the user may not be allowed to see: then nothing."""
    return list(cluster.request("GET", path).json().get("items") or [])
