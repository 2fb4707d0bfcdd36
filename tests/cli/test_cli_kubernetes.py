"""The commands on a job on Kubernetes, over jobs that replay statuses."""

import json
import signal

import pytest
from fake_jobs import FakeJob, done, status
from helm_program import needs_helm_on_path

from tfleet.api import run as api_run
from tfleet.backends.kubernetes.backend import KubernetesBackend
from tfleet.cli.main import run
from tfleet.spec.errors import ExitCode

HANDLE = "k8s://c/n/digits"

TRAIN = ["train", "mnist", "--on", "kubernetes", "--context", "c", "--namespace", "n", "--name", "digits"]


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--context", "c"], "--context does nothing for a local job; add --on kubernetes or leave --context out"),
        (["--set", "a=b"], "--set does nothing for a local job"),
        (["--values", "f"], "--values does nothing for a local job"),
        (["--task-file", "f"], "--task-file does nothing"),
        (["--rm"], "--rm does nothing"),
        (["-o", "tfjob"], "-o tfjob prints what Kubeflow would run and starts nothing; add --on kubernetes --dry-run"),
        (["--on", "kubernetes", "-o", "tfjob"], "add --on kubernetes --dry-run"),
        (["--on", "kubernetes", "--rm", "--detach"], "give only one"),
        (["--on", "moon"], "'moon' is not one of"),
    ],
)
def test_what_would_do_nothing_is_refused(arguments, sentence, backend, capsys):
    assert run(["train", "mnist", *arguments]) == 2
    err = capsys.readouterr().err
    assert sentence in err
    assert len(err.splitlines()) == 1


@needs_helm_on_path
@pytest.mark.parametrize("output", ["text", "json", "tfjob"])
def test_a_dry_run_prints_the_same_bytes_twice(output, capsys, monkeypatch):
    monkeypatch.setattr(KubernetesBackend, "start", lambda *_: pytest.fail("a dry run must not start anything"))
    texts = []
    for _ in range(2):
        assert run([*TRAIN, "--dry-run", "-o", output]) == 0
        texts.append(capsys.readouterr().out)
    assert texts[0] == texts[1]
    assert {"text": "# k8s://c/n/digits", "json": '"handle": "k8s://c/n/digits"', "tfjob": "kind: TFJob"}[
        output
    ] in texts[0]
    if output == "json":
        assert {r["role"] for r in json.loads(texts[0])["replicas"]} == {"ps", "worker"}


class RemoteJob(FakeJob):
    """A job that goes on without this process."""

    outlives = True

    def __init__(self, statuses, code=ExitCode.DONE):
        super().__init__(HANDLE, statuses, code)

    @property
    def run_dir(self):
        return "/mnt/tfleet/digits"


@pytest.fixture
def job(monkeypatch):
    found = RemoteJob([{}, status("starting", waiting="worker 0 waits for its image"), status("training", 9), done()])
    monkeypatch.setattr(KubernetesBackend, "start", lambda *_: found)
    monkeypatch.setattr("tfleet.backends.kubernetes.job.open_job", lambda handle: found)
    monkeypatch.setattr("tfleet.api.follow.INTERVAL", 0.0)
    return found


@needs_helm_on_path
def test_a_job_is_followed_to_its_end(job, capsys):
    assert run(TRAIN) == 0
    out = capsys.readouterr().out
    assert out.splitlines()[1:3] == ["job: k8s://c/n/digits", "run directory: /mnt/tfleet/digits on the volume"]
    assert "waiting: worker 0 waits for its image" in out
    assert "export     /mnt/tfleet/digits/export/1 on the volume" in out
    assert "tfleet copy k8s://c/n/digits" in out
    assert job.closed


@needs_helm_on_path
def test_ctrl_c_leaves_the_job_and_says_how_to_find_it(job, capsys, monkeypatch):
    def interrupted(job, display, interrupts, **_):
        interrupts.count = 1
        return follow(job, display, interrupts)

    follow = api_run.follow
    monkeypatch.setattr(api_run, "follow", interrupted)
    assert run(TRAIN) == 130
    out, err = capsys.readouterr()
    assert job.endings == []
    for command in ("tfleet status", "tfleet logs", "tfleet stop"):
        assert f"{command} {HANDLE}" in out
    assert "helm uninstall digits -n n --kube-context c" in out
    assert (
        err == f"tfleet: interrupted, but the job goes on: 'tfleet status {HANDLE}' tells what it does, "
        f"'tfleet attach {HANDLE}' follows it again\n"
    )


@needs_helm_on_path
def test_a_job_to_be_removed_ends_with_ctrl_c(job, capsys, monkeypatch):
    job.outlives, job.code = False, ExitCode.INTERRUPTED
    job.left = [status("training", 4), status("training", 5), status("interrupted", 5)]

    def interrupted(job, display, interrupts, **_):
        interrupts.count = 1
        return follow(job, display, interrupts)

    follow = api_run.follow
    monkeypatch.setattr(api_run, "follow", interrupted)
    assert run([*TRAIN, "--rm"]) == 130
    assert job.endings == [("interrupt", "interrupted by Ctrl-C")]
    assert "interrupted at step 5, all of it committed" in capsys.readouterr().err


