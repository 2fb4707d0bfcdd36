"""One release of the chart: how a test installs, watches and ends it."""

from __future__ import annotations

import base64
import json
from functools import cached_property
from pathlib import Path
from typing import Any

import pytest
from cluster import CHART
from finished import Finished
from namespaces import Namespace
from waiting import wait_until

from tfleet.server.control import call
from tfleet.wire.address import Address

INSTANCE = "app.kubernetes.io/instance"
COMPONENT = "app.kubernetes.io/component"
ENDED = {"Complete", "SuccessCriteriaMet", "Failed", "FailureTarget"}
"""Conditions of a Job that has ended; while a node is dead only the second and the fourth of them can come."""
HOPELESS = {"InvalidImageName", "ErrImagePull", "ImagePullBackOff", "ErrImageNeverPull", "CreateContainerConfigError"}
"""Why a container waits for ever."""


class Release:
    """A release of `charts/tfleet` in a namespace; its full name is the release's name."""

    def __init__(self, namespace: Namespace, name: str) -> None:
        self.namespace = namespace
        self.name = name

    # --- helm

    def install(self, *arguments: str) -> Release:
        """Installs the chart; `key=value` stands for `--set key=value`."""
        self.namespace.helm("install", self.name, str(CHART), *_flags(arguments)).good()
        return self

    def upgrade(self, *arguments: str) -> Finished:
        """Upgrades with the values that the release has, as users do."""
        return self.namespace.helm("upgrade", self.name, str(CHART), "--reuse-values", *_flags(arguments))

    def uninstall(self) -> None:
        """Removes the release and waits until it is gone."""
        self.namespace.helm("uninstall", self.name, "--cascade", "foreground", "--wait", "--timeout", "120s").good()

    # --- objects

    def select(self, component: str = "") -> str:
        return f"{INSTANCE}={self.name}" + (f",{COMPONENT}={component}" if component else "")

    def jobs(self) -> dict[str, set[str]]:
        """The true conditions of each Job of this release, by component."""
        found = self.namespace.items("jobs", "-l", self.select())
        return {
            job["metadata"]["labels"][COMPONENT]: {
                c["type"] for c in job["status"].get("conditions", []) if c["status"] == "True"
            }
            for job in found
        }

    def pods(self, component: str = "", running: bool = False) -> list[dict[str, Any]]:
        """Pods of a component, oldest first; with `running` only those that run and are not being deleted."""
        found = self.namespace.items("pods", "-l", self.select(component), "--sort-by=.metadata.creationTimestamp")
        if not running:
            return found
        return [p for p in found if p["status"]["phase"] == "Running" and "deletionTimestamp" not in p["metadata"]]

    def check_pods(self) -> None:
        """Fails the test at once where a pod waits for what will not come."""
        for pod in self.pods():
            for container in pod["status"].get("containerStatuses", []):
                waiting = container.get("state", {}).get("waiting", {})
                if waiting.get("reason") in HOPELESS:
                    pytest.fail(f"{pod['metadata']['name']} waits: {waiting}")

    def pod(self, component: str, index: int = 0) -> dict[str, Any]:
        """The running pod of this index; fails where there is none or more than one."""
        found = [pod for pod in self.pods(component, running=True) if index_of(pod) == index]
        assert len(found) == 1, f"{len(found)} running pods of {component} {index}"
        return found[0]

    def delete_pod(self, component: str, index: int = 0) -> str:
        """Deletes a running pod without waiting for its end; returns its uid."""
        pod = self.pod(component, index)
        self.namespace.kubectl("delete", "pod", pod["metadata"]["name"], "--wait=false").good()
        return str(pod["metadata"]["uid"])

    def kill_process(self, component: str, index: int = 0) -> None:
        """Kills the replica's process within its pod, not the supervisor above it."""
        module = "tfleet.server" if component == "ps" else "tfleet.worker"
        script = (
            "import os, pathlib, signal\n"
            "for folder in pathlib.Path('/proc').iterdir():\n"
            f"  if folder.name.isdigit() and {module!r} in (folder / 'cmdline').read_bytes().decode().split('\\0'):\n"
            "    os.kill(int(folder.name), signal.SIGKILL)\n"
            "    print(folder.name)\n"
        )
        name = self.pod(component, index)["metadata"]["name"]
        killed = self.namespace.kubectl("exec", name, "--", "python", "-c", script).good().out
        assert killed.strip(), f"no process of {module} in {name}"

    # --- the job

    @cached_property
    def token(self) -> bytes:
        secret = self.namespace.kubectl("get", "secret", f"{self.name}-token", "-o", "json").good().json()
        return base64.b64decode(secret["data"]["token"])

    def status(self) -> dict[str, Any]:
        """What ps 0 says through the API server's proxy; empty while it does not answer."""
        path = f"/api/v1/namespaces/{self.namespace.name}/services/{self.name}:status/proxy/status"
        code, body = self.namespace.cluster.get(path, {"X-Tfleet-Token": self.token.decode()})
        return dict(json.loads(body)) if code == 200 else {}

    def wait_for_step(self, step: int, seconds: float = 180) -> dict[str, Any]:
        """Waits until the global step is so far; returns the status."""

        def there() -> dict[str, Any]:
            self.check_pods()
            ended = self.jobs().get("worker", set()) & ENDED
            assert not ended, f"the job has ended: {ended}"
            now = self.status()
            return now if now.get("step", 0) >= step else {}

        return wait_until(there, f"{self.name} to reach step {step}", seconds)

    def wait_over(self, seconds: float = 240, final: bool = True) -> dict[str, set[str]]:
        """Waits until every Job of the release has ended; returns their conditions.

        Args:
            seconds: to wait at most.
            final: wait for Complete or Failed; without it what a Job has while a node is dead will do.
        """
        enough = {"Complete", "Failed"} if final else ENDED

        def over() -> dict[str, set[str]]:
            self.check_pods()
            jobs = self.jobs()
            assert jobs, "there are no Jobs"
            assert all(conditions & enough for conditions in jobs.values()), jobs
            return jobs

        return wait_until(over, f"all Jobs of {self.name} to end", seconds)

    def ends(self, component: str = "worker") -> list[dict[str, Any]]:
        """What the pods of a component wrote at their end, with their `code`."""
        found = []
        for pod in self.pods(component):
            for container in pod["status"].get("containerStatuses", []):
                ended = container.get("state", {}).get("terminated")
                if ended:
                    said = ended.get("message", "")
                    values = json.loads(said) if said.startswith("{") else {"reason": said}
                    found.append({**values, "code": ended["exitCode"]})
        return found

    def end(self, how: str = "stop", reason: str = "") -> None:
        """Asks ps 0 to end the job, over its data port."""
        pod = self.pod("ps", 0)
        call(Address.parse(f"{pod['status']['podIP']}:2222"), self.token, "end", how=how, reason=reason)

    @property
    def volume(self) -> Path:
        """The directory of this machine behind the release's claim."""
        claim = self.namespace.kubectl("get", "pvc", self.name, "-o", "json").good().json()
        volume = self.namespace.cluster.kubectl("get", "pv", claim["spec"]["volumeName"], "-o", "json").good().json()
        return Path(volume["spec"]["hostPath"]["path"])

    @property
    def run_dir(self) -> Path:
        """The run directory on the claim, as this machine sees it."""
        return self.volume / self.name

    def final_status(self) -> dict[str, Any]:
        """The status.json that the job has left on its claim."""
        return dict(json.loads((self.run_dir / "status.json").read_text()))


def index_of(pod: dict[str, Any]) -> int:
    """The completion index of a pod; 0 where its Job is not indexed."""
    return int(pod["metadata"]["annotations"].get("batch.kubernetes.io/job-completion-index", 0))


def node_of(pod: dict[str, Any]) -> str:
    return str(pod["spec"]["nodeName"])


def _flags(arguments: tuple[str, ...]) -> list[str]:
    flags: list[str] = []
    for argument in arguments:
        plain = argument.startswith("-") or "=" not in argument
        flags += [argument] if plain else ["--set", argument]
    return flags
