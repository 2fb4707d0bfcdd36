"""Starts a plan: asks the cluster whether it would take every part, then installs; leaves nothing half-way."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tfleet.backends.kubernetes import helm, objects
from tfleet.backends.kubernetes.cluster import Answer, Cluster, refusal
from tfleet.backends.kubernetes.handle import Handle
from tfleet.backends.kubernetes.job import KubernetesJob
from tfleet.backends.kubernetes.objects import Object, PodSet
from tfleet.backends.kubernetes.plan import KubernetesPlan
from tfleet.backends.kubernetes.quota import quota_excess
from tfleet.spec.errors import TfleetError, WrongInput, nearest

CLUSTER_WIDE = ("PersistentVolume", "ClusterRole", "ClusterRoleBinding", "Namespace", "PriorityClass")

DRY = {"dryRun": "All", "fieldManager": "tfleet"}


def install(plan: KubernetesPlan, chart: Path, remove: bool = False) -> KubernetesJob:
    """Checks and installs a plan; see `KubernetesBackend.start`.

    Args:
        plan: what to install.
        chart: its folder.
        remove: whether the job uninstalls itself when it is closed.
    """
    cluster = Cluster(plan.at.context)
    with contextlib.ExitStack() as undo:
        undo.callback(cluster.close)
        kept = check(cluster, plan)
        try:
            helm.install(chart, plan.at, plan.values)
        except BaseException:
            with contextlib.suppress(TfleetError):
                clean_up(cluster, plan, kept)
            raise
        undo.pop_all()
    return KubernetesJob(plan.at, cluster, remove=remove)


def check(cluster: Cluster, plan: KubernetesPlan) -> set[str]:
    """Asks the cluster whether it would take everything; changes nothing.

    Returns:
        Kind and name of what is there already and will be adopted, such as the kept claim of an earlier release.

    Raises:
        WrongInput: the first thing that it would not take, and what to change.
    """
    at = plan.at
    _require_namespace(cluster, at)
    if helm.release(at) is not None:
        raise WrongInput(
            f"the release {at.release} is there already in namespace {at.namespace}; choose another name with --name, "
            f"or remove that one with 'helm uninstall {at.release} -n {at.namespace}' (its volume stays)"
        )
    made = objects.installed(objects.parse(plan.manifest))
    kept = {f"{thing['kind']}/{objects.name_of(thing)}" for thing in made if _is_kept(cluster, thing, at)}
    for kind, name in sorted(objects.needed(made)):
        _require(cluster, at, kind, name)
    sets = [_defaulted(cluster, pods, at) for pods in objects.pod_sets(made)]
    quotas = cluster.items(f"/api/v1/namespaces/{at.namespace}/resourcequotas")
    fresh = [o for o in made if f"{o['kind']}/{objects.name_of(o)}" not in kept and o["kind"] != "Pod"]
    if excess := quota_excess(sets, fresh, quotas):
        raise WrongInput(f"namespace {at.namespace}: {excess}")
    return kept


def clean_up(cluster: Cluster, plan: KubernetesPlan, kept: set[str]) -> None:
    """Removes what a failed install left, and the claims that it made: helm keeps those."""
    helm.uninstall(plan.at)
    for thing in objects.parse(plan.manifest):
        name = objects.name_of(thing)
        if thing["kind"] == "PersistentVolumeClaim" and f"PersistentVolumeClaim/{name}" not in kept:
            cluster.request("DELETE", f"{path_of(thing, plan.at.namespace)}/{name}")


def path_of(thing: Object, namespace: str) -> str:
    """Returns the API server's path of the kind of an object."""
    version, kind = thing["apiVersion"], thing["kind"].lower()
    plural = f"{kind[:-1]}ies" if kind.endswith("y") else f"{kind}es" if kind.endswith("ss") else f"{kind}s"
    base = f"/apis/{version}" if "/" in version else f"/api/{version}"
    if thing["kind"] in CLUSTER_WIDE:
        return f"{base}/{plural}"
    return f"{base}/namespaces/{thing['metadata'].get('namespace') or namespace}/{plural}"


