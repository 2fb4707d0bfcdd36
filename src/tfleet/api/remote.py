"""From what a user asked of a cluster to a plan for it: context, namespace, name, values, and the file of the task."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

from tfleet.api.request import TIME_PLACEHOLDER, Request, slug
from tfleet.backends.kubernetes import kubeconfig
from tfleet.backends.kubernetes.backend import VOLUME_DEFAULT, KubernetesBackend
from tfleet.backends.kubernetes.handle import Handle, check_release, release_name
from tfleet.backends.kubernetes.plan import KubernetesPlan
from tfleet.backends.kubernetes.values import given_values, job_values
from tfleet.spec.errors import WrongInput
from tfleet.spec.job import JobSpec
from tfleet.tasks.names import check_name, file_part, object_part

LONGEST_SLUG = 29
"""Characters of a task's name in a release's, before the time."""

_KEY = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\.py")


@dataclass(frozen=True)
class Target:
    """Where and how on Kubernetes, as the user gave it; empty: not given.

    Attributes:
        context: of the kubeconfig.
        namespace: of the cluster.
        name: of the release.
        values: values files of the chart, the later over the earlier.
        settings: single values, `a.b=c`.
        task_file: a Python file that is shipped with the job.
        remove: uninstall the release when the command ends.
    """

    context: str = ""
    namespace: str = ""
    name: str = ""
    values: tuple[str, ...] = ()
    settings: tuple[str, ...] = ()
    task_file: str = ""
    remove: bool = False


def plan_remote(request: Request, target: Target, when: str) -> tuple[KubernetesPlan, KubernetesBackend]:
    """Resolves and checks a request for a cluster without asking it; the same request gives the same plan.

    Args:
        request: the job.
        target: where.
        when: start time for the name of the release, or `TIME_PLACEHOLDER`.

    Raises:
        WrongInput: when the job cannot work as asked.
    """
    context, namespace = kubeconfig.choose(target.context, target.namespace)
    values = given_values(target.values, target.settings)
    own_command = any((values.get(role) or {}).get("command") for role in ("worker", "ps"))
    base = {"task": "mnist", **job_values(values)} if own_command else job_values(values)
    if request.resume and not target.name:
        raise WrongInput("--resume on kubernetes needs the job to go on with; give the name of its release with --name")
    spec = replace(request, base=base, elsewhere=True).spec()
    _check_paths(spec, request.run_dir)
    shipped = None
    if not own_command and not (values.get("taskFile") or {}).get("name"):
        spec, shipped = ship_task(spec, target.task_file)
    elif target.task_file:
        raise WrongInput("--task-file does nothing beside an own command or the value taskFile; leave one of them out")
    name = target.name or new_name(spec.task, when)
    check_release(name)
    backend = KubernetesBackend(Handle(context, namespace, name), values, shipped, target.remove)
    folder = Path(request.run_dir) if request.run_dir else VOLUME_DEFAULT
    return backend.plan(spec, folder, request.resume), backend


def new_name(task: str, when: str) -> str:
    """Returns the name of a new release: the task's and the time, as of a new run directory."""
    suffix = "time" if when == TIME_PLACEHOLDER else when
    return f"{release_name(slug(task))[:LONGEST_SLUG].rstrip('-')}-{suffix}"


def ship_task(spec: JobSpec, task_file: str) -> tuple[JobSpec, tuple[str, str] | None]:
    """Finds the file that the task needs; a file of this machine is shipped, another is looked for on the volume.

    Args:
        spec: the job; its task may be `path/to/file.py:object`.
        task_file: the file to ship for `name.py:object`; empty: the task's own, where it exists.

    Returns:
        The job as the pods see it, and name and content of what is shipped.

    Raises:
        WrongInput: when the file cannot be read or shipped, or does not go with the task.
    """
    path = file_part(spec.task)
    if task_file:
        source = Path(task_file).expanduser()
        if path is None or path.name != source.name:
            raise WrongInput(
                f"--task-file {task_file} is shipped as {source.name}, but the task is '{spec.task}'; "
                f"name an object of the file, such as '{source.name}:task'"
            )
    elif path is None:
        check_name(spec.task)
        return spec, None
    elif PurePosixPath(spec.task.rpartition(":")[0]).is_absolute() and not path.exists():
        # A path on the volume or in the image: the first worker will say when it is not there.
        return spec, None
    else:
        check_name(spec.task)
        source = path
    if not _KEY.fullmatch(source.name):
        raise WrongInput(
            f"the task file {source.name} cannot be shipped under this name; rename it to letters, digits and '_', "
            "as in my_task.py"
        )
    try:
        content = source.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        why = getattr(error, "strerror", None) or "it is not UTF-8"
        raise WrongInput(f"the task file {source} cannot be read: {why}; give a readable .py file") from None
    return spec.model_copy(update={"task": f"{source.name}:{object_part(spec.task)}"}), (source.name, content)


def _check_paths(spec: JobSpec, run_dir: str) -> None:
    for flag, given, example in (
        ("--data-dir", spec.data_dir, "/mnt/tfleet/data"),
        ("--run-dir", run_dir, "/mnt/tfleet/my-run"),
    ):
        if given and not given.startswith("/"):
            raise WrongInput(
                f"{flag} {given} is not absolute: on kubernetes it is a path inside the pods, such as {example}"
            )
