"""A job on Kubernetes: watched through the API server, ended through ps 0, scaled through helm."""

from __future__ import annotations

import base64
import contextlib
import http.client
import json
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from tfleet.backends.base import Ending, Job
from tfleet.backends.kubernetes import chart, helm, logs
from tfleet.backends.kubernetes.cluster import Cluster, Unreachable
from tfleet.backends.kubernetes.handle import Handle
from tfleet.backends.kubernetes.objects import COMPONENT, INSTANCE, MAIN, NAME, labels, main_container, name_of
from tfleet.backends.kubernetes.result import Result, result
from tfleet.backends.kubernetes.waiting import absence, index_of, waiting_reason
from tfleet.server import control
from tfleet.server.scaling import refuse_colocated
from tfleet.spec.errors import ExitCode, JobFailed, TfleetError, WrongInput, nearest
from tfleet.spec.job import JobSpec
from tfleet.wire.address import Address

if TYPE_CHECKING:
    from tfleet.wire.tls import Tls

LOOK = 1.0
"""Seconds between two looks at Jobs and pods."""

ASK = 0.5
"""Seconds between two questions to ps 0."""

TOKEN_PATH = "/etc/tfleet/token"
"""Where the pods see the token: the volume there names the Secret."""

TLS_PATH = "/etc/tfleet/tls"
"""Where they see their certificate, its key, and the CA."""

TLS_KEYS = ("tls.crt", "tls.key", "ca.crt")
"""What a Secret for TLS holds: certificate, its key, the CA."""

RUNTIME = "tfleet.backends.pod"
"""What a pod of task mode runs; any other command is the user's own."""

GONE = "the release was uninstalled"


