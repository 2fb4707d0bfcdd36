"""The read-only HTTP port of ps 0: /status (token needed), /healthz, /metrics."""

from __future__ import annotations

import contextlib
import hmac
import json
import socket
import sys
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from tfleet.server.metric_families import families
from tfleet.spec.errors import WrongInput

Status = Callable[[], dict[str, Any]]
REQUEST_SECONDS = 5.0
CONNECTIONS = 32
"""So many requests at once; one more ends the oldest."""


class _JobCollector(Collector):
    """Turns the newest status into Prometheus metrics."""

    def __init__(self, status: Status) -> None:
        self._status = status
        self._applied = 0

    def collect(self) -> list[Metric]:
        status = self._status()
        ledger = status["ledger"]
        # A counter that fell would be taken for one that began anew: steps that a rollback took back stay counted.
        self._applied = max(self._applied, status["step"] + status.get("steps_undone", 0))
        rows: list[Metric] = [
            GaugeMetricFamily("tfleet_steps_per_second", "Global steps per second.", status["steps_per_second"]),
            GaugeMetricFamily("tfleet_epoch", "Epoch that is worked on.", status["epoch"]),
            CounterMetricFamily(
                "tfleet_pushes_refused",
                "Pushes that came twice or too late.",
                ledger["duplicates"] + status["counts"]["late_pushes"],
            ),
            CounterMetricFamily(
                "tfleet_partial_updates", "Updates of lost workers that not all ps have.", ledger["partial_updates"]
            ),
        ]
        # A ps 0 that was started again knows its step once it has read the last commit.
        if status["phase"] != "starting":
            text = "Global steps applied, those that a rollback undid among them."
            rows.append(CounterMetricFamily("tfleet_steps", text, self._applied))
        if status["loss"] is not None:
            rows.append(GaugeMetricFamily("tfleet_loss", "Training loss over the last seconds.", status["loss"]))
        if status["last_commit"]:
            rows.append(
                GaugeMetricFamily(
                    "tfleet_last_commit_time_seconds", "When the last commit was made.", status["last_commit"]["time"]
                )
            )
        members = GaugeMetricFamily("tfleet_members", "Replicas by role and state.", labels=["role", "state"])
        counts: dict[tuple[str, str], int] = {}
        for member in status["members"]:
            key = member["role"], member["state"]
            counts[key] = counts.get(key, 0) + 1
        for key, count in counts.items():
            members.add_metric(key, count)
        phase = GaugeMetricFamily("tfleet_phase", "1 for the phase of the job.", labels=["phase"])
        phase.add_metric([status["phase"]], 1)
        return [*rows, members, phase, *families(status)]


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def __init__(self, host: str, port: int, handler: type[BaseHTTPRequestHandler]) -> None:
        self.address_family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self._open: dict[Any, None] = {}
        self._lock = threading.Lock()
        super().__init__((host, port), handler)

    def process_request(self, request: Any, client_address: Any) -> None:
        """Starts a thread for the request."""
        with self._lock:
            if len(self._open) >= CONNECTIONS:
                with contextlib.suppress(OSError):
                    next(iter(self._open)).shutdown(socket.SHUT_RDWR)
                del self._open[next(iter(self._open))]
            self._open[request] = None
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        """Ends the request."""
        with self._lock:
            self._open.pop(request, None)
        super().shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that went away is no news."""
        if not isinstance(sys.exception(), OSError):
            super().handle_error(request, client_address)


class StatusServer:
    """Answers in threads of its own; never touches the loop's data, only the newest published status.

    Args:
        host: address to listen on.
        port: to listen on.
        token: of the job; /status wants it as `Authorization: Bearer` or `X-Tfleet-Token`.
        status: returns the newest status; must be safe to call from any thread.

    Raises:
        WrongInput: when the port is taken.
    """

    def __init__(self, host: str, port: int, token: bytes, status: Status) -> None:
        registry = CollectorRegistry()
        registry.register(_JobCollector(status))

        class Handler(BaseHTTPRequestHandler):
            timeout = REQUEST_SECONDS
            server_version = "tfleet"
            sys_version = ""

            def do_GET(self) -> None:
                """Answers one request."""
                path = self.path.partition("?")[0]
                if path == "/healthz":
                    self._answer(200, b"ok\n", "text/plain")
                elif path == "/metrics":
                    self._answer(200, generate_latest(registry), "text/plain; version=0.0.4; charset=utf-8")
                elif path != "/status":
                    self._answer(404, b"there are /status, /healthz and /metrics\n", "text/plain")
                elif self._knows_token():
                    self._answer(200, json.dumps(status()).encode(), "application/json")
                else:
                    self._answer(401, b"give the job's token as bearer or in X-Tfleet-Token\n", "text/plain")

            def _knows_token(self) -> bool:
                bearer = self.headers.get("Authorization", "").removeprefix("Bearer ")
                given = (self.headers.get("X-Tfleet-Token") or bearer).strip().encode()
                return hmac.compare_digest(given, token)

            def _answer(self, code: int, body: bytes, kind: str) -> None:
                self.send_response(code)
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: Any) -> None:
                """Requests are not logged."""

        try:
            self._server = _Server(host, port, Handler)
        except OSError as error:
            raise WrongInput(
                f"the status port {port} cannot be used: {error.strerror}; choose another with --status-port, or 0"
            ) from None
        self.port: int = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, name="status", daemon=True).start()

    def close(self) -> None:
        """Stops answering."""
        with contextlib.suppress(OSError):
            self._server.socket.shutdown(socket.SHUT_RDWR)  # wakes the thread, which would look twice a second only
        self._server.shutdown()
        self._server.server_close()
