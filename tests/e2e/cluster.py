"""The cluster under test: two real nodes on this machine, started by the scripts beside this repository."""

from __future__ import annotations

import base64
import http.client
import os
import signal
import ssl
import subprocess
import sys
import tempfile
import urllib.parse
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml
from finished import Finished
from waiting import wait_until

ROOT = Path(__file__).resolve().parents[2]
CHART = ROOT / "charts" / "tfleet"
SCRIPTS = Path(os.environ.get("TFLEET_CLUSTER", ROOT.parent / "shared" / "cluster"))
STATE = Path(os.environ.get("CLUSTER_STATE", "/var/lib/local-cluster"))
CACHE = Path(os.environ.get("CLUSTER_CACHE", Path.home() / ".cache" / "local-cluster"))
IMAGES = {"ps": "docker.io/library/tfleet-ps:0.1.0", "worker": "docker.io/library/tfleet-worker:0.1.0"}
LIMIT = 300
"""Seconds after which a command counts as hanging."""


def environment() -> dict[str, str]:
    """What kubectl, helm and tfleet need to reach the cluster, and nothing that would lead them round it."""
    env = {key: value for key, value in os.environ.items() if not key.lower().endswith("_proxy")}
    path = f"{CACHE / 'bin'}:{env.get('PATH', '')}:/usr/sbin:/sbin"
    return {**env, "KUBECONFIG": str(STATE / "kubeconfig"), "PATH": path, "TF_CPP_MIN_LOG_LEVEL": "2"}


def run(*command: str, text: str | None = None, seconds: float = LIMIT, **env: str) -> Finished:
    """Runs a command to its end, with `env` put over the environment."""
    done = subprocess.run(
        command, input=text or "", capture_output=True, text=True, timeout=seconds, env={**environment(), **env}
    )
    return Finished(done.returncode, done.stdout, done.stderr)


def tfleet(*arguments: str, **env: str) -> Finished:
    """Runs the command line of tfleet to its end, with `env` put over the environment."""
    return run(sys.executable, "-m", "tfleet", *arguments, **env)


class Cluster:
    """A cluster that answers.

    Attributes:
        started: whether it was started here, so that it is to be taken down here.
    """

    def __init__(self, started: bool) -> None:
        self.started = started

    @classmethod
    def find_or_start(cls, nodes: int = 2) -> Cluster:
        """Takes the cluster that runs, or starts one; blocks for about 12 s then."""
        started = run("kubectl", "get", "--raw", "/readyz", "--request-timeout=5s").code != 0
        # The script that starts it leaves daemons behind, which keep its pipes open: they go to a file.
        if started:
            with tempfile.TemporaryFile() as said:
                command = [str(SCRIPTS / "up"), str(nodes)]
                code = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=said, stderr=said).returncode
                said.seek(0)
                assert code == 0, said.read().decode(errors="replace")
        found = cls(started)
        found.heal()
        return found

    def take_down(self) -> None:
        """Stops the cluster and removes what it left."""
        self.script("down")

    def script(self, name: str, *arguments: str, seconds: float = LIMIT) -> None:
        """Runs one of the cluster's scripts; its daemons may outlive it."""
        with tempfile.TemporaryFile() as said:
            code = subprocess.run(
                [str(SCRIPTS / name), *arguments],
                stdin=subprocess.DEVNULL,
                stdout=said,
                stderr=said,
                timeout=seconds,
                env=environment(),
            ).returncode
            said.seek(0)
            assert code == 0, f"{name} {' '.join(arguments)}: {said.read().decode(errors='replace')[-4000:]}"

    def kubectl(self, *arguments: str, text: str | None = None) -> Finished:
        return run("kubectl", *arguments, text=text)

    def items(self, kind: str, *arguments: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.kubectl("get", kind, "-o", "json", *arguments).good().json()["items"]
        return found

    # --- nodes

    def nodes(self) -> list[str]:
        """Names of the nodes that are on disk, living or not."""
        return sorted(folder.name for folder in (STATE / "nodes").iterdir())

    def ready(self, node: str) -> bool:
        described = self.kubectl("get", "node", node, "-o", "json")
        if described.code != 0:
            return False
        conditions = described.json()["status"]["conditions"]
        return any(c["type"] == "Ready" and c["status"] == "True" for c in conditions)

    def kill(self, node: str) -> None:
        """Powers a node off with all its pods."""
        self.script("node", "kill", node.rpartition("-")[2])

    def heal(self) -> None:
        """Powers on every node that is off, and waits until all are ready."""
        for node in self.nodes():
            if not (STATE / "pids" / f"kubelet-{node}").exists():
                self.script("node", "start", node.rpartition("-")[2])
        for node in self.nodes():
            wait_until(lambda node=node: self.ready(node), f"{node} to be ready")  # type: ignore[misc]

    # --- images

    def build_images(self) -> None:
        """Builds both images from this repository; quick where nothing has changed."""
        for role, image in IMAGES.items():
            dockerfile = ROOT / "images" / role / "Dockerfile"
            self.script("build-image", image, str(dockerfile), str(ROOT), seconds=3600)

    def load_images(self) -> None:
        """Copies to the nodes what they do not have yet; a file beside each node tells what it has."""
        for image in IMAGES.values():
            built = run("buildah", "inspect", "--type", "image", "--format", "{{.FromImageID}}", image).good().out
            marks = [STATE / "nodes" / node / f"has-{image.rpartition('/')[2]}" for node in self.nodes()]
            if all(mark.exists() and mark.read_text() == built for mark in marks):
                continue
            self.script("load-image", image, seconds=900)
            for mark in marks:
                mark.write_text(built)

    # --- the API server

    def crash_api_server(self) -> Callable[[], None]:
        """Kills the API server; returns what starts it again, as it was, and waits until it is ready."""
        number = STATE / "pids" / "apiserver"
        pid = int(number.read_text())
        command = Path(f"/proc/{pid}/cmdline").read_bytes().decode().rstrip("\0").split("\0")
        assert "kube-apiserver" in command[0], command
        os.kill(pid, signal.SIGKILL)
        wait_until(lambda: self.get("/readyz")[0] == 0, "the API server to be gone")

        def start() -> None:
            with (STATE / "logs" / "apiserver.log").open("ab") as log:
                again = subprocess.Popen(
                    command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
                )
            number.write_text(f"{again.pid}\n")
            wait_until(lambda: self.get("/readyz")[0] == 200, "the API server to be ready again")

        return start

    @cached_property
    def _api(self) -> tuple[str, ssl.SSLContext]:
        config = yaml.safe_load((STATE / "kubeconfig").read_text())
        server, user = config["clusters"][0]["cluster"], config["users"][0]["user"]
        authority = base64.b64decode(server["certificate-authority-data"]).decode()
        context = ssl.create_default_context(cadata=authority)
        with tempfile.NamedTemporaryFile() as pair:
            for part in ("client-certificate-data", "client-key-data"):
                pair.write(base64.b64decode(user[part]))
            pair.flush()
            context.load_cert_chain(pair.name)
        return urllib.parse.urlsplit(server["server"]).netloc, context

    def get(self, path: str, headers: dict[str, str] | None = None) -> tuple[int, bytes]:
        """Asks the API server for a path; returns code and body."""
        netloc, context = self._api
        connection = http.client.HTTPSConnection(netloc, timeout=10, context=context)
        try:
            connection.request("GET", path, headers=headers or {})
            answer = connection.getresponse()
            return answer.status, answer.read()
        except OSError as error:
            return 0, str(error).encode()
        finally:
            connection.close()
