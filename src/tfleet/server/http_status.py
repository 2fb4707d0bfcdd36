"""The read-only HTTP port of ps 0: /status (token needed), /healthz, /metrics."""

from __future__ import annotations

import hmac
import json
import socket
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from tfleet.spec.errors import WrongInput

Status = Callable[[], dict[str, Any]]
REQUEST_SECONDS = 5.0


class _JobCollector(Collector):
    """Turns the newest status into Prometheus metrics."""

    def __init__(self, status: Status) -> None:
        self._status = status

    def collect(self) -> list[Metric]:
        status = self._status()
        ledger = status["ledger"]
        rows: list[Metric] = [
            CounterMetricFamily("tfleet_steps", "Global steps applied.", status["step"]),
            GaugeMetricFamily("tfleet_steps_per_second", "Global steps per second.", status["steps_per_second"]),
            GaugeMetricFamily("tfleet_epoch", "Epoch that is worked on.", status["epoch"]),
            CounterMetricFamily("tfleet_pushes_refused", "Pushes that came twice or too late.", ledger["duplicates"]),
            CounterMetricFamily(
                "tfleet_partial_updates", "Updates of lost workers that not all ps have.", ledger["partial_updates"]
            ),
        ]
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
        return [*rows, members, phase]


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
                if self.path == "/healthz":
                    self._answer(200, b"ok\n", "text/plain")
                elif self.path == "/metrics":
                    self._answer(200, generate_latest(registry), "text/plain; version=0.0.4; charset=utf-8")
                elif self.path != "/status":
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

        class Server(ThreadingHTTPServer):
            daemon_threads = True
            address_family = socket.AF_INET6 if ":" in host else socket.AF_INET

        try:
            self._server = Server((host, port), Handler)
        except OSError as error:
            raise WrongInput(
                f"the status port {port} cannot be used: {error.strerror}; choose another with --status-port, or 0"
            ) from None
        self.port: int = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, name="status", daemon=True).start()

    def close(self) -> None:
        """Stops answering."""
        self._server.shutdown()
        self._server.server_close()
