"""Runs helm, and turns what it says into one sentence."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from tfleet.backends.kubernetes.handle import Handle
from tfleet.backends.kubernetes.kubeconfig import IN_CLUSTER
from tfleet.spec.errors import JobFailed, TfleetError, WrongInput

INSTALL_HINT = (
    "helm is not installed (it is not in PATH); install Helm 3 as https://helm.sh/docs/intro/install tells, "
    "then check with 'tfleet doctor --on kubernetes'"
)

TIMEOUT = 120.0
"""Seconds for one call of helm, none of which waits for pods."""

LONGEST = 600
"""Characters of helm's own words that are shown."""


def program() -> str:
    """Returns the path of helm.

    Raises:
        WrongInput: when it is not installed.
    """
    found = shutil.which("helm")
    if found is None:
        raise WrongInput(INSTALL_HINT)
    return found


def version() -> str:
    """Returns helm's version, such as `v3.16.2`.

    Raises:
        WrongInput: when helm is not installed.
    """
    return run("version", "--template", "{{.Version}}").strip()


def template(chart: Path, handle: Handle, values: Mapping[str, Any], *options: str) -> str:
    """Renders the chart without asking the cluster.

    Args:
        chart: folder of the chart.
        handle: names the release.
        values: of the chart.
        *options: of `helm template`, such as `--show-only`.

    Raises:
        WrongInput: when the chart refuses the values.
    """
    with values_file(values) as file:
        return run("template", handle.release, str(chart), "--namespace", handle.namespace, "-f", file, *options)


def install(chart: Path, handle: Handle, values: Mapping[str, Any]) -> None:
    """Installs the release; returns once the objects are there, before their pods are.

    Raises:
        TfleetError: what helm said; a part of the release may be there.
    """
    with values_file(values) as file:
        run("install", handle.release, str(chart), *_where(handle), "-f", file)


def upgrade(chart: Path, handle: Handle, values: Mapping[str, Any]) -> None:
    """Changes some values of a release and keeps the others.

    Raises:
        TfleetError: what helm said.
    """
    with values_file(values) as file:
        run("upgrade", handle.release, str(chart), *_where(handle), "--reuse-values", "-f", file)


def uninstall(handle: Handle, wait: bool = False) -> None:
    """Removes a release, if it is there; a claim that the chart keeps stays.

    Args:
        handle: names the release.
        wait: whether to wait until its pods have ended too.

    Raises:
        TfleetError: what helm said.
    """
    patience = ("--wait", "--cascade", "foreground", "--timeout", f"{TIMEOUT - 10:.0f}s") if wait else ()
    run("uninstall", handle.release, *_where(handle), "--ignore-not-found", *patience)


def values_of(handle: Handle) -> dict[str, Any]:
    """Returns the values that a release was installed with.

    Raises:
        TfleetError: when there is no such release.
    """
    values: dict[str, Any] = json.loads(run("get", "values", handle.release, *_where(handle), "-o", "json")) or {}
    return values


def release(handle: Handle) -> dict[str, str] | None:
    """Returns what helm lists of a release (`status`, `chart`, `revision`), or None when there is none."""
    pattern = f"^{re.escape(handle.release)}$"
    found = json.loads(run("list", *_where(handle), "--all", "--filter", pattern, "-o", "json")) or []
    return dict(found[0]) if found else None


def run(*arguments: str) -> str:
    """Runs helm and returns what it printed; blocks.

    Raises:
        TfleetError: when it fails, with one sentence.
    """
    try:
        done = subprocess.run(
            [program(), *arguments],
            capture_output=True,
            text=True,
            check=False,
            timeout=TIMEOUT,
            stdin=subprocess.DEVNULL,
        )
    except subprocess.TimeoutExpired:
        raise JobFailed(
            f"helm {arguments[0]} did not end within {TIMEOUT:.0f} s; see whether the cluster answers with "
            "'tfleet doctor --on kubernetes'"
        ) from None
    if done.returncode:
        raise failure(done.stderr)
    return done.stdout


@contextlib.contextmanager
def values_file(values: Mapping[str, Any]) -> Iterator[str]:
    """Writes values to a file that only its owner can read (they may hold secrets) and that is gone afterwards."""
    handle, path = tempfile.mkstemp(prefix="tfleet-values-", suffix=".yaml")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            yaml.safe_dump(dict(values), file, sort_keys=False, allow_unicode=True)
        yield path
    finally:
        os.unlink(path)


def failure(said: str) -> TfleetError:
    """Returns the error that helm's words mean, as one sentence.

    A chart's own refusal (`fail`) and wrong values are wrong input; what a cluster did is a failure that may pass.
    """
    text = said.strip()
    # helm tells where the template stands before what `fail` said.
    said_by_fail = r"(?:execution error at \([^)]*\)|error calling fail): (.+?)(?:\n\s*\n|\n(?=Use --debug)|\Z)"
    refused = re.findall(said_by_fail, text, re.DOTALL)
    if refused:
        return WrongInput(one_line(refused[-1]))
    if "values don't meet the specifications of the schema" in text:
        return WrongInput(f"the chart refuses the values: {schema_problems(text)}; change them in --values or --set")
    if "cannot re-use a name that is still in use" in text:
        return WrongInput("the name of the release is in use; choose another with --name, or uninstall that release")
    if "release: not found" in text:
        return WrongInput("there is no such release in this namespace; 'helm list' shows those that are there")
    if denied := re.search(r'cannot (\w+) resource "([^"]+)".* in the namespace "([^"]+)"', text):
        return WrongInput(
            f"you may not {denied[1]} {denied[2]} in namespace {denied[3]}, which helm needs; ask its administrator "
            "for a role that may, or choose another with --namespace"
        )
    if "field is immutable" in text:
        return WrongInput(
            "what was changed cannot be changed in a running job; only the number of workers can: "
            "uninstall the release and install it again to change the rest"
        )
    return JobFailed(f"helm failed: {shorten(one_line(text.removeprefix('Error:')))}")


def schema_problems(text: str) -> str:
    """Returns the lines of helm's complaint about a schema, without its heading."""
    lines = [line.strip() for line in text.splitlines()]
    found = [line.removeprefix("- ").removeprefix("at ") for line in lines if line.startswith("- ")]
    return shorten("; ".join(found) or one_line(text))


def one_line(text: str) -> str:
    """Returns text on one line, without the prefix that helm gives an error."""
    return " ".join(text.split()).removeprefix("Error: ").rstrip(". ")


def shorten(text: str) -> str:
    """Returns at most `LONGEST` characters: helm's errors can be kilobytes of objects."""
    return text if len(text) <= LONGEST else f"{text[:LONGEST]} …"


def _where(handle: Handle) -> Sequence[str]:
    context = () if handle.context == IN_CLUSTER else ("--kube-context", handle.context)
    return ("--namespace", handle.namespace, *context)
