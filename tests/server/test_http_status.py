"""The read-only HTTP port of ps 0, over real sockets on loopback."""

import http.client
import json
import socket
import threading

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tfleet.server.http_status import CONNECTIONS, StatusServer
from tfleet.spec.errors import WrongInput

TOKEN = b"secret of this job"
STATUS = {
    "phase": "training",
    "step": 75,
    "steps_per_second": 10.5,
    "epoch": 2,
    "loss": 0.25,
    "ledger": {"duplicates": 3, "partial_updates": 1},
    "last_commit": {"number": 4, "step": 70, "time": 1.7e9, "seconds": 0.5},
    "members": [
        {"role": "worker", "index": 0, "state": "working", "restarts": 0},
        {"role": "worker", "index": 1, "state": "working", "restarts": 2},
        {"role": "worker", "index": 2, "state": "lost", "restarts": 0},
        {"role": "evaluator", "index": 0, "state": "joined", "restarts": 0},
    ],
    "ps": [
        {"index": 0, "state": "joined", "restarts": 1, "memory": 50_000_000, "updates": 400, "queue_seconds": 1.25},
        {"index": 1, "state": "missing", "restarts": 0, "memory": 0, "updates": 0, "queue_seconds": 0.0},
    ],
    "metrics": {"accuracy": 0.75},
    "evaluation": {"step": 70, "commit": 4, "metrics": {"accuracy": 0.7, "loss": 0.3}},
    "staleness": {"mean": 1.5, "max": 4},
    "seconds_left": None,
    "generation": 2,
    "workers_wanted": 3,
    "rollbacks": 1,
    "steps_undone": 10,
    "goodput": 0.88,
    "counts": {"commits": 5, "failed_commits": 2, "fenced": 3, "given_back": 7, "late_pushes": 1},
    "straggler": {"worker": 1, "ratio": 2.5, "part": "data", "text": "worker 1 is slowest"},
    "updated": 1.7e9 + 30,
}


@pytest.fixture(scope="module")
def server():
    made = StatusServer("127.0.0.1", 0, TOKEN, lambda: STATUS)
    yield made
    made.close()


def ask(server, path, method="GET", **headers):
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=20)
    connection.request(method, path, headers=headers)
    answer = connection.getresponse()
    body = answer.read()
    connection.close()
    return answer.status, body, answer.headers


@pytest.mark.parametrize("headers", [{"Authorization": f"Bearer {TOKEN.decode()}"}, {"X-Tfleet-Token": TOKEN.decode()}])
@pytest.mark.parametrize("path", ["/status", "/status?pretty=1"])
def test_the_status_is_told_to_who_knows_the_token(server, headers, path):
    code, body, answered = ask(server, path, **headers)
    assert (code, json.loads(body), answered["Content-Type"]) == (200, STATUS, "application/json")


@pytest.mark.parametrize(
    "headers",
    [
        {},
        *[{"Authorization": value} for value in ("Bearer guess", "Bearer ", "Bearer secret of this")],
        *[{"X-Tfleet-Token": value} for value in ("guess", "\xe9")],
    ],
)
def test_and_to_nobody_else(server, headers):
    code, body, _ = ask(server, "/status", **headers)
    assert code == 401
    assert b"X-Tfleet-Token" in body
    assert b"training" not in body


def test_health_needs_no_token(server):
    assert ask(server, "/healthz")[:2] == (200, b"ok\n")


def test_metrics_are_what_prometheus_reads(server):
    code, body, headers = ask(server, "/metrics")
    assert (code, headers["Content-Type"].split(";")[0]) == (200, "text/plain")
    samples = {}
    for family in text_string_to_metric_families(body.decode()):
        for sample in family.samples:
            samples[sample.name, tuple(sorted(sample.labels.items()))] = sample.value
    assert samples == {
        ("tfleet_steps_total", ()): 85,
        ("tfleet_step", ()): 75,
        ("tfleet_generation", ()): 2,
        ("tfleet_workers_wanted", ()): 3,
        ("tfleet_rollbacks_total", ()): 1,
        ("tfleet_steps_undone_total", ()): 10,
        ("tfleet_staleness_mean", ()): 1.5,
        ("tfleet_staleness_max", ()): 4,
        ("tfleet_goodput_ratio", ()): 0.88,
        ("tfleet_commit_age_seconds", ()): 30.0,
        ("tfleet_commits_total", ()): 5,
        ("tfleet_commits_failed_total", ()): 2,
        ("tfleet_members_fenced_total", ()): 3,
        ("tfleet_batches_given_back_total", ()): 7,
        ("tfleet_pushes_late_total", ()): 1,
        ("tfleet_ps_updates_total", (("index", "0"),)): 400,
        ("tfleet_ps_queue_seconds_total", (("index", "0"),)): 1.25,
        ("tfleet_straggler_ratio", (("index", "1"),)): 2.5,
        ("tfleet_commit_duration_seconds", ()): 0.5,
        ("tfleet_training_metric", (("metric", "accuracy"),)): 0.75,
        ("tfleet_evaluation_metric", (("metric", "accuracy"),)): 0.7,
        ("tfleet_evaluation_metric", (("metric", "loss"),)): 0.3,
        ("tfleet_ps_missing", ()): 1,
        ("tfleet_ps_memory_bytes", (("index", "0"),)): 50_000_000,
        ("tfleet_restarts_total", (("index", "0"), ("role", "ps"))): 1,
        ("tfleet_restarts_total", (("index", "1"), ("role", "ps"))): 0,
        ("tfleet_restarts_total", (("index", "0"), ("role", "worker"))): 0,
        ("tfleet_restarts_total", (("index", "1"), ("role", "worker"))): 2,
        ("tfleet_restarts_total", (("index", "2"), ("role", "worker"))): 0,
        ("tfleet_restarts_total", (("index", "0"), ("role", "evaluator"))): 0,
        ("tfleet_steps_per_second", ()): 10.5,
        ("tfleet_epoch", ()): 2,
        ("tfleet_pushes_refused_total", ()): 4,
        ("tfleet_partial_updates_total", ()): 1,
        ("tfleet_loss", ()): 0.25,
        ("tfleet_last_commit_time_seconds", ()): 1.7e9,
        ("tfleet_members", (("role", "worker"), ("state", "working"))): 2,
        ("tfleet_members", (("role", "worker"), ("state", "lost"))): 1,
        ("tfleet_members", (("role", "evaluator"), ("state", "joined"))): 1,
        ("tfleet_phase", (("phase", "training"),)): 1,
    }


