"""The replica environment: the variables by which a backend tells a process who it is and where the others are.

The names are those that scripts written for TensorFlow's own distributed runtime read, so that a backend starts
such scripts and tfleet's own replicas the same way.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tfleet.spec.errors import WrongInput, nearest

JOB_NAME = "JOB_NAME"
POD_NAME = "POD_NAME"
PS_HOSTS = "PS_HOSTS"
WORKER_HOSTS = "WORKER_HOSTS"
TF_CONFIG = "TF_CONFIG"
TOKEN_FILE = "TFLEET_TOKEN_FILE"
"""Names the file that holds the job's secret; the secret itself is never in a replica's environment."""
TOKEN = "TFLEET_TOKEN"
"""Holds the job's secret for `tfleet join`, which hands it on to nobody; replicas never have it."""
LIFELINE_FD = "TFLEET_LIFELINE_FD"
"""Names the descriptor that reads end-of-file once the launcher has died (see `tfleet.spec.lifeline`)."""

RESTARTS = "TFLEET_RESTARTS"
"""Tells a replica how often it was started again, for the status; not set: never, or not known."""

JOB_FILE = "TFLEET_JOB_FILE"
"""Names the job file where it is not that of the run directory: in a pod, that of the ConfigMap."""

RENDEZVOUS = "TFLEET_RENDEZVOUS"
"""Address at which ps 0 is found wherever it runs, such as that of a Kubernetes service; not set: as in `PS_HOSTS`."""

POD_IP = "TFLEET_POD_IP"
"""Address of this pod, which the ps announce: names of pods that come back elsewhere are known late."""

TLS_VARIABLES = {
    "tls_cert": "TFLEET_TLS_CERT",
    "tls_key": "TFLEET_TLS_KEY",
    "tls_ca": "TFLEET_TLS_CA",
    "tls_server_name": "TFLEET_TLS_SERVER_NAME",
}
"""Name the files for TLS where they are not those of the job file: of a worker on another machine than the job's."""

GRACE = "TFLEET_GRACE_SECONDS"
"""Seconds that this pod has between SIGTERM and SIGKILL; not set: 30, as Kubernetes gives where nobody says."""

EVENTS = "TFLEET_EVENTS"
"""Names a folder in which every ps tells what it does, event by event; not set: nowhere. Launchers hand it on."""

VARIABLES = (
    JOB_NAME,
    POD_NAME,
    PS_HOSTS,
    WORKER_HOSTS,
    TF_CONFIG,
    TOKEN_FILE,
    TOKEN,
    LIFELINE_FD,
    RESTARTS,
    JOB_FILE,
    RENDEZVOUS,
    POD_IP,
    *TLS_VARIABLES.values(),
    GRACE,
)
"""Every name of the contract; a launcher removes them from what its children inherit before it sets its own."""

ROLES = ("ps", "worker", "evaluator", "chief")
UNIX = "unix:"


@dataclass(frozen=True)
class ReplicaEnvironment:
    """Who a replica is, and where the others are.

    Attributes:
        role: one of `ROLES`.
        index: its number within the role, from 0.
        ps_hosts: address of each ps: `host:port`, or `unix:@name` (abstract) or `unix:/path` on one machine.
        worker_hosts: address of each worker.
        chief_host: address of the chief of a script of TensorFlow's own runtime; empty: there is none.
    """

    role: str
    index: int
    ps_hosts: tuple[str, ...]
    worker_hosts: tuple[str, ...]
    chief_host: str = ""

    @property
    def name(self) -> str:
        """Name of the replica, such as `worker-1`."""
        return f"{self.role}-{self.index}"

    def variables(self) -> dict[str, str]:
        """Returns the environment of this replica; `TF_CONFIG` only where every address is `host:port`."""
        values = {
            JOB_NAME: self.role,
            POD_NAME: self.name,
            PS_HOSTS: ",".join(self.ps_hosts),
            WORKER_HOSTS: ",".join(self.worker_hosts),
        }
        if not any(host.startswith(UNIX) for host in (*self.ps_hosts, *self.worker_hosts)):
            values[TF_CONFIG] = json.dumps(self.tf_config())
        return values

    def tf_config(self) -> dict[str, Any]:
        """Returns cluster and task as `tf.distribute.cluster_resolver.TFConfigClusterResolver` reads them."""
        hosts = {"chief": (self.chief_host,) * bool(self.chief_host), "ps": self.ps_hosts, "worker": self.worker_hosts}
        return {
            "cluster": {role: list(addresses) for role, addresses in hosts.items() if addresses},
            "task": {"type": self.role, "index": self.index},
        }

    @classmethod
    def from_environ(cls, environ: Mapping[str, str]) -> ReplicaEnvironment:
        """Reads the environment of a replica, as `variables` wrote it.

        Raises:
            WrongInput: when a variable is missing or malformed, or when two of them contradict each other.
        """
        role = _required(environ, JOB_NAME)
        if role not in ROLES:
            raise WrongInput(f"{JOB_NAME} is {role!r}{nearest(role, ROLES)}; set it to one of {', '.join(ROLES)}")
        index = _ordinal(_required(environ, POD_NAME))
        ps_hosts = _hosts(PS_HOSTS, _required(environ, PS_HOSTS))
        worker_hosts = _hosts(WORKER_HOSTS, _required(environ, WORKER_HOSTS))
        config = _parsed(environ.get(TF_CONFIG, ""))
        chief = config.get("cluster", {}).get("chief", [])
        found = cls(role, index, ps_hosts, worker_hosts, str(chief[0]) if chief else "")
        found._check_index(len(chief))
        if config and found.tf_config() != config:
            raise WrongInput(
                f"{TF_CONFIG} {json.dumps(config)} contradicts {JOB_NAME}, {POD_NAME}, {PS_HOSTS} and {WORKER_HOSTS}, "
                f"which say {json.dumps(found.tf_config())}; correct it or leave it out"
            )
        return found

    def _check_index(self, chiefs: int) -> None:
        limits = {"ps": (PS_HOSTS, len(self.ps_hosts)), "worker": (WORKER_HOSTS, len(self.worker_hosts))}
        limits["chief"] = (TF_CONFIG, chiefs)
        if self.role in limits and self.index >= limits[self.role][1]:
            variable, count = limits[self.role]
            raise WrongInput(
                f"{POD_NAME} names {self.role} {self.index}, but {variable} lists {count} of that role; "
                f"correct {POD_NAME} or add its address to {variable}"
            )


