"""The handle of a job on Kubernetes: `k8s://context/namespace/release`."""

from __future__ import annotations

import re
from dataclasses import dataclass

from tfleet.spec.errors import WrongInput, nearest

SCHEME = "k8s://"

FORM = "k8s://CONTEXT/NAMESPACE/RELEASE"

LONGEST_RELEASE = 45
"""Characters of a release's name: pods add `-evaluator-0-xxxxx`, and names of Services end at 63."""

_LABEL = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?")
_RELEASE = re.compile(r"[a-z]([-a-z0-9]*[a-z0-9])?")


@dataclass(frozen=True)
class Handle:
    """Where a job on Kubernetes is.

    Attributes:
        context: name of the context in the kubeconfig; it may hold slashes, as those of EKS do.
        namespace: its namespace.
        release: name of its Helm release.
    """

    context: str
    namespace: str
    release: str

    @classmethod
    def parse(cls, text: str) -> Handle:
        """Reads a handle as `str` wrote it.

        Raises:
            WrongInput: when it has not this form.
        """
        context, _, rest = text.removeprefix(SCHEME).partition("/")
        parts = text.removeprefix(SCHEME).rsplit("/", 2)
        if not text.startswith(SCHEME) or len(parts) != 3 or not all(parts):
            hint = f"; did you mean '{SCHEME}{context}/default/{rest}'?" if context and rest and "/" not in rest else ""
            raise WrongInput(f"the handle '{text}' is not of the form {FORM}{hint}; give the one that train printed")
        check_namespace(parts[1])
        check_release(parts[2])
        return cls(*parts)

    def __str__(self) -> str:
        return f"{SCHEME}{self.context}/{self.namespace}/{self.release}"


def is_handle(text: str) -> bool:
    """Tells whether `text` means a job on Kubernetes, and not a folder."""
    return text.startswith((SCHEME, "k8s:", "kubernetes:"))


def check_release(name: str) -> None:
    """Checks that a release's name will do for every Service, Job and pod.

    Raises:
        WrongInput: when it will not, with one that would.
    """
    if _RELEASE.fullmatch(name) and len(name) <= LONGEST_RELEASE:
        return
    raise WrongInput(
        f"the name '{name}' will not do for a release: use at most {LONGEST_RELEASE} small letters, digits and '-', "
        f"a letter first and no '-' last, such as '{release_name(name)}'"
    )


def check_namespace(name: str) -> None:
    """Checks the form of a namespace's name.

    Raises:
        WrongInput: when no namespace can be called so.
    """
    if not _LABEL.fullmatch(name) or len(name) > 63:
        near = nearest(name, [re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")])
        raise WrongInput(
            f"'{name}' cannot be a namespace{near}; use at most 63 small letters, digits and '-' with --namespace"
        )


def release_name(text: str) -> str:
    """Returns the release name nearest to any text: `My task_2` becomes `my-task-2`."""
    name = re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-").lstrip("-0123456789")
    return name[:LONGEST_RELEASE].rstrip("-") or "job"
