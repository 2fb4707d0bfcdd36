"""What the chart gives to Prometheus and Grafana, against the metrics that ps 0 really has."""

from __future__ import annotations

import copy
import json
import re
import shutil
import subprocess
import sys
import urllib.request
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from chart_cases import objects as case_objects
from chart_renders import CHART, ROOT, Object, one
from chart_renders import objects as render
from helm_program import needs_helm
from prometheus_client.parser import text_string_to_metric_families
from prometheus_operator import SCHEMAS

from tfleet.server.http_status import StatusServer

pytestmark = needs_helm

PROMTOOL = shutil.which("promtool") or shutil.which("promtool", path=str(Path.home() / ".cache/tfleet-ci/bin"))
needs_promtool = pytest.mark.skipif(
    PROMTOOL is None, reason="promtool is neither on PATH nor in ~/.cache/tfleet-ci/bin"
)

ALL: dict[str, Any] = {name: {"enabled": True} for name in ("serviceMonitor", "dashboard", "prometheusRule")}
METRIC = re.compile(r"\b(?:tfleet_[a-z0-9_]+|up)\b(?=[{\[ )])")
PROMETHEUS_OWN = {"up"}


def monitored(**values: Any) -> list[Object]:
    return render({"monitoring": ALL, **values})


def of_kind(found: list[Object], kind: str) -> Object:
    (each,) = [each for each in found if each["kind"] == kind]
    return each


def dashboard() -> dict[str, Any]:
    return dict(json.loads(one(monitored(), "ConfigMap", "digits-dashboard")["data"]["tfleet.json"]))


def rules(found: list[Object]) -> list[Object]:
    (group,) = of_kind(found, "PrometheusRule")["spec"]["groups"]
    return list(group["rules"])


def queries() -> dict[str, str]:
    """Every expression of the alerts and of the dashboard, by where it stands."""
    found = {rule["alert"]: rule["expr"] for rule in rules(monitored())}
    for panel in dashboard()["panels"]:
        for target in panel["targets"]:
            found[f"{panel['title']} {target['refId']}"] = target["expr"]
    return found


@pytest.fixture(scope="module")
def exposed(tmp_path_factory) -> set[str]:
    """Names of all samples on /metrics of a job in training."""
    sys.path.append(str(ROOT / "tests" / "server"))
    from simulated_fleet import Fleet
    from simulated_worker import Counting

    with Fleet(
        tmp_path_factory.mktemp("job"), Counting(items=50, batch=4), ps=2, workers=2, watch=True, steps=200
    ) as fleet:
        fleet.start_all()
        fleet.run(until=lambda: fleet.job.step >= 50 and fleet.job.checkpointing.commits.last)
        fleet.loop.advance(3.0)
        status = fleet.job.status()
    # What a simulated worker does not do: it reports neither evaluations nor metrics but the loss.
    status["evaluation"] = status["evaluation"] or {"step": 1, "commit": 0, "metrics": {"loss": 0.5, "accuracy": 0.5}}
    status["metrics"] = status["metrics"] or {"accuracy": 0.5}
    status["seconds_left"] = status["seconds_left"] or 1.0
    status["straggler"] = {"worker": 1, "ratio": 2.0, "part": "data", "text": "worker 1 is slowest"}
    server = StatusServer("127.0.0.1", 0, b"t" * 32, lambda: status)
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{server.port}/metrics", timeout=20) as answer:
            text = answer.read().decode()
    finally:
        server.close()
    names = [family.name for family in text_string_to_metric_families(text)]
    assert len(names) == len(set(names)), "a metric is told twice"
    return {sample.name for family in text_string_to_metric_families(text) for sample in family.samples}


def test_nothing_of_it_is_there_unless_asked_for():
    kinds = {found["kind"] for found in render()}
    assert not kinds & {"ServiceMonitor", "PrometheusRule"}
    assert not [found for found in render() if "grafana_dashboard" in found["metadata"].get("labels", {})]


def test_objects_of_the_operator_fit_its_definitions():
    found = {each["kind"]: each for each in case_objects("monitoring") if each["kind"] in SCHEMAS}
    assert set(found) == set(SCHEMAS)
    for kind, each in found.items():
        jsonschema.validate(each, SCHEMAS[kind])


def test_a_misspelt_field_of_the_operator_is_found():
    for found in case_objects("monitoring"):
        if found["kind"] in SCHEMAS:
            wrong = copy.deepcopy(found)
            wrong["spec"]["jobLabl"] = "x"
            with pytest.raises(jsonschema.ValidationError, match="jobLabl"):
                jsonschema.validate(wrong, SCHEMAS[found["kind"]])