class KubernetesJob(Job):
    """A release of the chart, installed by this process or found by its handle.

    Args:
        at: context, namespace and release.
        cluster: of that context; this job closes it.
        remove: uninstall the release when the job is closed.
        clock: seconds, monotonic.
    """

    def __init__(
        self, at: Handle, cluster: Cluster, remove: bool = False, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.handle = str(at)
        self.at = at
        self.cluster = cluster
        self.outlives = not remove
        self._remove = remove
        self._clock = clock
        self._jobs: list[dict[str, Any]] = []
        self._pods: list[dict[str, Any]] = []
        self._events: list[dict[str, Any]] = []
        self._looked = self._asked = float("-inf")
        self._answered = False
        self._last: dict[str, Any] = {}
        self._trouble = ""
        self._by_proxy = True
        self._token = b""
        self._ports: dict[str, int] = {}
        self._abandoned = False

    @property
    def fullname(self) -> str:
        """What the names of all objects of the release begin with."""
        worker = self._job_of("worker")
        return name_of(worker).removesuffix("-worker") if worker else self.at.release

    @property
    def run_dir(self) -> str:
        """The run directory inside the volume; empty with a command of the user's own, or when nothing is there."""
        worker = self._job_of("worker")
        if worker is None:
            return ""
        words = [str(w) for w in main_container({"spec": worker["spec"]["template"]["spec"]}).get("args") or []]
        return words[words.index("--run-dir") + 1] if "--run-dir" in words[:-1] else ""

    def require(self) -> None:
        """Looks the release up.

        Raises:
            WrongInput: when there is none, with the nearest.
        """
        self._look()
        if self._trouble:
            raise Unreachable(self._trouble)
        if self._jobs:
            return
        everything = self.cluster.items(self._path("batch/v1", "jobs"), labelSelector=f"{NAME}=tfleet")
        known = sorted({labels(job).get(INSTANCE, "") for job in everything} - {""})
        there = f"; there are: {', '.join(known)}" if known else "; there are none"
        raise WrongInput(
            f"there is no job {self.at.release}{nearest(self.at.release, known)} in namespace {self.at.namespace} "
            f"of context {self.at.context}{there}"
        )

    def status(self) -> dict[str, Any]:
        """Returns what ps 0 last told; `waiting` says what pods wait for while it does not answer.

        Blocks for two short questions at most once in `ASK` seconds.
        """
        self._look()
        ended = self._result()
        if ended is not None:
            return {**self._last, **ended.status(), "waiting": ""}
        if self._clock() - self._asked >= ASK:
            self._ask()
            self._asked = self._clock()
        started: dict[str, Any] = {"phase": "starting"} if self._task_mode else {"phase": "running"}
        return {**started, **self._last, "waiting": self._waiting()}

    def poll(self) -> ExitCode | None:
        """Returns the result by the conditions of the Jobs; see `Job.poll`."""
        self._look()
        ended = self._result()
        return None if ended is None else ended.code

    def end(self, how: Ending, reason: str) -> None:
        """Asks ps 0 to end the job, by a forwarded port; see `Job.end`.

        Raises:
            WrongInput: when the job is over.
            JobFailed: when ps 0 does not run yet.
        """
        try:
            self._require_running()
            self.call("end", how=how, reason=reason)
        except JobFailed:
            if not self._remove:
                raise
            # Whoever is about to uninstall it need not wait for a job that cannot answer.
            self._abandoned = True

    def call(self, name: str, **values: Any) -> None:
        """Makes one call to the coordinator; blocks for the answer.

        Raises:
            TfleetError: what it answers with.
            JobFailed: when ps 0 does not run.
        """
        pod = self._running("ps", 0)
        if not self._task_mode:
            raise WrongInput(
                f"the job {self.handle} runs a command of your own, which takes no orders; "
                f"remove it with 'helm uninstall {self.at.release} -n {self.at.namespace}'"
            )
        if pod is None:
            waits = self._waiting() or "its pod does not run yet"
            raise JobFailed(
                f"ps 0 of {self.handle} cannot be asked: {waits}; try again when it runs, or remove the job with "
                f"'helm uninstall {self.at.release} -n {self.at.namespace}'"
            )
        with self.cluster.forward(self.at.namespace, name_of(pod), self._port("data")) as local:
            control.call(Address("127.0.0.1", local), self._secret(), name, tls=self._tls(), **values)

    def scale(self, workers: int) -> None:
        """Changes the number of workers of the release; see `Job.scale`.

        Raises:
            WrongInput: when the job is over, ending, or may not have so many.
            TfleetError: what helm says.
        """
        self._require_running()
        spec = self.spec()
        if spec:
            refuse_colocated(spec)
        low, high = (spec.elastic.min, max(spec.elastic.max, spec.workers)) if spec else (1, 1024)
        if not low <= workers <= high:
            raise WrongInput(
                f"{workers} workers are asked for, but this job may have {low} to {high} (elastic.min, elastic.max); "
                "ask for a number between, or start a job with other limits"
            )
        if self.status().get("ending"):
            raise WrongInput(f"the job {self.handle} is ending; only a job that trains can be scaled")
        folder = chart.chart_path()
        ours = yaml.safe_load((folder / "Chart.yaml").read_text(encoding="utf-8"))
        listed = helm.release(self.at) or {}
        if listed.get("chart") not in (None, f"{ours['name']}-{ours['version']}"):
            raise WrongInput(
                f"the job {self.handle} was installed with the chart {listed['chart']}, and this tfleet has "
                f"{ours['name']}-{ours['version']}; scale it with the tfleet of that version"
            )
        helm.upgrade(folder, self.at, {"worker": {"number": workers}})

    def logs(self, role: str = "", index: int = -1, follow: bool = False) -> Iterator[str]:
        """Yields log lines, each after its replica's name; see `Job.logs`.

        Raises:
            WrongInput: when the job has no such replica.
        """
        self.require()
        return logs.lines(self, role, index, follow)

    def pods(self) -> list[dict[str, Any]]:
        """Returns the release's pods, not older than `LOOK` seconds; none when they cannot be read."""
        self._look()
        return self._pods

    def waiting_of(self, pods: list[dict[str, Any]]) -> str:
        """Returns what some of its pods wait for, in one sentence; empty when for nothing."""
        return waiting_reason(pods, self.cluster.items(self._path("v1", "events"))) if pods else ""

    def spec(self) -> JobSpec | None:
        """Returns the resolved job of the release's ConfigMap, or None when there is none."""
        found = self.cluster.get(f"{self._path('v1', 'configmaps')}/{self.fullname}")
        text = ((found or {}).get("data") or {}).get("job.yaml", "")
        return JobSpec.parse(yaml.safe_load(text)) if text else None

    def close(self) -> None:
        """Ends the connections; uninstalls the release when this job was started to be removed."""
        try:
            if self._remove:
                self._remove = False
                helm.uninstall(self.at, wait=True)
        finally:
            self.cluster.close()

    @property
    def _task_mode(self) -> bool:
        worker = self._job_of("worker")
        if worker is None:
            return True
        container = main_container({"spec": worker["spec"]["template"]["spec"]})
        return RUNTIME in [*(container.get("command") or []), *(container.get("args") or [])]

    def _result(self) -> Result | None:
        if self._abandoned:
            return Result(ExitCode.INTERRUPTED, "interrupted before ps 0 ran")
        if not self._jobs and self._last.get("phase"):
            return Result(ExitCode.FAILED, GONE)
        return result(self._jobs, self._pods)

    def _look(self) -> None:
        now = self._clock()
        if now - self._looked < LOOK:
            return
        ours = f"{INSTANCE}={self.at.release}"
        try:
            self._jobs = self.cluster.items(self._path("batch/v1", "jobs"), labelSelector=ours)
            self._pods = self.cluster.items(self._path("v1", "pods"), labelSelector=ours)
            waits = any(p.get("status", {}).get("phase") == "Pending" for p in self._pods) or not self._answered
            self._events = self.cluster.items(self._path("v1", "events")) if waits else []
            self._trouble = ""
        except Unreachable as error:
            self._trouble = str(error)
        self._looked = self._clock()

    def _ask(self) -> None:
        """Asks ps 0 for its status; keeps the last one when it does not answer."""
        self._answered = False
        if not self._task_mode or self._trouble:
            return
        with contextlib.suppress(TfleetError, OSError, http.client.HTTPException, ValueError):
            found = self._over_proxy() if self._by_proxy else self._over_forward()
            if found:
                self._last, self._answered = found, True

    def _over_proxy(self) -> dict[str, Any]:
        path = f"{self._path('v1', 'services')}/{self.fullname}:status/proxy/status"
        answer = self.cluster.request("GET", path, headers={"X-Tfleet-Token": self._secret().decode()}, timeout=5.0)
        # The API server's own refusal is a Status object; what ps 0 or the network says is not.
        if answer.code == 403 and answer.json().get("kind") == "Status":
            self._by_proxy = False
        return answer.json() if answer.ok else {}

    def _over_forward(self) -> dict[str, Any]:
        pod = self._running("ps", 0)
        if pod is None:
            return {}
        with self.cluster.forward(self.at.namespace, name_of(pod), self._port("status")) as local:
            connection = http.client.HTTPConnection("127.0.0.1", local, timeout=5.0)
            try:
                connection.request("GET", "/status", headers={"X-Tfleet-Token": self._secret().decode()})
                response = connection.getresponse()
                values = json.loads(response.read()) if response.status == 200 else {}
                return values if isinstance(values, dict) else {}
            finally:
                connection.close()

    def _waiting(self) -> str:
        if self._trouble:
            return self._trouble
        waits = waiting_reason(self._pods, self._events, self._jobs)
        return waits or (absence(self._pods) if self._task_mode and not self._answered else "")

    def _running(self, role: str, index: int) -> dict[str, Any] | None:
        for pod in self._pods:
            alive = pod.get("status", {}).get("phase") == "Running" and not pod["metadata"].get("deletionTimestamp")
            if alive and labels(pod).get(COMPONENT) == role and index_of(pod) == index:
                return pod
        return None

    def _job_of(self, role: str) -> dict[str, Any] | None:
        return next((job for job in self._jobs if labels(job).get(COMPONENT) == role), None)

    def _secret(self) -> bytes:
        """Returns the job's token, from the Secret that its pods mount.

        Raises:
            WrongInput: when it may not be read, or is not there.
        """
        if not self._token:
            name = self._mounted_secret(TOKEN_PATH) or f"{self.fullname}-token"
            found = self.cluster.get(f"{self._path('v1', 'secrets')}/{name}")
            if not found or "token" not in (found.get("data") or {}):
                raise WrongInput(
                    f"the Secret {name} with the token of {self.handle} is not there; install the job again"
                )
            self._token = base64.b64decode(found["data"]["token"]).strip()
        return self._token

    def _tls(self) -> Tls | None:
        """Returns the certificates that the pods have, from the Secret that they mount; None without TLS.

        Raises:
            WrongInput: when it may not be read, or cannot be used.
        """
        name = self._mounted_secret(TLS_PATH)
        if not name:
            return None
        from tfleet.wire.tls import Tls  # only here: most jobs have none

        data = (self.cluster.get(f"{self._path('v1', 'secrets')}/{name}") or {}).get("data") or {}
        missing = [key for key in TLS_KEYS if key not in data]
        if missing:
            raise WrongInput(
                f"the Secret {name} of {self.handle} has no {' and no '.join(missing)}; make it anew with all three"
            )
        spec = self.spec()
        with tempfile.TemporaryDirectory(prefix="tfleet-") as folder:  # of mode 0700; Python's ssl reads files only
            for key in TLS_KEYS:
                Path(folder, key).write_bytes(base64.b64decode(data[key]))
            cert, private, ca = (str(Path(folder, key)) for key in TLS_KEYS)
            tls = Tls(cert, private, ca, spec.tls_server_name if spec else "")
            tls.check()
        return tls

    def _mounted_secret(self, path: str) -> str:
        """Returns the name of the Secret that the workers mount there, or nothing."""
        worker = self._job_of("worker") or {}
        pod = worker.get("spec", {}).get("template", {}).get("spec", {"containers": [{"name": MAIN}]})
        mounts = {m["mountPath"]: m["name"] for m in main_container({"spec": pod}).get("volumeMounts") or []}
        secrets = {v["name"]: (v.get("secret") or {}).get("secretName") for v in pod.get("volumes") or []}
        return secrets.get(mounts.get(path, "")) or ""

    def _port(self, name: str) -> int:
        if not self._ports:
            service = self.cluster.get(f"{self._path('v1', 'services')}/{self.fullname}") or {}
            self._ports = {p["name"]: int(p["port"]) for p in service.get("spec", {}).get("ports") or []}
        if name not in self._ports:
            raise JobFailed(f"the service {self.fullname} of {self.handle} has no port '{name}'; install the job again")
        return self._ports[name]

    def _require_running(self) -> None:
        self.require()
        if self.poll() is not None:
            raise WrongInput(f"the job {self.handle} is not running; 'tfleet status {self.handle}' tells how it ended")

    def _path(self, version: str, plural: str) -> str:
        base = f"/apis/{version}" if "/" in version else f"/api/{version}"
        return f"{base}/namespaces/{self.at.namespace}/{plural}"


def open_job(handle: str) -> KubernetesJob:
    """Returns the job of a handle, whoever installed it.

    Raises:
        WrongInput: when the handle is malformed, or there is no such job.
        Unreachable: when the cluster does not answer.
    """
    at = Handle.parse(handle)
    job = KubernetesJob(at, Cluster(at.context))
    try:
        job.require()
    except BaseException:
        job.close()
        raise
    return job
