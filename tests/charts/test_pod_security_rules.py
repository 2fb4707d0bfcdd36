"""The checker of the `restricted` level finds what it must: each rule broken once."""

from __future__ import annotations

import copy

import pytest
from pod_security import violations

ADMITTED = {
    "metadata": {},
    "spec": {
        "securityContext": {"runAsNonRoot": True, "runAsUser": 1000, "seccompProfile": {"type": "RuntimeDefault"}},
        "containers": [
            {
                "name": "main",
                "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
            }
        ],
        "volumes": [{"name": "files", "persistentVolumeClaim": {"claimName": "files"}}],
    },
}


def pod(**changes: object) -> dict:
    """The admitted pod with changes: `pod__x` in the spec, `context__x` in the container's, `main__x` in it."""
    changed = copy.deepcopy(ADMITTED)
    (main,) = changed["spec"]["containers"]
    where = {
        "pod": changed["spec"],
        "context": main["securityContext"],
        "whole": changed["spec"]["securityContext"],
        "main": main,
        "metadata": changed["metadata"],
    }
    for name, value in changes.items():
        part, _, field = name.partition("__")
        where[part][field] = value
        if value is None:
            del where[part][field]
    return changed


def test_an_admitted_pod_breaks_nothing():
    assert violations(ADMITTED) == []
    assert violations(pod(whole__runAsUser=None)) == [], "runAsUser may be left to the platform"


@pytest.mark.parametrize(
    "changes",
    [
        {"pod__hostNetwork": True},
        {"pod__hostPID": True},
        {"pod__hostIPC": True},
        {"pod__volumes": [{"name": "files", "hostPath": {"path": "/"}}]},
        {"pod__volumes": [{"name": "files", "nfs": {"server": "nas", "path": "/"}}]},
        {"pod__volumes": [{"name": "files", "azureFile": {"shareName": "a", "secretName": "b"}}]},
        {"whole__sysctls": [{"name": "kernel.msgmax", "value": "1"}]},
        {"whole__runAsNonRoot": None},
        {"whole__runAsNonRoot": False},
        {"whole__runAsUser": 0},
        {"whole__seccompProfile": None},
        {"whole__seccompProfile": {"type": "Unconfined"}},
        {"whole__seLinuxOptions": {"type": "spc_t"}},
        {"whole__windowsOptions": {"hostProcess": True}},
        {"context__privileged": True},
        {"context__allowPrivilegeEscalation": None},
        {"context__allowPrivilegeEscalation": True},
        {"context__runAsUser": 0},
        {"context__runAsNonRoot": False},
        {"context__capabilities": {}},
        {"context__capabilities": {"drop": ["NET_RAW"]}},
        {"context__capabilities": {"drop": ["ALL"], "add": ["SYS_PTRACE"]}},
        {"context__procMount": "Unmasked"},
        {"context__appArmorProfile": {"type": "Unconfined"}},
        {"main__ports": [{"containerPort": 80, "hostPort": 80}]},
        {"main__livenessProbe": {"httpGet": {"port": 80, "host": "10.0.0.1"}}},
        {"metadata__annotations": {"container.apparmor.security.beta.kubernetes.io/main": "unconfined"}},
        {"pod__initContainers": [{"name": "chown"}]},
    ],
    ids=lambda changes: " ".join(changes),
)
def test_a_broken_rule_is_found(changes):
    assert violations(pod(**changes))
