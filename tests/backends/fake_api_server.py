"""A small HTTP server that stands for the API server of a cluster, and a kubeconfig that names it."""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

Handler = Callable[[dict[str, Any]], tuple[int, Any]]

VERSION = {"major": "1", "minor": "34", "gitVersion": "v1.34.4"}


def forbidden(message: str) -> tuple[int, dict[str, Any]]:
    return 403, {"kind": "Status", "reason": "Forbidden", "message": message}


class FakeApiServer:
    """Answers by a table: (method, path) to an object, a (code, body) pair, or a function of the request.

    Attributes:
        answers: the table; a path that is not in it is answered by 404, a list of a namespace by an empty one.
        requests: what was asked, oldest first.
    """

    def __init__(self) -> None:
        self.answers: dict[tuple[str, str], Any] = {("GET", "/version"): VERSION}
        self.requests: list[dict[str, Any]] = []

    def asked(self, method: str, path: str) -> list[dict[str, Any]]:
        return [r for r in self.requests if (r["method"], r["path"]) == (method, path)]

    def answer(self, request: dict[str, Any]) -> tuple[int, Any]:
        self.requests.append(request)
        found = self.answers.get((request["method"], request["path"]))
        if callable(found):
            found = found(request)
        if found is None:
            return 404, {"kind": "Status", "reason": "NotFound", "message": f"{request['path']} not found"}
        return found if isinstance(found, tuple) else (200, found)


@contextlib.contextmanager
def served(folder: Path) -> Iterator[tuple[FakeApiServer, str]]:
    """Serves on a free port; yields the server and the path of a kubeconfig with the context `fake`."""
    fake = FakeApiServer()

    class Handle(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _answer(self) -> None:
            url = urlsplit(self.path)
            size = int(self.headers.get("Content-Length") or 0)
            body = json.loads(self.rfile.read(size)) if size else None
            request = {
                "method": self.command,
                "path": url.path.rstrip("/"),
                "query": {k: v[0] for k, v in parse_qs(url.query).items()},
                "headers": dict(self.headers),
                "body": body,
            }
            code, answer = fake.answer(request)
            data = answer.encode() if isinstance(answer, str) else json.dumps(answer).encode()
            self.send_response(code)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        do_GET = do_POST = do_DELETE = _answer

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handle)
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    config = folder / "kubeconfig"
    config.write_text(
        json.dumps(
            {
                "current-context": "fake",
                "contexts": [{"name": "fake", "context": {"cluster": "c", "user": "u", "namespace": "ns"}}],
                "clusters": [{"name": "c", "cluster": {"server": f"http://127.0.0.1:{server.server_port}"}}],
                "users": [{"name": "u", "user": {"token": "secret"}}],
            }
        )
    )
    try:
        yield fake, str(config)
    finally:
        server.shutdown()
        server.server_close()
