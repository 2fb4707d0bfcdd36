"""Reads from the kubeconfig which context and namespace are meant; needs no cluster and no client library."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from tfleet.spec.errors import WrongInput, nearest

IN_CLUSTER = "in-cluster"
"""Stands for the context of a pod without a kubeconfig, which acts by its service account."""

SERVICE_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")


def choose(
    context: str = "",
    namespace: str = "",
    environ: Mapping[str, str] = os.environ,
    service_account: Path = SERVICE_ACCOUNT,
) -> tuple[str, str]:
    """Returns context and namespace: those asked for, else those of the kubeconfig, else `default`.

    Args:
        context: asked for; empty: the current one.
        namespace: asked for; empty: the context's.
        environ: where KUBECONFIG may stand.
        service_account: where a pod has its account.

    Raises:
        WrongInput: when there is no such context, or no kubeconfig at all.
    """
    if context and namespace:
        return context, namespace
    found, current = contexts(environ)
    if not found and (service_account / "token").is_file() and context in ("", IN_CLUSTER):
        own = (service_account / "namespace").read_text(encoding="utf-8").strip()
        return IN_CLUSTER, namespace or own
    if not found:
        raise WrongInput(
            f"there is no kubeconfig with a context in {' or '.join(map(str, files(environ)))}; "
            "set KUBECONFIG to the file of your cluster, or make one as its provider tells"
        )
    context = context or current
    if context not in found:
        given = f"the context '{context}' is not in the kubeconfig" if context else "the kubeconfig has no current one"
        raise WrongInput(
            f"{given}{nearest(context, found)}; choose with --context: {', '.join(sorted(found))}, "
            "or with 'kubectl config use-context'"
        )
    return context, namespace or found[context]


def contexts(environ: Mapping[str, str] = os.environ) -> tuple[dict[str, str], str]:
    """Returns the namespace of each context by its name, and the current context (empty: none is).

    Raises:
        WrongInput: when a file of the kubeconfig is not YAML.
    """
    found: dict[str, str] = {}
    current = ""
    for path in files(environ):
        values = _read(path)
        current = current or str(values.get("current-context") or "")
        for entry in values.get("contexts") or []:
            found.setdefault(str(entry["name"]), str((entry.get("context") or {}).get("namespace") or "default"))
    return found, current


def files(environ: Mapping[str, str] = os.environ) -> list[Path]:
    """Returns the files that make up the kubeconfig, whether they exist or not."""
    given = [part for part in environ.get("KUBECONFIG", "").split(os.pathsep) if part]
    return [Path(part).expanduser() for part in given or ["~/.kube/config"]]


def _read(path: Path) -> dict[str, Any]:
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError:
        return {}
    except yaml.YAMLError as error:
        raise WrongInput(f"the kubeconfig {path} is not YAML: {' '.join(str(error).split())}; correct it") from None
    return values if isinstance(values, dict) else {}
