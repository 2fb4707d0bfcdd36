"""One function opens any job, whoever started it and wherever it runs."""

from __future__ import annotations

from tfleet.backends.base import Job
from tfleet.backends.kubernetes.handle import Handle, is_handle
from tfleet.spec.errors import WrongInput
from tfleet.spec.rundir import RunDir


def open_job(handle: str) -> Job:
    """Returns the job of a handle; the caller closes it.

    Args:
        handle: a run directory, or `k8s://context/namespace/name`.

    Raises:
        WrongInput: when there is no such job.
    """
    if is_handle(handle):
        from tfleet.backends.kubernetes import job as kubernetes

        return kubernetes.open_job(handle)
    from tfleet.backends import local

    return local.open_job(str(RunDir.existing(handle).path))


def local_run(handle: str, command: str) -> RunDir:
    """Returns the run directory that a handle names, for a command that needs it on this machine.

    Raises:
        WrongInput: when it is on a cluster, or there is no job in it.
    """
    if is_handle(handle):
        at = Handle.parse(handle)
        raise WrongInput(
            f"'tfleet {command}' works on a run directory of this machine, not on {at}; "
            f"bring it here first with 'tfleet copy {at}'"
        )
    return RunDir.existing(handle)
