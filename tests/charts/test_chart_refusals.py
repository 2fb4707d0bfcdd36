"""Values that cannot work are refused before anything is applied, with what to change."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from chart_renders import attempt, refusal
from helm_program import needs_helm

pytestmark = needs_helm

SCRIPT: dict[str, Any] = {"worker": {"command": ["run"]}, "ps": {"command": ["run"]}}
MOUNTED = {"volumes": [{"name": "x", "emptyDir": {}}], "volumeMounts": [{"name": "x", "mountPath": "/x"}]}


def at(path: str, value: Any, base: dict[str, Any] | None = None) -> dict[str, Any]:
    """Values with `value` at the path, names with dots as `--set` takes them."""
    values = copy.deepcopy(base or {})
    *above, last = path.split(".")
    inner = values
    for name in above:
        inner = inner.setdefault(name, {})
    inner[last] = value
    return values


@pytest.mark.parametrize(
    "path",
    [
        "workr",
        "worker.nmber",
        "worker.image.repo",
        "worker.limit.gpu",
        "ps.successIndex0",
        "evaluator.number",
        "job.batchsize",
        "job.elastic.most",
        "job.evaluation.every",
        "job.checkpoint.every",
        "job.summary.steps",
        "hyperparams.batch",
        "taskFile.path",
        "storage.share",
        "storage.nfs.export",
        "storage.azureFile.key",
        "storage.hostPath.type",
        "scratch.size",
        "user.name",
        "tensorboard.number",
        "serving.replicas",
        "networkPolicy.from",
        "serviceAccount.token",
        "token.value",
        "tls.cert",
        "tls.certManager.issuer",
        "workspace.limits",
        "workspace.most.gpus",
        "finisher.command",
        "backoff.worker",
        "tool.name",
        "monitoring.alerts",
        "monitoring.serviceMonitor.token",
        "monitoring.dashboard.folder",
        "monitoring.prometheusRule.rules",
    ],
)
def test_an_unknown_key_is_named(path):
    section, _, key = path.rpartition(".")
    where = "/" + section.replace(".", "/") if section else ""
    assert f"at '{where}': additional properties '{key}' not allowed" in refusal(at(path, "x"))


def test_an_unknown_key_in_a_list_is_named():
    said = refusal(at("ps.env", [{"name": "A", "val": "b"}]))
    assert "at '/ps/env/0': additional properties 'val' not allowed" in said


@pytest.mark.parametrize(
    "path",
    [
        "worker",
        "worker.number",
        "worker.port",
        "ps.image",
        "ps.image.repository",
        "hyperparams",
        "job",
        "storage",
        "storage.kind",
        "storage.nfs",
        "user.uid",
        "networkPolicy.enabled",
        "serviceAccount.create",
        "backoff.ps",
        "nodeTolerationSeconds",
        "ttlSecondsAfterFinished",
        "terminationGracePeriodSeconds",
        "monitoring",
    ],
)
def test_a_value_that_cannot_be_missing_is_named(path):
    """A null takes a default away; so does an upgrade with --reuse-values to a chart that has new values."""
    section, _, key = path.rpartition(".")
    where = "/" + section.replace(".", "/") if section else ""
    assert f"at '{where}': missing property '{key}'" in refusal(at(path, None))


@pytest.mark.parametrize(
    ("path", "value", "sentence"),
    [
        ("worker.number", "two", "got string, want integer"),
        ("worker.number", 2.5, "got number, want integer"),
        ("worker.gpuCount", "1", "got string, want integer"),
        ("worker.env", {"A": "b"}, "got object, want array"),
        ("worker.command", "python train.py", "got string, want array"),
        ("worker.nodeSelector", ["gpu"], "got array, want object"),
        ("worker.tolerations", {"key": "gpu"}, "got object, want array"),
        ("imagePullSecrets", "registry", "got string, want array"),
        ("resume", "yes", "got string, want boolean"),
        ("tensorboard.enabled", "yes", "got string, want boolean"),
        ("storage.className", 1, "got number, want string"),
        ("job.steps", "many", "got string, want integer"),
        ("job.task", 5, "got number, want string"),
        ("job.params.layers", [1], "got array, want boolean or number or string"),
        ("job.evaluation", True, "got boolean, want object"),
        ("hyperparams.batchsize", "twenty", "got string, want integer"),
        # Numbers that are too small or too large.
        ("worker.number", 0, "minimum: got 0, want 1"),
        ("worker.number", -1, "minimum: got -1, want 1"),
        ("worker.number", 1025, "maximum: got 1,025, want 1,024"),
        ("ps.number", 0, "minimum: got 0, want 1"),
        ("ps.number", 257, "maximum: got 257, want 256"),
        ("serving.number", 0, "minimum: got 0, want 1"),
        ("worker.port", 0, "minimum: got 0, want 1"),
        ("ps.port", 65536, "maximum: got 65,536, want 65,535"),
        ("worker.gpuCount", -1, "minimum: got -1, want 0"),
        ("job.seed", -1, "minimum: got -1, want 0"),
        ("job.checkpoint.keep", 0, "minimum: got 0, want 1"),
        ("user.uid", -2, "minimum: got -2, want -1"),
        ("backoff.ps", -1, "minimum: got -1, want 0"),
        ("storage.size", 0, "exclusiveMinimum: got 0, want 0"),
        ("terminationGracePeriodSeconds", 9, "minimum: got 9, want 10"),
        ("terminationGracePeriodSeconds", "30s", "got string, want integer"),
        ("monitoring.serviceMonitor.enabled", "yes", "got string, want boolean"),
        ("monitoring.serviceMonitor.labels", ["release"], "got array, want object"),
        ("monitoring.serviceMonitor.interval", "15", "'15' does not match pattern"),
        ("monitoring.serviceMonitor.interval", "0s", "'0s' does not match pattern"),
        ("monitoring.serviceMonitor.interval", "3m", "'3m' does not match pattern"),
        ("monitoring.prometheusRule.noProgressMinutes", 0, "minimum: got 0, want 1"),
        ("monitoring.prometheusRule.commitAgeMinutes", "15m", "got string, want integer"),
        # Choices.
        ("job.strategy", "fast", "value must be one of 'async', 'sync'"),
        ("job.xla", "maybe", "value must be one of 'auto', 'always', 'never'"),
        ("worker.image.pullPolicy", "Sometimes", "value must be one of 'Always', 'IfNotPresent', 'Never'"),
        ("storage.kind", "s3", "value must be one of 'newClaim', 'claim', 'hostPath', 'nfs', 'azureFile', 'emptyDir'"),
        ("storage.accessMode", "ReadOnlyMany", "value must be one of 'ReadWriteMany', 'ReadWriteOnce'"),
        ("tensorboard.serviceType", "ExternalName", "value must be one of 'ClusterIP', 'NodePort', 'LoadBalancer'"),
        ("format", "argo", "value must be one of 'jobs', 'tfjob'"),
        ("tool.kind", "run", "value must be one of '', 'copy', 'eval', 'export'"),
        # Texts of a form.
        ("worker.limit.memory", "2GB", "'2GB' does not match pattern"),
        ("worker.limit.memory", "lots", "'lots' does not match pattern"),
        ("worker.limit.cpu", "two", "'two' does not match pattern"),
        ("worker.limit.cpu", "-1", "'-1' does not match pattern"),
        ("worker.request.memory", "1e", "'1e' does not match pattern"),
        ("scratch.sizeLimit", "1 Gi", "'1 Gi' does not match pattern"),
        ("storage.size", "ten", "'ten' does not match pattern"),
        ("storage.size", "", "'' does not match pattern"),
        ("workspace.most.memory", "16GB", "'16GB' does not match pattern"),
        ("runDir", "runs", "'runs' does not match pattern"),
        ("storage.mountPath", "/", "'/' does not match pattern"),
        ("storage.hostPath.path", "runs", "'runs' does not match pattern"),
        ("taskFile.name", "../task.py", "'../task.py' does not match pattern"),
        ("taskFile.name", "task.txt", "'task.txt' does not match pattern"),
        ("tls.secretName", "My_Secret", "'My_Secret' does not match pattern"),
        ("tls.serverName", "a name", "'a name' does not match pattern"),
        ("tls.certManager.enabled", "yes", "got string, want boolean"),
        ("token.existingSecret", "My_Secret", "'My_Secret' does not match pattern"),
        ("nameOverride", "A", "'A' does not match pattern"),
        ("nameOverride", "-x", "'-x' does not match pattern"),
        ("fullnameOverride", "a.b", "'a.b' does not match pattern"),
        ("fullnameOverride", "2024", "'2024' does not match pattern"),
        ("fullnameOverride", "x-", "'x-' does not match pattern"),
        ("tool.id", "a_b", "'a_b' does not match pattern"),
    ],
)
def test_a_value_of_the_wrong_form_is_named(path, value, sentence):
    assert f"at '/{path.replace('.', '/')}': {sentence}" in refusal(at(path, value))


@pytest.mark.parametrize(
    ("release", "values", "change"),
    [
        ("2024run", {}, "choose another release name, or set fullnameOverride"),
        ("a.b", {}, "choose another release name, or set fullnameOverride"),
        ("ends-", {}, "invalid release name"),
        ("Big", {}, "invalid release name"),
        ("x" * 54, {}, "invalid release name"),
        # The longest name that Helm takes does for 64 workers, but not for these.
        ("x" * 53, at("job.elastic.max", 1000), "choose a release name that is 1 shorter, or set fullnameOverride"),
        ("x" * 52, at("tensorboard.enabled", True), "choose a release name that is 1 shorter"),
        ("x" * 52, at("job.evaluation.evaluator", True), "choose a release name that is 1 shorter"),
        ("x" * 40, at("nameOverride", "y" * 20), "choose a release name that is 8 shorter"),
        ("x" * 40, {"tool": {"kind": "eval", "id": "y" * 30}}, "choose a release name that is 8 shorter"),
        (
            "digits",
            at("fullnameOverride", "x" * 60),
            "choose a release name that is 7 shorter, or set fullnameOverride",
        ),
    ],
)
def test_a_name_that_services_jobs_or_pods_refuse_is_refused_first(release, values, change):
    assert change in refusal(values, release)


def test_the_longest_name_is_taken():
    assert attempt({}, "x" * 53).returncode == 0


@pytest.mark.parametrize(
    ("values", "change"),
    [
        # Kept from the charts of 2018 to 2020.
        (at("ps.privileged", True), "leave it out"),
        (at("podManagementPolicy", "OrderedReady"), "leave it out or set Parallel"),
        (at("worker.limit.memory", "125Mi"), "give at least 768Mi"),
        (at("worker.limit.memory", "767Mi"), "give at least 768Mi"),
        (at("worker.limit.memory", 800_000_000), "give at least 768Mi"),
        (at("evaluator.limit.memory", "0.5Gi"), "give at least 768Mi"),
        # Two values for one thing.
        *(
            (at(f"hyperparams.{old}", value, at(f"job.{new}", value)), "give only one of them")
            for old, new, value in (
                ("batchsize", "batch_size", 5),
                ("learningrate", "learning_rate", 0.1),
                ("trainsteps", "steps", 5),
                ("trainsteps", "epochs", 5),
                ("datadir", "data_dir", "/data"),
                ("hiddenunits", "params.hidden_units", 5),
            )
        ),
        (at("deadline", 5, at("job.deadline", 5)), "give only one of them"),
        (at("hyperparams.logdir", "/mnt/tfleet/a", {"runDir": "/mnt/tfleet/a"}), "give only runDir"),
        ({"logdir": "/mnt/tfleet/a", "traindir": "/mnt/tfleet/a"}, "give only runDir"),
        (at("job.workers", 3), "leave job.workers out, worker.number says it"),
        (at("job.ps", 3), "leave job.ps out, ps.number says it"),
        (
            {"storage": {"kind": "azureFile", "sharename": "runs", "azureFile": {"share": "runs"}}},
            "give only storage.azureFile.share",
        ),
        (
            {
                "storage": {
                    "kind": "azureFile",
                    "azureFile": {"share": "runs", "secretName": "files"},
                    "accountbase64": "YQ==",
                    "keybase64": "YQ==",
                }
            },
            "give only storage.azureFile.secretName",
        ),
        # Storage.
        (at("storage.kind", "emptyDir"), "set storage.kind to newClaim, claim, hostPath, nfs or azureFile"),
        (at("storage.kind", "emptyDir", at("tensorboard.enabled", True, SCRIPT)), "choose another storage.kind"),
        (at("storage.kind", "claim"), "needs storage.claim"),
        (at("storage.kind", "hostPath"), "needs storage.hostPath.path"),
        (at("storage.kind", "nfs"), "needs storage.nfs.server and storage.nfs.path"),
        (at("storage.nfs.server", "nas", at("storage.kind", "nfs")), "needs storage.nfs.server and storage.nfs.path"),
        (at("storage.azureFile.secretName", "files", at("storage.kind", "azureFile")), "needs storage.azureFile.share"),
        (at("storage.azureFile.share", "runs", at("storage.kind", "azureFile")), "needs storage.azureFile.secretName"),
        (at("storage.claim", "runs"), "leave it out, or set storage.kind=claim"),
        (at("storage.nfs.server", "nas"), "leave it out, or set storage.kind=nfs"),
        (at("storage.hostPath.path", "/srv"), "leave it out, or set storage.kind=hostPath"),
        (at("storage.accountbase64", "YQ=="), "leave it out, or set storage.kind=azureFile"),
        ({"storage": {"sharename": "runs", "accountbase64": "YQ=="}}, "give both, or storage.azureFile.secretName"),
        (at("runDir", "/tmp/runs"), "choose a folder below /mnt/tfleet for runDir, or leave it out"),
        # Replicas.
        (at("worker.number", 65), "raise job.elastic.max"),
        (at("job.elastic.min", 3), "lower job.elastic.min"),
        (
            at("ps.number", 3, at("job.ps_placement", "colocated")),
            "worker.number=2 and ps.number=3 differ, but job.ps_placement=colocated puts one ps beside each worker",
        ),
        (at("job.task", ""), "set it to mnist, a module:object, or a path/to/file.py:object"),
        (at("job.status_port", 2222), "choose another number for one of them"),
        (at("worker.env", [{"name": "PS_HOSTS", "value": "x"}]), "leave it out"),
        (at("ps.env", [{"name": "TF_CONFIG", "value": "x"}]), "leave it out"),
        (at("evaluator.env", [{"name": "POD_NAME", "value": "x"}]), "leave it out"),
        (at("worker.env", [{"name": "A", "value": "x"}, {"name": "A", "value": "y"}]), "leave one out"),
        # The user's own command.
        (at("worker.command", ["run"]), "give both, or neither"),
        (at("ps.command", ["run"]), "give both, or neither"),
        (at("job.evaluation.evaluator", True, SCRIPT), "leave it out, or let your command evaluate"),
        (at("resume", True, SCRIPT), "let your command look for its checkpoints"),
        (at("worker.successIndex0", True), "leave it out"),
        (at("finisher.enabled", True), "leave it out"),
        # What Kubernetes would refuse of a pod or a Service, with the Jobs there already.
        (at("storage.mountPath", "/tmp"), "choose another mountPath"),
        (at("storage.mountPath", "/mnt/scratch/", at("scratch.enabled", True)), "choose another mountPath"),
        ({**MOUNTED, "worker": MOUNTED}, "choose another name in volumes or worker.volumes"),
        ({**MOUNTED, "ps": {"volumeMounts": MOUNTED["volumeMounts"]}}, "choose another mountPath"),
        (at("volumes", [{"name": "tfleet-job", "emptyDir": {}}]), "choose another name in volumes or worker.volumes"),
        ({"volumeMounts": MOUNTED["volumeMounts"]}, "add it to volumes or worker.volumes"),
        (at("ps.volumeMounts", MOUNTED["volumeMounts"]), "add it to volumes or ps.volumes"),
        (
            at("evaluator.volumeMounts", MOUNTED["volumeMounts"], at("job.evaluation.evaluator", True)),
            "add it to volumes or evaluator.volumes",
        ),
        (at("serving", {"enabled": True, "port": 8500}), "choose another number for one of them"),
        (
            at("worker.env", [{"name": "A", "value": "b", "valueFrom": {"fieldRef": {"fieldPath": "x"}}}]),
            "leave one out",
        ),
        (at("user.uid", 0), "choose another id, or -1 to have the cluster give one"),
        (at("user.gid", 0), "choose another id, or -1 to have the cluster give one"),
        # The rest.
        (at("job.tcp", True), "leave it out"),
        (at("job.shared_memory", "never"), "job.shared_memory=never is for jobs on one machine"),
        (at("job.listen", "10.0.0.5"), "leave it out"),
        ({"taskFile": {"name": "task.py", "content": "x"}}, "set job.task=task.py:object, or leave taskFile out"),
        (at("taskFile.name", "task.py", at("job.task", "task.py:x")), "give it with --set-file"),
        (at("taskFile.content", "x"), "set taskFile.name"),
        (at("tool.kind", "eval"), "needs tool.id"),
        # TLS.
        ({"job": dict.fromkeys(("tls_cert", "tls_key", "tls_ca"), "/c")}, "leave it out and set tls.secretName"),
        (at("job.tls_server_name", "x"), "is tls.serverName here: leave it out and set that"),
        (at("tls.serverName", "x"), "set tls.secretName or tls.certManager.enabled, or leave it out"),
        (at("tls.certManager.enabled", True), "needs tls.certManager.issuerRef.name"),
        (at("tls.certManager.issuerRef.name", "company"), "set it to true, or leave the issuer out"),
        (at("tls.secretName", "x", SCRIPT), "leave it out, your command's own runtime decides what it encrypts"),
        (at("tool.arguments", ["--commit=3"]), "leave it out"),
        (at("tensorboard.enabled", True, {"format": "tfjob"}), "leave them out, or set format=jobs"),
        (at("workspace.subjects", [{"kind": "User", "name": "jane"}]), "set workspace.role=true, or leave it out"),
    ],
    ids=str,
)
def test_values_that_do_not_go_together_are_refused_with_what_to_change(values, change):
    said = refusal(values)
    (sentence,) = [line for line in said.splitlines() if "execution error at" in line]
    assert change in sentence
    assert "nil pointer" not in said


def test_a_key_that_is_refused_is_not_repeated():
    """What helm says lands in logs."""
    key = "not base64: a secret"
    said = refusal({"storage": {"sharename": "runs", "accountbase64": "YQ==", "keybase64": key}})
    assert "storage.keybase64 is not base64" in said
    assert key not in said


@pytest.mark.parametrize(
    "values",
    [
        at("worker.limit.memory", "125Mi", SCRIPT),
        at("worker.limit.memory", "768Mi"),
        at("worker.limit.memory", 805306368),
        at("worker.limit.memory", ""),
        # Keys without a value, as in files for the charts of 2018 to 2020.
        at("worker.limit", None),
        at("worker.limit.memory", None),
        at("ps.request", None),
        at("hyperparams.trainsteps", None),
        at("hyperparams.batchsize", None),
        at("storage.kind", "emptyDir", SCRIPT),
        at("job.workers", 2),
        at("podManagementPolicy", "Parallel"),
        at("ps.privileged", False),
        at("global.anything", 1),
        MOUNTED,
        {**MOUNTED, "volumeMounts": [*MOUNTED["volumeMounts"], {"name": "tfleet-storage", "mountPath": "/y"}]},
        at("volumes", None),
        at("volumeMounts", None),
    ],
    ids=str,
)
def test_what_is_beside_a_refusal_is_taken(values):
    done = attempt(values, "digits")
    assert done.returncode == 0, done.stderr


MONITOR: dict[str, Any] = {"monitoring": {"serviceMonitor": {"enabled": True}}}
RULES: dict[str, Any] = {"monitoring": {"serviceMonitor": {"enabled": True}, "prometheusRule": {"enabled": True}}}


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        (
            at("job.status_port", 0, MONITOR),
            "monitoring.serviceMonitor needs the status port, which job.status_port=0 turns off: give it a number",
        ),
        (at("format", "tfjob", MONITOR), "monitoring.serviceMonitor does nothing with format=tfjob: leave it out"),
        (
            {**SCRIPT, "monitoring": {"dashboard": {"enabled": True}}},
            "monitoring.dashboard does nothing with worker.command, since only tfleet's own ps have metrics",
        ),
        (
            {"monitoring": {"prometheusRule": {"enabled": True}}},
            "monitoring.prometheusRule needs the metrics that monitoring.serviceMonitor has read: set "
            "monitoring.serviceMonitor.enabled=true too",
        ),
        (
            at("job.checkpoint.every_seconds", 900, RULES),
            "commitAgeMinutes=15 is no longer than job.checkpoint.every_seconds=900, so that there would always be an",
        ),
    ],
)
def test_monitoring_that_would_watch_nothing_is_refused(values, sentence):
    assert sentence in refusal(values)


def test_commits_within_the_age_are_taken():
    assert attempt(at("job.checkpoint.every_seconds", 899, RULES), "digits").returncode == 0