def test_the_service_monitor_finds_the_status_port_of_ps_0_alone():
    found = monitored(job={"status_port": 9100})
    monitor = of_kind(found, "ServiceMonitor")["spec"]
    wanted = monitor["selector"]["matchLabels"].items()
    (endpoint,) = monitor["endpoints"]
    services = [each for each in found if each["kind"] == "Service" and wanted <= each["metadata"]["labels"].items()]
    ports = {
        service["metadata"]["name"]: port["port"]
        for service in services
        for port in service["spec"]["ports"]
        if port["name"] == endpoint["port"]
    }
    assert ports == {"digits": 9100}
    assert one(found, "Service", "digits")["spec"]["selector"]["batch.kubernetes.io/job-completion-index"] == "0"
    assert monitor["namespaceSelector"] == {"matchNames": ["work"]}
    assert one(found, "Service", "digits")["metadata"]["labels"][monitor["jobLabel"]] == "digits"
    assert "authorization" not in endpoint, "/metrics wants no token, so that none is given away"


def test_labels_and_interval_are_the_users():
    found = render(
        {
            "monitoring": {
                "serviceMonitor": {"enabled": True, "labels": {"release": "prom"}, "interval": "1m"},
                "prometheusRule": {"enabled": True, "labels": {"role": "alert-rules"}},
                "dashboard": {"enabled": True, "labels": {"grafana_dashboard": "team", "folder": "ml"}},
            }
        }
    )
    monitor = of_kind(found, "ServiceMonitor")
    assert monitor["metadata"]["labels"]["release"] == "prom"
    assert monitor["spec"]["endpoints"][0]["interval"] == "1m"
    assert of_kind(found, "PrometheusRule")["metadata"]["labels"]["role"] == "alert-rules"
    labels = one(found, "ConfigMap", "digits-dashboard")["metadata"]["labels"]
    assert (labels["grafana_dashboard"], labels["folder"]) == ("team", "ml")
    assert labels["app.kubernetes.io/instance"] == "digits"


def test_alerts_are_of_this_release_alone_and_know_what_they_were_given():
    limits = {"enabled": True, "noProgressMinutes": 3, "droppedPushes": 4, "restarts": 5, "commitAgeMinutes": 6}
    found = {rule["alert"]: rule for rule in rules(render({"monitoring": {**ALL, "prometheusRule": limits}}))}
    assert all('{namespace="work", job="digits"' in rule["expr"] for rule in found.values())
    assert found["TfleetNoProgress"]["for"] == found["TfleetUnreachable"]["for"] == "3m"
    assert found["TfleetDroppedPushes"]["expr"].endswith("> 4")
    assert found["TfleetRestarts"]["expr"].endswith("> 5")
    assert "> 360" in found["TfleetCommitTooOld"]["expr"]
    assert all(rule["annotations"]["summary"].count("{{ $labels.job }}") == 1 for rule in found.values())


@pytest.mark.parametrize(
    ("commits", "there"), [({"every_seconds": 0}, False), ({"every_seconds": 0, "every_steps": 50}, True), ({}, True)]
)
def test_a_job_without_commits_has_no_alert_of_their_age(commits, there):
    alerts = [rule["alert"] for rule in rules(monitored(job={"checkpoint": commits}))]
    assert ("TfleetCommitTooOld" in alerts) is there


def test_the_dashboard_is_the_file_of_the_chart_and_can_be_imported():
    board = dashboard()
    assert board == json.loads((CHART / "files" / "dashboard.json").read_text(encoding="utf-8"))
    titles = [panel["title"] for panel in board["panels"]]
    assert len(set(titles)) == len(titles) == len({panel["id"] for panel in board["panels"]})
    variables = {each["name"] for each in board["templating"]["list"]}
    used = set(re.findall(r"\$\{?([a-z]+)\}?", json.dumps(board))) - {"__rate_interval"}
    assert used == variables == {"datasource", "namespace", "job"}
    cells = [
        (panel["gridPos"]["x"] + x, panel["gridPos"]["y"] + y)
        for panel in board["panels"]
        for x in range(panel["gridPos"]["w"])
        for y in range(panel["gridPos"]["h"])
    ]
    assert len(cells) == len(set(cells)), "two panels overlap"
    assert max(x for x, _ in cells) < 24


def test_every_metric_of_alerts_and_dashboard_is_one_of_ps_0(exposed):
    for where, query in queries().items():
        used = set(METRIC.findall(query))
        assert used, f"{where}: no metric was found in {query}"
        assert used <= exposed | PROMETHEUS_OWN, f"{where} asks for {used - exposed}"
    for variable in dashboard()["templating"]["list"][1:]:
        assert re.match(r"label_values\((\w+)", variable["definition"]).group(1) in exposed


