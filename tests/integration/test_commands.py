"""The commands around a job, each as a user types it: what it answers in text and as JSON, and that it ends."""

from __future__ import annotations

import ast
import json
import re
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from jobs import LIMIT, command, nothing_left, processes_of, tfleet, wait_until

from tfleet.spec.job import JobSpec
from tfleet.spec.rundir import RunDir

pytestmark = [pytest.mark.processes, pytest.mark.tf]

FLOWERS = Path(__file__).parents[2] / "examples" / "flowers.py"

ONE_LINE = "import tfleet; run = tfleet.train('mnist', workers=2, ps=2, steps=500); print(run.evaluate())"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the one line of Python has trained; its output is in `said`."""
    here = tmp_path_factory.mktemp("python")
    done = subprocess.run([sys.executable, "-c", ONE_LINE], cwd=here, capture_output=True, text=True, timeout=LIMIT)
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    (here / "said").write_text(done.stdout)
    return here


@pytest.fixture(scope="module")
def run(folder: Path) -> str:
    """Its run directory, as the user sees it."""
    (found,) = (folder / "runs").iterdir()
    return str(found.relative_to(folder))


def test_one_line_of_python(folder: Path, run: str) -> None:
    lines = (folder / "said").read_text().splitlines()
    assert lines[0] == f"run directory: {run}"
    assert re.fullmatch(r"runs/mnist-\d{8}-\d{6}", run)
    metrics = ast.literal_eval(lines[-1])
    assert metrics["accuracy"] > 0.8
    assert RunDir.at(folder / run).status()["evaluation"]["metrics"] == pytest.approx(metrics, rel=1e-6)
    nothing_left(folder / run)


def test_status_as_text(folder: Path, run: str) -> None:
    done = tfleet("status", run, cwd=folder)
    assert (done.code, done.err) == (0, "")
    lines = [" ".join(line.split()) for line in done.out.splitlines()]
    for start in ("job mnist", "phase done", "strategy async", "step 500 of 500 (100 %)", "held out accuracy 0.",
                  "commit 1 at step 500, ", "ledger 500 batches acknowledged", f"run {run}", f"export {run}/export/1",
                  "● worker 0 ", "● worker 1 "):  # fmt: skip
        assert any(line.startswith(start) for line in lines), (start, lines)


def test_logs_of_one_worker(folder: Path, run: str) -> None:
    for more in ((), ("--follow",)):  # a job that has ended is followed to its end: at once
        done = tfleet("logs", run, *more, "worker", "1", cwd=folder)
        assert (done.code, done.err) == (0, "")
        log = (folder / run / "logs" / "worker-1.log").read_text().splitlines()
        assert done.out.splitlines() == [f"worker-1 | {line}" for line in log]
    done = tfleet("logs", run, "ps", "-o", "json", cwd=folder)
    rows = [json.loads(line) for line in done.out.splitlines()]
    assert {"replica": "ps-1", "line": "tfleet: ps 1 is ready, generation 1"} in rows
    assert {row["replica"] for row in rows} == {"ps-0", "ps-1"}


def test_evaluation_of_an_earlier_commit(folder: Path, run: str) -> None:
    done = tfleet("eval", run, "--commit", "0", cwd=folder)
    assert (done.code, done.err) == (0, "")
    told = re.fullmatch(r"commit 0, step 0, held out: accuracy (0\.\d{4}) · loss (\d\.\d{4})\n", done.out)
    assert told, done.out
    assert float(told[1]) < 0.3


def test_export_of_an_earlier_commit(folder: Path, run: str) -> None:
    before = {path.name for path in (folder / run / "export").iterdir()}
    done = tfleet("export", run, "--commit", "0", "-o", "json", cwd=folder)
    assert (done.code, done.err) == (0, "")
    version = Path(done.json()["export"])
    assert version.parent == folder / run / "export"
    assert version.name not in before
    facts = json.loads((version / "tfleet.json").read_text())
    assert facts["step"] == 0
    assert facts["metrics"]["accuracy"] < 0.3
    assert (version / "saved_model.pb").is_file()


def test_stop_of_a_job_that_has_ended(folder: Path, run: str) -> None:
    done = tfleet("stop", run, cwd=folder)
    assert (done.code, done.out) == (2, "")
    assert "is not running; its result is in " in done.err


@pytest.fixture
def tensorboard(folder: Path, run: str) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        command("tensorboard", run, "--port", "0"),
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    yield process
    process.kill()
    process.communicate()


def test_tensorboard_answers_and_ends(tensorboard: subprocess.Popen[str], folder: Path, run: str) -> None:
    assert tensorboard.stdout
    told = re.fullmatch(r"TensorBoard: (http://127\.0\.0\.1:\d+/) \(Ctrl-C ends it\)\n", tensorboard.stdout.readline())
    assert told
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))

    def runs() -> list[str]:
        with opener.open(told[1] + "data/runs", timeout=30) as answer:
            return list(json.load(answer))

    wait_until(lambda: {"train/worker-0", "train/worker-1", "eval/job"} <= set(runs()), 60)
    with opener.open(told[1], timeout=30) as page:
        assert b"TensorBoard" in page.read()
    tensorboard.send_signal(signal.SIGINT)
    _, err = tensorboard.communicate(timeout=30)
    assert (tensorboard.returncode, err) == (0, "")
    wait_until(lambda: not processes_of(folder / run), 30)


def test_dry_run_has_the_same_bytes_twice(folder: Path) -> None:
    before = sorted(path.name for path in (folder / "runs").iterdir())
    for output in ("text", "json"):
        # Two processes: Python hashes differently in each.
        one, two = (tfleet("train", "mnist", "--tcp", "--dry-run", "-o", output, cwd=folder) for _ in range(2))
        assert (one.code, one.err) == (0, "")
        assert one.out == two.out
        assert "runs/mnist-<time>" in one.out
    assert [replica["role"] for replica in one.json()["replicas"]] == ["ps", "ps", "worker", "worker"]
    launch = [tfleet("launch", "--dry-run", "-o", "json", "--", "true", cwd=folder) for _ in range(2)]
    assert launch[0].out == launch[1].out
    assert sorted(path.name for path in (folder / "runs").iterdir()) == before


def test_doctor(tmp_path: Path) -> None:
    done = tfleet("doctor", "-o", "json", cwd=tmp_path)
    assert done.json()["fit"] == (done.code == 0)
    names = {finding["name"] for finding in done.json()["findings"]}
    assert {"Python", "tensorflow", "memory", "loopback ports", "Unix sockets", "run directory"} <= names
    assert list(tmp_path.iterdir()) == []


def test_a_job_file_followed_and_stopped(tmp_path: Path) -> None:
    (tmp_path / "job.yaml").write_text(
        f"task: {FLOWERS}:task\nworkers: 1\nps: 1\nsteps: 7\nbatch_size: 10\nparams: {{units: 4}}\n"
    )
    flags = ("--workers", "2", "--steps", "0", "--param", "units=8", "--checkpoint-every-steps", "200")
    job = subprocess.Popen(
        command("train", "-f", "job.yaml", *flags, "--run-dir", "run", "-o", "json"),
        cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    follower = None
    try:
        run = RunDir.at(tmp_path / "run")
        wait_until(lambda: run.status().get("step", 0) >= 400 or job.poll() is not None)
        assert job.poll() is None, job.communicate()
        spec = JobSpec.load(run.job_file)
        assert (spec.workers, spec.ps, spec.steps, spec.batch_size, spec.params) == (2, 1, 0, 10, {"units": "8"})
        follower = subprocess.Popen(
            command("logs", "run", "--follow", "-o", "json"), cwd=tmp_path, stdout=subprocess.PIPE, text=True
        )
        living = tfleet("status", "run", "-o", "json", cwd=tmp_path).json()
        assert (living["alive"], living["phase"], living["steps"]) == (True, "training", 0)
        assert follower.poll() is None
        stopped = tfleet("stop", "run", "-o", "json", cwd=tmp_path)
        assert stopped.code == 0, stopped.err
        assert (stopped.json()["phase"], stopped.json()["reason"]) == ("stopped", "stopped by 'tfleet stop'")
        out, err = job.communicate(timeout=LIMIT)
        assert job.returncode == 0, err
        result = json.loads(out)
        assert (result["phase"], result["run_dir"]) == ("stopped", str(run.path))
        assert result["evaluation"]["metrics"]["accuracy"] >= 0.8
        assert result["step"] == stopped.json()["step"] == result["last_commit"]["step"]
        # Whoever follows the logs sees the end, and is done.
        lines = [json.loads(line) for line in follower.communicate(timeout=30)[0].splitlines()]
        assert follower.returncode == 0
        assert [line["line"] for line in lines if line["replica"] == "ps-0"][-1].startswith("tfleet: stopped")
        nothing_left(run.path)
    finally:
        for process in filter(None, (job, follower)):
            process.kill()
            process.communicate()
