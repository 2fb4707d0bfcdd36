"""Brings the TensorBoard that runs beside a job on Kubernetes to a port of this machine."""

from __future__ import annotations

import time

from tfleet.backends.kubernetes.job import KubernetesJob
from tfleet.backends.kubernetes.objects import COMPONENT, labels, main_container, name_of
from tfleet.cli.tensorboard_server import EndRequested, free_port, interruptible, url
from tfleet.spec.errors import ExitCode, JobFailed, WrongInput

INTERVAL = 1.0
"""Seconds between two looks at the pod."""


def forward_tensorboard(job: KubernetesJob, host: str, port: int) -> int:
    """Forwards a port until SIGINT or SIGTERM; goes on when the pod is replaced. Must be called in the main thread.

    Args:
        job: of which TensorBoard is wanted.
        host: the address to listen on.
        port: to listen on; 0: any free one.

    Returns:
        `ExitCode.DONE`: to interrupt it is the way to end it.

    Raises:
        WrongInput: when the job has none, or the port is taken.
    """
    port = free_port(host, port)
    told = False
    try:
        with interruptible():
            while True:
                pod = _pod(job)
                if pod is None:
                    time.sleep(INTERVAL)
                    continue
                remote = int(main_container(pod)["ports"][0]["containerPort"])
                with job.cluster.forward(job.at.namespace, name_of(pod), remote, port, host):
                    if not told:
                        print(f"TensorBoard: {url(host, port)} (Ctrl-C ends it)", flush=True)
                        told = True
                    while (now := _pod(job)) is not None and name_of(now) == name_of(pod):
                        time.sleep(INTERVAL)
    except EndRequested:
        return ExitCode.DONE


def _pod(job: KubernetesJob) -> dict[str, object] | None:
    """Returns the pod of TensorBoard that runs, or None while it is being made.

    Raises:
        WrongInput: when the release has none.
        JobFailed: when its pod waits for something that a person has to see to.
    """
    pods = [p for p in job.pods() if labels(p).get(COMPONENT) == "tensorboard"]
    running = [p for p in pods if p.get("status", {}).get("phase") == "Running"]
    if running:
        return running[-1]
    if waiting := job.waiting_of(pods):
        raise JobFailed(waiting)
    at = job.at
    if not pods and not job.cluster.items(
        f"/apis/apps/v1/namespaces/{at.namespace}/deployments",
        labelSelector=f"app.kubernetes.io/instance={at.release},{COMPONENT}=tensorboard",
    ):
        raise WrongInput(
            f"no TensorBoard runs beside {job.handle}; bring its summaries here with 'tfleet copy {job.handle} "
            "--only summaries', or start jobs with --set tensorboard.enabled=true"
        )
    return None