def test_the_page_on_monitoring_tells_every_metric_and_no_other(exposed):
    page = (ROOT / "docs" / "kubernetes" / "monitoring.md").read_text(encoding="utf-8")
    told = set(re.findall(r"^\| `(tfleet_[a-z_]+)", page, re.MULTILINE))
    assert told == {name for name in exposed if name.startswith("tfleet_")}
    assert set(re.findall(r"^\| `(Tfleet[A-Za-z]+)`", page, re.MULTILINE)) == {r["alert"] for r in rules(monitored())}


def promtool(*arguments: str) -> None:
    done = subprocess.run([str(PROMTOOL), *arguments], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr


def written(folder: Path, name: str, content: Any) -> Path:
    (folder / name).write_text(yaml.safe_dump(content), encoding="utf-8")
    return folder / name


@needs_promtool
def test_prometheus_reads_every_expression(tmp_path):
    as_rules = [
        {"record": f"panel:{number}", "expr": query.replace("$__rate_interval", "1m").replace("$", "")}
        for number, query in enumerate(queries().values())
    ]
    promtool("check", "rules", str(written(tmp_path, "all.yaml", {"groups": [{"name": "all", "rules": as_rules}]})))


SELF = 'namespace="work", job="digits", pod="ps-0"'
TRAINS = {"series": f'tfleet_phase{{{SELF}, phase="training"}}', "values": "1x60"}


def series(name: str, values: str, labels: str = SELF) -> dict[str, str]:
    return {"series": f"{name}{{{labels}}}", "values": values}


@needs_promtool
@pytest.mark.parametrize(
    ("alert", "input_series", "minute", "fires"),
    [
        ("TfleetNoProgress", [TRAINS, series("tfleet_step", "0+10x10 100x50")], 30, True),
        ("TfleetNoProgress", [TRAINS, series("tfleet_step", "0+10x10 100x50")], 19, False),
        ("TfleetNoProgress", [TRAINS, series("tfleet_step", "0+1x60")], 30, False),
        # A rollback is progress of a kind; the pod that took over makes steps.
        (
            "TfleetNoProgress",
            [
                TRAINS,
                series("tfleet_step", "100x4 _x56"),
                series("tfleet_step", "_x5 90+5x55", SELF.replace("ps-0", "other")),
            ],
            30,
            False,
        ),
        # Over: its series end.
        ("TfleetNoProgress", [{**TRAINS, "values": "1x20"}, series("tfleet_step", "0+10x10 100x10")], 45, False),
        ("TfleetUnreachable", [series("up", "1x5 0x55")], 30, True),
        ("TfleetUnreachable", [series("up", "1x5 0x5 1x50")], 30, False),
        ("TfleetDroppedPushes", [series("tfleet_pushes_refused_total", "0x10 0+5x50")], 30, True),
        ("TfleetDroppedPushes", [series("tfleet_pushes_refused_total", "1000x60")], 30, False),
        (
            "TfleetRestarts",
            [series("tfleet_restarts_total", "0x20 1 2 3 4x38", f'{SELF}, role="ps", index="1"')],
            30,
            True,
        ),
        ("TfleetRestarts", [series("tfleet_restarts_total", "0x20 1x39", f'{SELF}, role="ps", index="1"')], 30, False),
        ("TfleetCommitTooOld", [TRAINS, series("tfleet_last_commit_time_seconds", "0x60")], 20, True),
        ("TfleetCommitTooOld", [TRAINS, series("tfleet_last_commit_time_seconds", "0+60x60")], 20, False),
        ("TfleetCommitTooOld", [series("tfleet_last_commit_time_seconds", "0x60")], 20, False),
        # Another job's trouble is its own.
        ("TfleetUnreachable", [series("up", "0x60", 'namespace="work", job="other"')], 30, False),
    ],
)
def test_alerts_fire_when_they_should(tmp_path, alert, input_series, minute, fires):
    group = of_kind(monitored(), "PrometheusRule")["spec"]
    written(tmp_path, "rules.yaml", group)
    rule = next(rule for rule in group["groups"][0]["rules"] if rule["alert"] == alert)
    about = {"namespace": "work", "job": "digits"}
    texts = {
        name: text.replace("{{ $labels.namespace }}", "work").replace("{{ $labels.job }}", "digits")
        for name, text in rule["annotations"].items()
    }
    expected = [{"exp_labels": {**about, **rule["labels"]}, "exp_annotations": texts}] if fires else []
    test = {
        "interval": "1m",
        "input_series": input_series,
        "alert_rule_test": [{"eval_time": f"{minute}m", "alertname": alert, "exp_alerts": expected}],
    }
    tests = {"rule_files": ["rules.yaml"], "evaluation_interval": "1m", "tests": [test]}
    promtool("test", "rules", str(written(tmp_path, "test.yaml", tests)))