@needs_helm_on_path
def test_detached(job, capsys):
    assert run([*TRAIN, "--detach"]) == 0
    assert capsys.readouterr().out == f"{HANDLE}\n"
    assert run([*TRAIN, "--detach", "-o", "json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"handle": HANDLE, "run_dir": "/mnt/tfleet/digits"}
    assert job.closed


def test_the_commands_on_a_handle_are_those_on_a_folder(job, capsys):
    job.left = [status("training", 5), status("training", 5)]
    assert run(["status", HANDLE, "-o", "json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert (answer["handle"], answer["run_dir"], answer["alive"]) == (HANDLE, "/mnt/tfleet/digits", True)
    assert run(["scale", HANDLE, "--workers", "4"]) == 0
    assert job.scaled == 4
    assert run(["stop", HANDLE, "--no-wait"]) == 0
    assert job.endings == [("stop", "stopped by 'tfleet stop'")]
    assert HANDLE in capsys.readouterr().out


def test_attach_follows_a_handle_and_leaves_the_job_with_ctrl_c(job, capsys, monkeypatch):
    job.left = [status("training", 5), status("training", 9), done()]
    assert run(["attach", HANDLE]) == 0
    out = capsys.readouterr().out
    assert out.startswith(f"following mnist in {HANDLE}; Ctrl-C leaves it running\n")
    assert f"tfleet copy {HANDLE}" in out
    job.left = [status("training", n) for n in range(9)]
    once = iter([signal.SIGINT])

    def poll(self):
        for number in once:
            signal.raise_signal(number)

    monkeypatch.setattr(RemoteJob, "poll", poll)
    assert run(["attach", HANDLE]) == 130
    out, err = capsys.readouterr()
    assert f"tfleet stop {HANDLE}" in out
    assert "the job goes on" in err
    assert job.endings == []


@pytest.mark.parametrize("verb", ["status", "logs", "stop", "eval", "export", "tensorboard", "copy", "attach", "join"])
def test_a_malformed_handle_is_refused_in_one_sentence(verb, capsys):
    assert run([verb, "k8s://c/digits"]) == 2
    assert "did you mean 'k8s://c/default/digits'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("verb", "answer", "line"),
    [
        (
            "eval",
            {"commit": 4, "step": 20, "metrics": {"accuracy": 0.5}},
            "commit 4, step 20, held out: accuracy 0.5000",
        ),
        ("export", {"export": "/mnt/tfleet/digits/export/2"}, "exported to /mnt/tfleet/digits/export/2 on the volume"),
    ],
)
def test_eval_and_export_run_beside_the_volume(verb, answer, line, job, capsys, monkeypatch):
    asked = []
    job.cluster, job.at = "cluster", "at"

    def tool(cluster, at, kind, tell, arguments):
        asked.append((cluster, at, kind, arguments))
        return dict(answer)

    monkeypatch.setattr("tfleet.backends.kubernetes.tools.run_tool", tool)
    assert run([verb, HANDLE, "--commit", "4"]) == 0
    assert capsys.readouterr().out == line + "\n"
    assert asked == [("cluster", "at", verb, ["--commit", "4"])]
    assert run([verb, HANDLE, "-o", "json"]) == 0
    assert json.loads(capsys.readouterr().out)["handle"] == HANDLE


def test_copy_says_what_came_and_where(job, capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    asked = []

    def copy(job, folder, only, tell, progress):
        asked.append((folder, tuple(only)))
        return {"files": 1200, "bytes": 1_640_000}

    monkeypatch.setattr("tfleet.backends.kubernetes.copying.copy_run", copy)
    assert run(["copy", HANDLE]) == 0
    assert capsys.readouterr().out == "copied 1,200 files, 1.6 MB, to runs/digits\n"
    assert run(["copy", HANDLE, "there", "--only", "export", "-o", "json"]) == 0
    assert json.loads(capsys.readouterr().out)["run_dir"] == str(tmp_path / "there")
    assert asked == [(tmp_path / "runs/digits", ()), (tmp_path / "there", ("export",))]
    assert run(["copy", HANDLE, "--only", "exprt"]) == 2
    assert "did you mean 'export'" in capsys.readouterr().err


def test_doctor_of_a_cluster(capsys, monkeypatch):
    from tfleet.backends.doctor import Finding

    findings = [Finding("helm", True, "v3"), Finding("rights", False, "no", "ask")]
    monkeypatch.setattr("tfleet.backends.kubernetes.doctor.examine", lambda context, namespace: findings)
    assert run(["doctor", "--on", "kubernetes"]) == 1
    assert "then run 'tfleet doctor --on kubernetes' again" in " ".join(capsys.readouterr().out.split())
    assert run(["doctor", "--context", "c"]) == 2
    assert "--context does nothing for this machine" in capsys.readouterr().err
