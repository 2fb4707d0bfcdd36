"""Ends parameter servers that never end by themselves: `python -m tfleet.backends.finisher --namespace N ...`.

The ps of a script for TensorFlow's own runtime waits for ever (`server.join()`). This program runs in a pod of its own
beside such a job, watches the Job of the workers, and once that is over sets the Job of the ps to no pods at all, which
Kubernetes counts as complete. It imports the standard library only and takes a few megabytes.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import ssl
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from tfleet.spec.errors import ExitCode, JobFailed, TfleetError, WrongInput

ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
"""Where Kubernetes puts a pod's token and the certificate of its API server."""

OVER = ("Complete", "SuccessCriteriaMet", "Failed", "FailureTarget")
"""Conditions of a Job that is over. On a dead node it stays at the second or the fourth."""

POLL = 2.0
"""Seconds between two looks."""
TIMEOUT = 10.0
"""Seconds for one answer."""
PATIENCE = 30
"""So many looks at a Job that is not there, or is refused, are no start-up trouble any more: Helm makes the Jobs in the
order of their names, and the Role may count a moment after the pod is there."""


class Refused(Exception):
    """The API server refused (401 or 403): the rights are missing, or not there yet."""


class ApiServer:
    """The API server as a pod reaches it.

    Args:
        url: such as https://10.0.0.1:443.
        account: folder with `token` and, for https, `ca.crt`.
    """

    def __init__(self, url: str, account: Path = ACCOUNT) -> None:
        self._url = url
        self._token = account / "token"
        # Never by a proxy: one is in many clusters' environment, and does not know the cluster's own addresses.
        handlers: list[urllib.request.BaseHandler] = [urllib.request.ProxyHandler({})]
        if url.startswith("https:"):
            context = ssl.create_default_context(cafile=str(account / "ca.crt"))
            handlers.append(urllib.request.HTTPSHandler(context=context))
        self._opener = urllib.request.build_opener(*handlers)

    def job(self, namespace: str, name: str) -> dict[str, Any] | None:
        """Returns a Job; None when there is none. Blocks.

        Raises:
            OSError: when the API server cannot be reached or fails; it may answer the next time.
            Refused: when it refuses.
        """
        return self._ask("GET", namespace, name)

    def remove_pods(self, namespace: str, name: str) -> bool:
        """Makes a Job want no pods; returns whether there is such a Job. Blocks.

        Raises:
            OSError: when the API server cannot be reached or fails; it may answer the next time.
            Refused: when it refuses.
        """
        return self._ask("PATCH", namespace, name, {"spec": {"parallelism": 0, "completions": 0}}) is not None

    def _ask(
        self, method: str, namespace: str, name: str, patch: Mapping[str, Any] | None = None
    ) -> dict[str, Any] | None:
        request = urllib.request.Request(
            f"{self._url}/apis/batch/v1/namespaces/{namespace}/jobs/{name}",
            data=json.dumps(patch).encode() if patch else None,
            method=method,
            # The token is read each time: Kubernetes writes a new one about every hour.
            headers={
                "Authorization": f"Bearer {self._token.read_text(encoding='utf-8').strip()}",
                "Content-Type": "application/merge-patch+json",
            },
        )
        try:
            with self._opener.open(request, timeout=TIMEOUT) as answer:
                found: dict[str, Any] = json.load(answer)
                return found
        except urllib.error.HTTPError as error:
            if error.code == 404:
                return None
            if error.code in (401, 403):
                raise Refused(f"{method} {name}: {error.code} {error.reason}") from None
            raise
        except (http.client.HTTPException, ValueError) as error:
            raise OSError(f"{method} {name}: {error}") from error


def ending_of(job: Mapping[str, Any] | None) -> str:
    """Returns how a Job ended: one of `OVER`, `gone` when it is not there any more, empty while it runs."""
    if job is None:
        return "gone"
    conditions = job.get("status", {}).get("conditions") or []
    return next((str(each["type"]) for each in conditions if each["type"] in OVER and each["status"] == "True"), "")


def finish(
    api: ApiServer,
    namespace: str,
    worker_job: str,
    ps_job: str,
    sleep: Callable[[float], object] = time.sleep,
) -> str:
    """Waits until the workers' Job is over, then ends the Job of the ps. Blocks as long as the workers run.

    Args:
        api: the API server.
        namespace: of both Jobs.
        worker_job: name of the workers' Job.
        ps_job: name of the Job to end.
        sleep: called between two looks, with seconds.

    Returns:
        How the workers' Job ended, as `ending_of`.

    Raises:
        JobFailed: when the API server goes on to refuse.
    """
    ending, seen, missing, refusals, said = "", False, 0, 0, ""
    while True:
        trouble = ""
        try:
            if not ending:
                job = api.job(namespace, worker_job)
                seen, missing = seen or job is not None, missing + (job is None)
                ending = ending_of(job) if job or seen or missing >= PATIENCE else ""
            if ending:
                api.remove_pods(namespace, ps_job)
                return ending
            refusals = 0
        except Refused as error:
            refusals, trouble = refusals + 1, f"the API server refuses: {error}"
            if refusals == PATIENCE:
                raise JobFailed(
                    f"{trouble}; give the finisher's ServiceAccount the rights to get and patch these Jobs"
                ) from None
        except OSError as error:
            trouble = f"the API server does not answer: {error}"
        if trouble and trouble != said:
            print(f"tfleet: {trouble}; trying again", flush=True)
        said = trouble
        sleep(POLL)


def server_url(environ: Mapping[str, str]) -> str:
    """Returns the URL of the API server, as Kubernetes tells every pod.

    Raises:
        WrongInput: when this is no pod.
    """
    host, port = environ.get("KUBERNETES_SERVICE_HOST"), environ.get("KUBERNETES_SERVICE_PORT")
    if not host or not port:
        raise WrongInput(
            "KUBERNETES_SERVICE_HOST and KUBERNETES_SERVICE_PORT are not set: the finisher runs in a pod only; "
            "set finisher.enabled=true in the chart's values"
        )
    return f"https://[{host}]:{port}" if ":" in host else f"https://{host}:{port}"


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the finisher; blocks until the workers are over. Returns the exit code."""
    parse = argparse.ArgumentParser(prog="python -m tfleet.backends.finisher", description=__doc__)
    parse.add_argument("--namespace", required=True, help="of both Jobs")
    parse.add_argument("--worker-job", required=True, help="the Job that is waited for")
    parse.add_argument("--ps-job", required=True, help="the Job that is ended")
    parse.add_argument("--server", default="", help="URL of the API server; empty: as Kubernetes tells its pods")
    parse.add_argument("--account", type=Path, default=ACCOUNT, help="folder with the token and ca.crt")
    given = parse.parse_args(arguments)
    try:
        api = ApiServer(given.server or server_url(os.environ), given.account)
        ending = finish(api, given.namespace, given.worker_job, given.ps_job)
    except FileNotFoundError as error:
        # ssl does not name the file.
        print(f"tfleet: no token or ca.crt in {given.account} ({error}): run in a pod with an account", file=sys.stderr)
        return ExitCode.WRONG_INPUT
    except TfleetError as error:
        print(f"tfleet: {error}", file=sys.stderr)
        return error.exit_code
    print(f"tfleet: {given.worker_job} is over ({ending}): {given.ps_job} was ended", flush=True)
    return ExitCode.DONE


if __name__ == "__main__":
    raise SystemExit(main())