def test_metrics_before_the_first_step():
    status = {**STATUS, "loss": None, "last_commit": None, "members": [], "step": 0}
    server = StatusServer("127.0.0.1", 0, TOKEN, lambda: status)
    names = {family.name for family in text_string_to_metric_families(ask(server, "/metrics")[1].decode())}
    assert "tfleet_loss" not in names
    assert {"tfleet_steps", "tfleet_phase"} <= names
    server.close()


def test_the_counter_of_steps_never_falls(request):
    status = dict(STATUS)
    server = StatusServer("127.0.0.1", 0, TOKEN, lambda: status)
    request.addfinalizer(server.close)

    def told() -> dict[str, float]:
        families = text_string_to_metric_families(ask(server, "/metrics")[1].decode())
        return {sample.name: sample.value for family in families for sample in family.samples}

    status.update(phase="starting", step=0)
    assert "tfleet_steps_total" not in told(), "it is not known before the commit is read"
    status.update(phase="training", step=75, steps_undone=10)
    assert told()["tfleet_steps_total"] == 85
    status.update(step=60, steps_undone=20)
    assert (told()["tfleet_steps_total"], told()["tfleet_step"]) == (85, 60)
    status.update(step=70)
    assert told()["tfleet_steps_total"] == 90


@pytest.mark.parametrize(
    ("path", "method", "code"), [("/", "GET", 404), ("/Status", "GET", 404), ("/status", "POST", 501)]
)
def test_there_is_nothing_else(server, path, method, code):
    assert ask(server, path, method)[0] == code


def test_a_port_that_is_taken_is_told(server):
    with pytest.raises(WrongInput) as caught:
        StatusServer("127.0.0.1", server.port, TOKEN, lambda: STATUS)
    assert str(caught.value) == (
        f"the status port {server.port} cannot be used: Address already in use; choose another with --status-port, or 0"
    )


def test_an_unknown_host_is_told():
    with pytest.raises(WrongInput, match="the status port 1234 cannot be used"):
        StatusServer("no such host", 1234, TOKEN, lambda: STATUS)


def test_connections_that_say_nothing_do_not_keep_others_out(monkeypatch):
    monkeypatch.setattr("tfleet.server.http_status.REQUEST_SECONDS", 600.0)
    server = StatusServer("127.0.0.1", 0, TOKEN, lambda: STATUS)
    silent = [socket.create_connection(("127.0.0.1", server.port)) for _ in range(CONNECTIONS + 8)]
    assert ask(server, "/healthz")[0] == 200
    for sock in silent[:8]:  # the oldest went
        sock.settimeout(20)
        assert sock.recv(1) == b""
    assert len(server._server._open) <= CONNECTIONS
    assert threading.active_count() < 2 * CONNECTIONS
    for sock in silent:
        sock.close()
    server.close()


def test_a_client_that_goes_away_is_no_news(server, capsys):
    for data in (b"", b"GET /status HT", b"GET /metrics HTTP/1.1\r\n\r\n"):
        sock = socket.create_connection(("127.0.0.1", server.port))
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")  # goes with a reset
        sock.sendall(data)
        sock.close()
    assert ask(server, "/healthz")[0] == 200
    for error, told in ((ConnectionResetError(), False), (BrokenPipeError(), False), (ZeroDivisionError(), True)):
        try:
            raise error
        except (OSError, ZeroDivisionError):
            server._server.handle_error(None, ("127.0.0.1", 1))
        assert ("Traceback" in capsys.readouterr().err) is told
