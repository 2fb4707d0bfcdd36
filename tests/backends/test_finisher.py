from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from tfleet.backends import finisher
from tfleet.backends.finisher import ApiServer, ending_of, finish, main, server_url
from tfleet.spec.errors import JobFailed, WrongInput

JOBS = "/apis/batch/v1/namespaces/work/jobs"


def job(*conditions: tuple[str, str]) -> dict[str, Any]:
    return {"status": {"conditions": [{"type": kind, "status": status} for kind, status in conditions]}}


class FakeApi(ThreadingHTTPServer):
    """Answers with what `answers` says, one after the other, the last again and again; a number is an HTTP error."""

    def __init__(self) -> None:
        self.answers: dict[str, list[Any]] = {}
        self.requests: list[tuple[str, str, Any, str]] = []
        self.kinds: list[str] = []
        super().__init__(("127.0.0.1", 0), _Handler)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def patches(self) -> list[tuple[str, Any]]:
        return [(path, body) for method, path, body, _ in self.requests if method == "PATCH"]


class _Handler(BaseHTTPRequestHandler):
    server: FakeApi
    wbufsize = -1  # head and body in one segment, which the client's delayed acknowledgement does not hold up

    def do_GET(self) -> None:
        self._answer()

    def do_PATCH(self) -> None:
        self.server.kinds.append(self.headers["Content-Type"])
        self._answer()

    def _answer(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        body = json.loads(self.rfile.read(length)) if length else None
        self.server.requests.append((self.command, self.path, body, self.headers["Authorization"]))
        answers = self.server.answers.get(f"{self.command} {self.path}", [404])
        answer = answers.pop(0) if len(answers) > 1 else answers[0]
        code, text = (answer, "{}") if isinstance(answer, int) else (200, json.dumps(answer))
        if isinstance(answer, str):
            text = answer
        self.send_response(code)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text.encode())

    def log_message(self, *_: Any) -> None:
        """Requests are not logged."""


@pytest.fixture
def server() -> Iterator[FakeApi]:
    with FakeApi() as found:
        found.answers[f"PATCH {JOBS}/digits-ps"] = [{}]
        thread = threading.Thread(target=found.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        yield found
        found.shutdown()
        thread.join()


@pytest.fixture
def account(tmp_path):
    (tmp_path / "token").write_text("secret\n")
    return tmp_path


def run(server: FakeApi, account, *worker: Any) -> tuple[str, list[float]]:
    server.answers[f"GET {JOBS}/digits-worker"] = list(worker)
    slept: list[float] = []
    ending = finish(ApiServer(server.url, account), "work", "digits-worker", "digits-ps", slept.append)
    return ending, slept


@pytest.mark.parametrize("kind", ["Complete", "SuccessCriteriaMet", "Failed", "FailureTarget"])
def test_the_ps_are_ended_when_the_workers_are_over(server, account, kind):
    ending, slept = run(server, account, job(), job(("Suspended", "False"), (kind, "False")), job((kind, "True")))
    assert ending == kind
    assert slept == [2.0, 2.0]
    assert server.patches() == [(f"{JOBS}/digits-ps", {"spec": {"parallelism": 0, "completions": 0}})]
    assert server.kinds == ["application/merge-patch+json"]
    assert {token for *_, token in server.requests} == {"Bearer secret"}


def test_a_job_that_nothing_is_known_of_yet_goes_on():
    assert ending_of({}) == ""
    assert ending_of({"status": {"conditions": None}}) == ""


def test_a_new_token_is_used(server, account):
    server.answers[f"GET {JOBS}/digits-worker"] = [job(), job(("Complete", "True"))]
    finish(
        ApiServer(server.url, account),
        "work",
        "digits-worker",
        "digits-ps",
        lambda _: (account / "token").write_text("newer"),
    )
    assert [token for *_, token in server.requests] == ["Bearer secret", "Bearer newer", "Bearer newer"]


def test_trouble_is_waited_out_and_said_once(server, account, capsys):
    server.answers[f"PATCH {JOBS}/digits-ps"] = [409, {}]
    ending, slept = run(server, account, 500, 500, "no json", 403, job(("Complete", "True")))
    assert (ending, len(slept)) == ("Complete", 5)
    assert len(server.patches()) == 2
    assert capsys.readouterr().out.count("500") == 1


def test_an_api_server_that_is_away_is_waited_for(server, account):
    api, calls = ApiServer("http://127.0.0.1:1", account), []

    def sleep(seconds: float) -> None:
        calls.append(seconds)
        api._url = server.url

    server.answers[f"GET {JOBS}/digits-worker"] = [job(("Failed", "True"))]
    assert finish(api, "work", "digits-worker", "digits-ps", sleep) == "Failed"
    assert calls == [2.0]


def test_a_job_that_is_not_there_yet_is_waited_for(server, account):
    ending, slept = run(server, account, 404, 404, job(), job(("Complete", "True")))
    assert (ending, len(slept)) == ("Complete", 3)


def test_a_job_that_was_removed_is_over(server, account):
    assert run(server, account, job(), 404) == ("gone", [2.0])
    assert len(server.patches()) == 1


def test_a_job_that_never_comes_is_over(server, account):
    ending, slept = run(server, account, 404)
    assert (ending, len(slept)) == ("gone", finisher.PATIENCE - 1)


def test_ps_that_are_gone_already_are_no_trouble(server, account):
    server.answers[f"PATCH {JOBS}/digits-ps"] = [404]
    assert run(server, account, job(("Complete", "True")))[0] == "Complete"


def test_rights_that_stay_missing_end_it(server, account):
    with pytest.raises(JobFailed, match=r"GET digits-worker: 403 .*rights to get and patch"):
        run(server, account, 403)


def test_where_the_api_server_is():
    pod = {"KUBERNETES_SERVICE_HOST": "10.0.0.1", "KUBERNETES_SERVICE_PORT": "443"}
    assert server_url(pod) == "https://10.0.0.1:443"
    assert server_url({**pod, "KUBERNETES_SERVICE_HOST": "fd00::1"}) == "https://[fd00::1]:443"
    with pytest.raises(WrongInput, match="runs in a pod only"):
        server_url({})


def arguments(*more: str) -> list[str]:
    return ["--namespace", "work", "--worker-job", "digits-worker", "--ps-job", "digits-ps", *more]


def test_the_program(server, account, capsys):
    server.answers[f"GET {JOBS}/digits-worker"] = [job(("Complete", "True"))]
    assert main(arguments("--server", server.url, "--account", str(account))) == 0
    assert "digits-ps was ended" in capsys.readouterr().out


def test_the_program_outside_of_a_pod(monkeypatch, tmp_path, capsys):
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    assert main(arguments()) == 2
    assert "KUBERNETES_SERVICE_HOST" in capsys.readouterr().err
    assert main(arguments("--server", "https://127.0.0.1:1", "--account", str(tmp_path))) == 2
    assert str(tmp_path) in capsys.readouterr().err


def test_a_proxy_is_not_used(server, account, monkeypatch):
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    monkeypatch.delenv("no_proxy", raising=False)
    assert run(server, account, job(("Complete", "True")))[0] == "Complete"
