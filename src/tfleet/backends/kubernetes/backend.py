"""The Kubernetes backend: plans by rendering the chart, starts by installing it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from tfleet.backends.base import Backend, Plan
from tfleet.backends.kubernetes import chart, helm, objects, start
from tfleet.backends.kubernetes.handle import Handle, check_namespace, check_release
from tfleet.backends.kubernetes.job import KubernetesJob
from tfleet.backends.kubernetes.plan import KubernetesPlan
from tfleet.backends.kubernetes.values import chart_values
from tfleet.spec.errors import WrongInput
from tfleet.spec.job import JobSpec

TASK_FILE_LIMIT = 900_000
"""Bytes of a task file: a ConfigMap holds 1 MiB, and helm keeps a compressed copy of all in a Secret."""

VOLUME_DEFAULT = Path()
"""The run directory that leaves the choice to the chart: a folder of the release's name on the volume."""


class KubernetesBackend(Backend):
    """Runs a job as a release of the chart.

    Args:
        at: context, namespace and release.
        values: the chart's values that the user gave; the job's own are put over them.
        task_file: name and content of a file that is shipped with the job; None: none is.
        remove: whether the job is uninstalled once it is closed.
        chart_folder: the chart.
    """

    def __init__(
        self,
        at: Handle,
        values: Mapping[str, Any] | None = None,
        task_file: tuple[str, str] | None = None,
        remove: bool = False,
        chart_folder: Callable[[], Path] = chart.chart_path,
    ) -> None:
        self._at = at
        self._values = values or {}
        self._task_file = task_file
        self._remove = remove
        self._chart_folder = chart_folder

    def plan(self, spec: JobSpec, run_dir: Path = VOLUME_DEFAULT, resume: bool = False) -> KubernetesPlan:
        """Renders the chart; asks no cluster. See `Backend.plan`.

        Args:
            spec: the job.
            run_dir: path inside the volume; `VOLUME_DEFAULT`: the chart's choice.
            resume: goes on from the newest commit in it.

        Raises:
            WrongInput: when helm is missing, or the chart refuses what was asked for.
        """
        check_namespace(self._at.namespace)
        check_release(self._at.release)
        refuse_local_fields(spec)
        self._check_task_file(spec)
        folder = "" if run_dir == VOLUME_DEFAULT else str(PurePosixPath(run_dir))
        values = chart_values(spec, self._values, folder, resume, self._task_file)
        manifest = objects.hide_secrets(helm.template(self._chart_folder(), self._at, values))
        made = objects.parse(manifest)
        return KubernetesPlan(
            spec=spec,
            run_dir=Path(objects.run_dir_of(made) or folder),
            resume=resume,
            replicas=objects.replicas(made),
            at=self._at,
            values=values,
            manifest=manifest,
        )

    def tfjob(self, plan: KubernetesPlan) -> str:
        """Returns the plan's job as a TFJob of Kubeflow's training operator, fit to be applied by kubectl.

        Secrets are left out, with a word on how to make them: what is printed ends in files.

        Raises:
            WrongInput: when the chart cannot say it as a TFJob.
        """
        manifest = helm.template(self._chart_folder(), plan.at, {**plan.values, "format": "tfjob"})
        return objects.without_secrets(manifest, plan.at.namespace)

    def start(self, plan: Plan) -> KubernetesJob:
        """Checks with the cluster, then installs; returns once the objects are there, before the pods run.

        Raises:
            WrongInput: when the cluster would refuse a part of it, or the release is there already.
            JobFailed: when helm fails half-way; what it left is removed.
        """
        if not isinstance(plan, KubernetesPlan):
            raise TypeError("the plan was made by another backend")
        return start.install(plan, self._chart_folder(), self._remove)

    def _check_task_file(self, spec: JobSpec) -> None:
        if self._task_file is None:
            return
        name, content = self._task_file
        if len(content.encode()) > TASK_FILE_LIMIT:
            raise WrongInput(
                f"the task file {name} has {len(content.encode()):,} bytes, but at most {TASK_FILE_LIMIT:,} can be "
                "shipped with a job; put it on the job's volume or into an image of your own"
            )
        file = spec.task.rpartition(":")[0]
        if file != name:
            raise WrongInput(
                f"the task file {name} is shipped, but the task is {spec.task or 'not given'}; "
                f"name an object of the file, such as '{name}:task'"
            )


def refuse_local_fields(spec: JobSpec) -> None:
    """Refuses what means something on one machine only.

    Raises:
        WrongInput: names the field.
    """
    if spec.tcp:
        raise WrongInput("tcp: pods always talk by TCP, so that --tcp does nothing on kubernetes; leave it out")
    if spec.tls_cert:
        raise WrongInput(
            "tls_cert, tls_key and tls_ca name files of this machine, but pods get theirs from a Secret; "
            "leave them out and give --set tls.secretName=NAME"
        )
    if spec.shared_memory != "auto":
        raise WrongInput(
            f"shared_memory={spec.shared_memory}: pods share no memory, so that --shared-memory does nothing on "
            "kubernetes; leave it out"
        )
    if spec.listen:
        raise WrongInput(
            "listen: pods get workers by 'tfleet scale', so that --listen does nothing on kubernetes; leave it out"
        )