@dataclass(frozen=True)
class Whereabouts:
    """Where one ps listens, what it tells the others, and where everybody finds ps 0.

    Attributes:
        listen: address to listen on: in a pod every interface, since port-forwards come by loopback.
        announce: address that ps 0 hands out to workers.
        first: address of ps 0.
    """

    listen: str
    announce: str
    first: str

    @classmethod
    def of(cls, index: int, hosts: Sequence[str], environ: Mapping[str, str]) -> Whereabouts:
        """Reads where ps `index` is, or, for any other replica, where ps 0 is (with index 0).

        Args:
            index: of the ps.
            hosts: address of each ps, as in `PS_HOSTS`.
            environ: the environment.
        """
        own, pod = hosts[index], environ.get(POD_IP, "")
        first = environ.get(RENDEZVOUS) or hosts[0]
        if not pod:
            return cls(own, own, first)
        port = own.rpartition(":")[2]
        six = ":" in pod
        return cls(f"[::]:{port}" if six else f"0.0.0.0:{port}", f"[{pod}]:{port}" if six else f"{pod}:{port}", first)


def restarts_of(environ: Mapping[str, str]) -> int:
    """Returns how often this replica was started again, as far as its backend tells.

    Raises:
        WrongInput: when the variable holds no number.
    """
    text = environ.get(RESTARTS, "0")
    if not (text.isascii() and text.isdigit()):
        raise WrongInput(f"{RESTARTS} is {text!r}, which is no count; unset it, only a launcher sets it")
    return int(text)


def grace_of(environ: Mapping[str, str]) -> float:
    """Returns the seconds that this pod has between SIGTERM and SIGKILL.

    Raises:
        WrongInput: when the variable holds no such number.
    """
    text = environ.get(GRACE, "30")
    if not (text.isascii() and text.isdigit() and int(text)):
        raise WrongInput(f"{GRACE} is {text!r}; give the whole seconds of the pod's terminationGracePeriodSeconds")
    return float(text)


def is_address(text: str) -> bool:
    """Tells whether `text` is `host:port`, `unix:@name` or `unix:/path`."""
    if text.startswith(UNIX):
        return len(text) > len(UNIX) + 1 and text[len(UNIX)] in "@/"
    host, _, port = text.rpartition(":")
    return bool(host) and port.isascii() and port.isdigit() and 0 < int(port) < 65536


def split_listen(text: str) -> tuple[str, int]:
    """Splits `HOST` or `HOST:PORT` as a user gives it, `[...]` around an IPv6 address with a port.

    Returns:
        The host, with brackets where it is an IPv6 address, and the port; 0: none was given.

    Raises:
        ValueError: when it is neither, or not one address that others could connect to.
    """
    bare = text.count(":") > 1 and not text.startswith("[")
    host, port = (text, "") if bare or text.endswith("]") or ":" not in text else text.rsplit(":", 1)
    name = host.strip("[]")
    number = int(port) if port.isascii() and port.isdigit() else 0
    if not name or " " in name or "/" in name or (":" in text and not bare and not text.endswith("]") and not number):
        raise ValueError("it must be HOST or HOST:PORT, such as 10.0.0.5 or 10.0.0.5:7000")
    if number > 65535:
        raise ValueError("the port must be at most 65535")
    if name in ("0.0.0.0", "::", "*"):
        raise ValueError("it must be one address of this machine, by which the other machines reach it")
    return (f"[{name}]" if ":" in name else name), number


def _required(environ: Mapping[str, str], name: str) -> str:
    if name not in environ:
        raise WrongInput(
            f"the environment variable {name} is not set; start replicas with 'tfleet train' or 'tfleet launch', "
            f"or set {JOB_NAME}, {POD_NAME}, {PS_HOSTS} and {WORKER_HOSTS}"
        )
    return environ[name]


def _ordinal(pod_name: str) -> int:
    ordinal = pod_name.rpartition("-")[2]
    if not (ordinal.isascii() and ordinal.isdigit()):
        raise WrongInput(f"{POD_NAME} is {pod_name!r}; it must end in '-' and a number, such as worker-0")
    return int(ordinal)


def _hosts(name: str, text: str) -> tuple[str, ...]:
    hosts = tuple(part.strip() for part in text.split(",")) if text.strip() else ()
    for host in hosts:
        if not is_address(host):
            raise WrongInput(f"{name} holds {host!r}; give host:port (or unix:@name) for each, separated by commas")
    return hosts


def _parsed(text: str) -> dict[str, Any]:
    if not text:
        return {}
    try:
        config = json.loads(text)
        if all(isinstance(config[key], dict) for key in ("cluster", "task")):
            return {"cluster": config["cluster"], "task": config["task"]}
    except (ValueError, TypeError, KeyError):
        pass
    raise WrongInput(f"{TF_CONFIG} is {text!r}; it must be JSON with the objects 'cluster' and 'task', or left out")
