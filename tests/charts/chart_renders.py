"""Renders the chart with `helm template`, each set of values once."""

from __future__ import annotations

import json
import os
import re
import subprocess
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from helm_program import HELM

ROOT = Path(__file__).resolve().parents[2]
CHART = ROOT / "charts" / "tfleet"
KUBERNETES = "1.34.0"
NAMESPACE = "work"

Object = dict[str, Any]
PRESETS = ("kind", "minikube", "gke", "azure", "openshift")


def template(values: dict[str, Any] | None = None, release: str = "digits", preset: str = "") -> str:
    """Returns the manifests; the test fails with what helm said when it refuses."""
    done = attempt(values, release, preset)
    assert done.returncode == 0, done.stderr
    return done.stdout


def objects(values: dict[str, Any] | None = None, release: str = "digits", preset: str = "") -> list[Object]:
    """Returns the rendered objects; the caller may change them."""
    found: list[Object] = json.loads(_as_json(template(values, release, preset)))
    return found


@cache
def _as_json(manifests: str) -> str:
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    return json.dumps([found for found in yaml.load_all(manifests, Loader=loader) if found])


def refusal(values: dict[str, Any] | None = None, release: str = "digits") -> str:
    """Returns what helm says when it refuses these values; the test fails when it takes them."""
    done = attempt(values, release)
    assert done.returncode != 0, f"helm took {values} for {release}"
    return done.stderr


def attempt(
    values: dict[str, Any] | None, release: str, preset: str = "", flags: tuple[str, ...] = ()
) -> subprocess.CompletedProcess[str]:
    """Runs `helm template` (with more flags), or returns what it said to the same before."""
    return _template(json.dumps(values or {}), release, preset, flags)


@cache
def _template(values: str, release: str, preset: str, flags: tuple[str, ...]) -> subprocess.CompletedProcess[str]:
    presets = ["--values", str(preset_file(preset))] if preset else []
    return helm(
        *("template", release, str(CHART), "--namespace", NAMESPACE, "--kube-version", KUBERNETES),
        *presets,
        *("--values", "-", *flags),
        text=values,
    )


def helm(*arguments: str, text: str = "") -> subprocess.CompletedProcess[str]:
    """Runs helm without a cluster and without anybody's settings."""
    environ = {k: v for k, v in os.environ.items() if not k.startswith(("HELM_", "KUBE"))}
    environ["KUBECONFIG"] = os.devnull
    return subprocess.run([str(HELM), *arguments], input=text, env=environ, capture_output=True, text=True)


def preset_file(preset: str) -> Path:
    """Returns the file of a preset."""
    return CHART / "ci" / f"values-{preset}.yaml"


def fixed(manifests: str) -> str:
    """Returns manifests with the random token replaced, which differs at each rendering."""
    return re.sub(r'(?m)^(\s+token: )"?(?:[0-9a-f]{64}|[A-Za-z0-9+/]{80,}={0,2})"?$', r"\1RANDOM", manifests)


def one(found: list[Object], kind: str, name: str) -> Object:
    """Returns the object of that kind and name."""
    matching = [each for each in found if each["kind"] == kind and each["metadata"]["name"] == name]
    assert len(matching) == 1, f"{len(matching)} of {kind} {name} in {names(found)}"
    return matching[0]


def names(found: list[Object]) -> list[str]:
    """Returns `Kind/name` of each object, sorted."""
    return sorted(f"{each['kind']}/{each['metadata']['name']}" for each in found)


def pods(found: list[Object]) -> dict[str, Object]:
    """Returns every pod and pod template among the objects (metadata and spec), by `Kind/name` of its owner."""
    result = {}
    for each in found:
        where = f"{each['kind']}/{each['metadata']['name']}"
        if each["kind"] == "Pod":
            result[where] = each
        elif each["kind"] in ("Job", "Deployment"):
            result[where] = each["spec"]["template"]
        elif each["kind"] == "TFJob":
            for role, replicas in each["spec"]["tfReplicaSpecs"].items():
                result[f"{where}/{role}"] = replicas["template"]
    return result


def environment(pod: Object) -> dict[str, Object]:
    """Returns the env entries of the container `main`, or of the only container, by name."""
    (container, *_) = pod["spec"]["containers"]
    entries = container.get("env", [])
    assert len({entry["name"] for entry in entries}) == len(entries), f"a name is given twice: {entries}"
    return {entry["name"]: entry for entry in entries}
