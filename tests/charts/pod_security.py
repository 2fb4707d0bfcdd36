"""The `restricted` level of the Pod Security Standards, as far as a pod's text can break it.

Source: kubernetes.io/docs/concepts/security/pod-security-standards (baseline and restricted, Linux pods).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

VOLUMES = {
    "configMap",
    "csi",
    "downwardAPI",
    "emptyDir",
    "ephemeral",
    "persistentVolumeClaim",
    "projected",
    "secret",
}
SYSCTLS = {
    "kernel.shm_rmid_forced",
    "net.ipv4.ip_local_port_range",
    "net.ipv4.ip_unprivileged_port_start",
    "net.ipv4.tcp_syncookies",
    "net.ipv4.ping_group_range",
    "net.ipv4.ip_local_reserved_ports",
    "net.ipv4.tcp_keepalive_time",
    "net.ipv4.tcp_fin_timeout",
    "net.ipv4.tcp_keepalive_intvl",
    "net.ipv4.tcp_keepalive_probes",
    "net.ipv4.tcp_rmem",
    "net.ipv4.tcp_wmem",
}
SELINUX_TYPES = {"", "container_t", "container_init_t", "container_kvm_t", "container_engine_t"}
SECCOMP = {"RuntimeDefault", "Localhost"}


def violations(pod: dict[str, Any]) -> list[str]:
    """Returns what the `restricted` level would refuse of a pod (metadata and spec)."""
    spec = pod["spec"]
    return [
        *_of_metadata(pod.get("metadata", {})),
        *_of_spec(spec),
        *_of_context("pod", spec.get("securityContext", {})),
        *(wrong for container in _containers(spec) for wrong in _of_container(container, spec)),
    ]


def _containers(spec: dict[str, Any]) -> list[dict[str, Any]]:
    return [
        container
        for kind in ("containers", "initContainers", "ephemeralContainers")
        for container in spec.get(kind, [])
    ]


def _of_metadata(metadata: dict[str, Any]) -> Iterator[str]:
    for name, value in metadata.get("annotations", {}).items():
        allowed = value == "runtime/default" or value.startswith("localhost/")
        if name.startswith("container.apparmor.security.beta.kubernetes.io/") and not allowed:
            yield f"AppArmor {value}"


def _of_spec(spec: dict[str, Any]) -> Iterator[str]:
    for field in ("hostNetwork", "hostPID", "hostIPC"):
        if spec.get(field):
            yield field
    for volume in spec.get("volumes", []):
        for kind in set(volume) - {"name"} - VOLUMES:
            yield f"volume {volume['name']} of kind {kind}"
    for sysctl in spec.get("securityContext", {}).get("sysctls", []):
        if sysctl["name"] not in SYSCTLS:
            yield f"sysctl {sysctl['name']}"


def _of_context(where: str, context: dict[str, Any]) -> Iterator[str]:
    """What is forbidden in the security context of a pod and of a container alike."""
    if context.get("runAsNonRoot") is False:
        yield f"{where}: runAsNonRoot false"
    if context.get("runAsUser") == 0:
        yield f"{where}: runAsUser 0"
    if "seccompProfile" in context and context["seccompProfile"].get("type") not in SECCOMP:
        yield f"{where}: seccompProfile {context['seccompProfile'].get('type')}"
    if context.get("windowsOptions", {}).get("hostProcess"):
        yield f"{where}: hostProcess"
    if context.get("appArmorProfile", {}).get("type", "RuntimeDefault") not in SECCOMP:
        yield f"{where}: appArmorProfile"
    selinux = context.get("seLinuxOptions", {})
    if selinux.get("type", "") not in SELINUX_TYPES or selinux.get("user") or selinux.get("role"):
        yield f"{where}: seLinuxOptions"


def _of_container(container: dict[str, Any], spec: dict[str, Any]) -> Iterator[str]:
    where, context = container["name"], container.get("securityContext", {})
    whole = spec.get("securityContext", {})
    yield from _of_context(where, context)
    if context.get("privileged"):
        yield f"{where}: privileged"
    if context.get("allowPrivilegeEscalation") is not False:
        yield f"{where}: allowPrivilegeEscalation is not false"
    if context.get("runAsNonRoot", whole.get("runAsNonRoot")) is not True:
        yield f"{where}: runAsNonRoot is not true"
    if context.get("seccompProfile", whole.get("seccompProfile")) is None:
        yield f"{where}: no seccompProfile"
    capabilities = context.get("capabilities", {})
    if "ALL" not in capabilities.get("drop", []):
        yield f"{where}: does not drop ALL"
    if set(capabilities.get("add", [])) - {"NET_BIND_SERVICE"}:
        yield f"{where}: adds capabilities"
    if context.get("procMount", "Default") != "Default":
        yield f"{where}: procMount"
    for port in container.get("ports", []):
        if port.get("hostPort"):
            yield f"{where}: hostPort"
    for handler in _handlers(container):
        for probe in ("httpGet", "tcpSocket"):
            if handler.get(probe, {}).get("host"):
                yield f"{where}: a probe or hook names a host"


def _handlers(container: dict[str, Any]) -> list[dict[str, Any]]:
    probes = [container.get(f"{kind}Probe", {}) for kind in ("liveness", "readiness", "startup")]
    return probes + [container.get("lifecycle", {}).get(hook, {}) for hook in ("postStart", "preStop")]