def not_admitted(what: str, namespace: str, message: str) -> WrongInput:
    """Returns the error that a refused dry run means: what was refused, why, and what to change."""
    words = " ".join(message.split()).rstrip(". ")
    why = words.split(" is forbidden: ", 1)[-1]
    if found := re.search(r'cannot (\w+) resource "([^"]+)"', words):
        return WrongInput(
            f"you may not {found[1]} {found[2]} in namespace {namespace}; ask its administrator for a role that may "
            "(workspace.role of the chart is one), or choose another with --namespace"
        )
    if why.startswith("exceeded quota"):
        quota = re.search(r"exceeded quota: ([\w.-]+), requested: (.+?), used: (.+?), limited: (.+)", why)
        if quota:
            why = f"the quota {quota[1]} allows {quota[4]}, {quota[3]} is used, and {what} needs {quota[2]}"
        return WrongInput(f"namespace {namespace}: {why}; ask for less, or have the quota raised")
    if "failed quota" in why:
        missing = why.split("must specify", 1)[-1].strip()
        return WrongInput(
            f"namespace {namespace} has a quota by which {what} must say {missing}; "
            "set worker.limit, worker.request, ps.limit and ps.request"
        )
    if "violates PodSecurity" in why:
        return WrongInput(
            f"namespace {namespace} does not admit {what}: {why.replace('violates PodSecurity', 'Pod Security')}; "
            "use a storage.kind and volumes that it allows, or another namespace"
        )
    if "usage per" in why or "ratio per" in why:
        return WrongInput(
            f"the limits of namespace {namespace} do not admit {what}: {why}; "
            "change worker.limit, worker.request, ps.limit or ps.request"
        )
    return WrongInput(f"the cluster would refuse {what}: {why}; change it with --values or --set")


def _require_namespace(cluster: Cluster, at: Handle) -> None:
    answer = cluster.request("GET", f"/api/v1/namespaces/{at.namespace}")
    if answer.code == 404:
        known = cluster.request("GET", "/api/v1/namespaces").json().get("items") or []
        near = nearest(at.namespace, [objects.name_of(n) for n in known])
        raise WrongInput(
            f"there is no namespace {at.namespace}{near} in the cluster of context {at.context}; choose another with "
            f"--namespace, or make it with 'kubectl create namespace {at.namespace}'"
        )
    # Who may not look at the namespace itself may still work inside it.
    if not answer.ok and answer.code != 403:
        raise refusal(answer)
    if (answer.json().get("metadata") or {}).get("deletionTimestamp"):
        raise WrongInput(f"the namespace {at.namespace} is being deleted; choose another with --namespace")


def _require(cluster: Cluster, at: Handle, kind: str, name: str) -> None:
    """Refuses to start pods that would wait for ever for what is not there."""
    path = f"/api/v1/namespaces/{at.namespace}/{kind.lower()}s"
    if cluster.request("GET", f"{path}/{name}").code != 404:
        return
    known = [objects.name_of(o) for o in cluster.request("GET", path).json().get("items") or []]
    raise WrongInput(
        f"the pods need the {kind} {name}, which is not in namespace {at.namespace}{nearest(name, known)}; "
        "make it, or name another in the values"
    )


def _is_kept(cluster: Cluster, thing: Mapping[str, Any], at: Handle) -> bool:
    """Tries to make an object; tells whether it is there already and helm will adopt it.

    Raises:
        WrongInput: when it is somebody else's, or the cluster would refuse it.
    """
    answer = cluster.request("POST", path_of(thing, at.namespace), _placed(thing, at), DRY)
    what = f"the {thing['kind']} {objects.name_of(thing)}"
    if answer.code == 409 and _reason(answer) == "AlreadyExists":
        there = cluster.get(f"{path_of(thing, at.namespace)}/{objects.name_of(thing)}") or {}
        notes = objects.notes(there)
        if (notes.get("meta.helm.sh/release-name"), notes.get("meta.helm.sh/release-namespace")) == (
            at.release,
            at.namespace,
        ):
            return True
        raise WrongInput(
            f"{what} is there already in namespace {at.namespace} and does not belong to release {at.release}; "
            "choose another name with --name"
        )
    if answer.code == 404:
        raise WrongInput(
            f"the cluster of context {at.context} knows no {thing['kind']} of {thing['apiVersion']}; have its "
            "administrator install what makes it, or leave out the value that asks for it"
        )
    if not answer.ok:
        if answer.code in (401, 500, 502, 503, 504):
            raise refusal(answer)
        raise not_admitted(what, at.namespace, answer.message)
    return False


def _defaulted(cluster: Cluster, pods: PodSet, at: Handle) -> PodSet:
    """Tries to make a pod of a template; returns it with what the cluster's LimitRange gives it."""
    pod = _placed(pods.pod, at)
    # The release's own account is not there yet.
    pod["spec"] = {k: v for k, v in pod["spec"].items() if k not in ("serviceAccountName", "serviceAccount")}
    answer = cluster.request("POST", f"/api/v1/namespaces/{at.namespace}/pods", pod, DRY)
    if not answer.ok:
        raise not_admitted(f"the {pods.component or pods.name} pod", at.namespace, answer.message)
    return PodSet(pods.kind, pods.name, pods.component, pods.count, answer.json())


def _placed(thing: Mapping[str, Any], at: Handle) -> dict[str, Any]:
    if thing["kind"] in CLUSTER_WIDE:
        return dict(thing)
    return {**thing, "metadata": {"namespace": at.namespace, **thing["metadata"]}}


def _reason(answer: Answer) -> str:
    return str(answer.json().get("reason", ""))
