"""What a rendered manifest says: its objects, the pods they will make, and the replicas of a plan."""

from __future__ import annotations

import base64
import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import yaml

from tfleet.backends.base import Replica

Object = Mapping[str, Any]
"""A Kubernetes object as plain values."""

INSTANCE, COMPONENT, NAME = "app.kubernetes.io/instance", "app.kubernetes.io/component", "app.kubernetes.io/name"

AT_INSTALL = "set when it is installed"
"""Stands for every secret of a manifest that is shown."""

HOOK = "helm.sh/hook"
MAIN = "main"
"""Name of the one container of a pod that tfleet looks at."""


@dataclass(frozen=True)
class PodSet:
    """Pods that are made from one template.

    Attributes:
        kind: of the object that makes them, such as Job.
        name: of that object.
        component: ps, worker, evaluator, tensorboard, serving.
        count: how many there will be at once.
        pod: the template as a Pod.
    """

    kind: str
    name: str
    component: str
    count: int
    pod: Object


def parse(manifest: str) -> list[dict[str, Any]]:
    """Returns the objects of a manifest in their order."""
    return [document for document in yaml.safe_load_all(manifest) if document]


def installed(objects: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """Returns the objects that `helm install` makes: all but the hooks, such as those of `helm test`."""
    return [o for o in objects if HOOK not in notes(o)]


def hide_secrets(manifest: str) -> str:
    """Replaces the data of every Secret, so that a plan can be shown and is the same each time it is made."""
    placeholder = base64.b64encode(AT_INSTALL.encode()).decode()
    documents = re.split(r"(?m)^---[^\n]*\n", manifest)
    shown = []
    for text in documents:
        if re.search(r"(?m)^kind: Secret\s*$", text):
            secret = yaml.safe_load(text)
            values = {*secret.get("data", {}).values(), *secret.get("stringData", {}).values()}
            for value in sorted((str(v) for v in values if v), key=len, reverse=True):
                text = text.replace(value, placeholder)
        shown.append(text)
    return "---\n".join(shown)


def without_secrets(manifest: str, namespace: str) -> str:
    """Returns a manifest without its Secrets, and first, as comments, the commands that make them.

    Args:
        manifest: rendered by helm.
        namespace: that the Secrets are to be in.
    """
    kept, made = [], []
    for text in re.split(r"(?m)^---[^\n]*\n", manifest):
        thing = yaml.safe_load(text)
        if not thing or thing["kind"] != "Secret":
            kept += [text] if thing else []
            continue
        keys = sorted({**(thing.get("data") or {}), **(thing.get("stringData") or {})})
        # By files and pipes: what stands in a command line, others can read.
        random, files = ("openssl rand -hex 32 | ", ["/dev/stdin"]) if keys == ["token"] else ("", ["FILE"] * len(keys))
        given = " ".join(f"--from-file={key}={file}" for key, file in zip(keys, files, strict=True))
        made.append(f"# {random}kubectl -n {namespace} create secret generic {name_of(thing)} {given}\n")
    head = "# Secrets are not printed; make them first:\n" if made else ""
    return head + "".join(made) + "".join(f"---\n{text}" for text in kept)


def notes(thing: Object) -> dict[str, str]:
    """Returns the annotations of an object."""
    return dict(thing.get("metadata", {}).get("annotations") or {})


def labels(thing: Object) -> dict[str, str]:
    """Returns the labels of an object."""
    return dict(thing.get("metadata", {}).get("labels") or {})


def name_of(thing: Object) -> str:
    """Returns the name of an object."""
    return str(thing["metadata"]["name"])


def find(objects: Iterable[dict[str, Any]], kind: str, component: str) -> dict[str, Any] | None:
    """Returns the first object of a kind and component."""
    return next((o for o in objects if o["kind"] == kind and labels(o).get(COMPONENT) == component), None)


def pod_sets(objects: Iterable[Object]) -> list[PodSet]:
    """Returns the pods that objects will make."""
    found = []
    for thing in objects:
        template = thing.get("spec", {}).get("template")
        if thing["kind"] == "Pod":
            found.append(PodSet("Pod", name_of(thing), labels(thing).get(COMPONENT, ""), 1, thing))
        elif thing["kind"] in ("Job", "Deployment") and template:
            spec = thing["spec"]
            count = spec.get("parallelism", 1) if thing["kind"] == "Job" else spec.get("replicas", 1)
            pod = {
                "apiVersion": "v1",
                "kind": "Pod",
                "metadata": {**template.get("metadata", {}), "name": f"{name_of(thing)}-check"},
                "spec": {"restartPolicy": "Always", **template["spec"]},
            }
            component = labels(template).get(COMPONENT) or labels(thing).get(COMPONENT, "")
            found.append(PodSet(thing["kind"], name_of(thing), component, int(count), pod))
    return found


def needed(objects: Collection[Object]) -> set[tuple[str, str]]:
    """Returns kind and name of every claim and Secret that pods mount and that is not made by the objects."""
    made = {(thing["kind"], name_of(thing)) for thing in objects}
    made |= {("Secret", str(thing["spec"]["secretName"])) for thing in objects if thing["kind"] == "Certificate"}
    found = set()
    for pods in pod_sets(objects):
        for volume in pods.pod["spec"].get("volumes") or []:
            claim, secret = volume.get("persistentVolumeClaim"), volume.get("secret")
            if claim:
                found.add(("PersistentVolumeClaim", str(claim["claimName"])))
            if secret and not secret.get("optional"):
                found.add(("Secret", str(secret["secretName"])))
    return found - made


def replicas(objects: Iterable[Object]) -> tuple[Replica, ...]:
    """Returns the replicas that the Jobs of a manifest start: ps first, then workers, then the evaluator."""
    order = {"ps": 0, "worker": 1, "evaluator": 2}
    sets = [s for s in pod_sets(objects) if s.kind == "Job" and s.component in order]
    found = []
    for pods in sorted(sets, key=lambda s: order[s.component]):
        container = main_container(pods.pod)
        command = (*container.get("command", ()), *container.get("args", ()))
        env = {e["name"]: str(e["value"]) for e in container.get("env", ()) if "value" in e}
        found += [Replica(pods.component, index, tuple(map(str, command)), env) for index in range(pods.count)]
    return tuple(found)


def main_container(pod: Object) -> Object:
    """Returns the container in which the replica runs."""
    containers: list[Object] = pod["spec"]["containers"]
    return next((c for c in containers if c["name"] == MAIN), containers[0])


def run_dir_of(objects: Iterable[Object]) -> str:
    """Returns the run directory inside the volume, from what the pods are told; empty with a command of the user's."""
    for replica in replicas(objects):
        if "--run-dir" in replica.command[:-1]:
            return replica.command[replica.command.index("--run-dir") + 1]
    return ""
