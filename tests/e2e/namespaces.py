"""Namespaces of a test: fresh, restricted unless asked otherwise, and emptied at the end."""

from __future__ import annotations

import itertools
import os
import shutil
from pathlib import Path
from typing import Any

from cluster import Cluster, run
from finished import Finished

RESTRICTED = "pod-security.kubernetes.io/enforce=restricted"
PREFIX = "e2e-"
_NUMBERS = itertools.count(1)


class Namespace:
    """One namespace of the cluster."""

    def __init__(self, cluster: Cluster, restricted: bool = True) -> None:
        recycle_volumes(cluster)
        self.cluster = cluster
        self.name = f"{PREFIX}{os.getpid()}-{next(_NUMBERS)}"
        cluster.kubectl("create", "namespace", self.name).good()
        if restricted:
            cluster.kubectl("label", "namespace", self.name, RESTRICTED).good()

    def kubectl(self, *arguments: str, text: str | None = None) -> Finished:
        return run("kubectl", "-n", self.name, *arguments, text=text)

    def helm(self, *arguments: str) -> Finished:
        return run("helm", "-n", self.name, *arguments)

    def items(self, kind: str, *arguments: str) -> list[dict[str, Any]]:
        return self.cluster.items(kind, "-n", self.name, *arguments)

    def apply(self, manifest: str) -> None:
        self.kubectl("apply", "-f", "-", text=manifest).good()

    def left(self, *but: str) -> list[str]:
        """Names `kind/name` of all objects that a user made here; what every namespace has, and events, are left out.

        Args:
            *but: kinds that do not count.
        """
        kinds = run("kubectl", "api-resources", "--namespaced", "--verbs=list", "-o", "name").good().out.split()
        own = ("configmap/kube-root-ca.crt", "serviceaccount/default")
        ignored = {"events", "events.events.k8s.io", *but}
        found = self.kubectl("get", ",".join(k for k in kinds if k not in ignored), "-o", "name").good().out.split()
        return [name for name in found if name not in own]

    def describe(self) -> str:
        """What a reader of a failed test needs: pods, jobs, events, and the end of each pod's log."""
        parts = [
            self.kubectl("get", "jobs,pods,pvc", "-o", "wide").out,
            self.kubectl("get", "events", "--sort-by=.lastTimestamp").out[-6000:],
        ]
        for pod in self.items("pods"):
            name = pod["metadata"]["name"]
            log = self.kubectl("logs", name, "--tail=40", "--all-containers")
            ended = [c.get("state", {}).get("terminated") for c in pod["status"].get("containerStatuses", [])]
            parts.append(f"--- {name} {ended}\n{log.out}{log.err}")
        return "\n".join(parts)

    def uninstall(self) -> None:
        """Ends every release here; a namespace with running Jobs could not be deleted."""
        for release in self.helm("list", "--all", "--short").out.split():
            self.helm("uninstall", release, "--ignore-not-found", "--cascade", "foreground", "--wait", "--timeout=60s")

    def delete(self) -> None:
        """Removes the namespace with all that is in it; does not wait until it is gone."""
        self.uninstall()
        self.kubectl("delete", "jobs", "--all", "--wait=false")
        self.cluster.kubectl("delete", "namespace", self.name, "--wait=false")
        for volume in self.cluster.items("persistentvolumes", "-l", "app.kubernetes.io/name=tfleet"):
            if volume["spec"].get("claimRef", {}).get("namespace") == self.name:
                self.cluster.kubectl("delete", "pv", volume["metadata"]["name"], "--wait=false")


def recycle_volumes(cluster: Cluster) -> None:
    """Empties the volumes that claims of earlier namespaces of these tests have left, and offers them again."""
    for volume in cluster.items("persistentvolumes"):
        claim = volume["spec"].get("claimRef", {})
        own = claim.get("namespace", "").startswith(PREFIX) and volume["spec"].get("storageClassName") == "shared"
        if own and volume["status"].get("phase") == "Released":
            folder = Path(volume["spec"]["hostPath"]["path"])
            for entry in folder.iterdir():
                shutil.rmtree(entry) if entry.is_dir() else entry.unlink()
            patch = '{"spec": {"claimRef": null}}'
            cluster.kubectl("patch", "pv", volume["metadata"]["name"], "--type=merge", "-p", patch).good()
