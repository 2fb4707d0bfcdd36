"""Wrong input and bad luck at the real command line: exit code, one sentence on stderr, nothing left behind.

Each row of issue 3's section, and the test that holds it to it. "here" is end to end, in this file; where several rows
travel the same path, one does so here and the others where their sentence is made.

| row | test |
| --- | --- |
| unknown task | here `test_at_once`; tests/tasks/test_names.py |
| a module that does not import, its own error shown | here `test_by_the_first_worker`; tests/tasks/test_load_task.py |
| a task returning no model, an uncompiled model | here `test_by_the_first_worker`; tests/tasks/test_task.py |
| an optimizer that cannot be carried | here `test_by_the_first_worker`; tests/worker/test_optimizer_config.py |
| a custom train_step | here `test_by_the_first_worker`; tests/worker/test_model_check.py |
| unknown --param, nearest name offered | here `test_by_the_first_worker`; tests/tasks/test_parameters.py |
| workers 0, negative, text; --ps 0; steps and epochs | here `test_at_once`; tests/cli/test_cli_errors.py |
| batch larger than the data | here `test_by_the_first_worker` |
| NaN in the data | test_bad_luck.py `test_nan_in_data_...` |
| NaN in the loss | here `test_a_loss_that_is_not_finite` |
| data shapes that do not fit the model | here `test_by_the_first_worker`; tests/worker/test_gradient_refusals.py |
| missing, truncated, wrong-magic data files | here `test_by_the_first_worker`; tests/data/test_mnist_files.py |
| run directory in use by a living job | test_bad_luck.py `test_run_directory_in_use_is_refused` |
| run directory not writable | here `test_at_once`, `test_a_disk_that_is_read_only` |
| full disk at start | here `test_a_disk_that_is_full_at_the_start` |
| full disk later: training goes on, earlier commits unharmed | here `test_a_disk_that_fills_while_training` |
| full disk for a while: told, and commits are made again | here `test_a_disk_that_is_full_for_a_while` |
| resume with a changed model, or another batch size or seed | here `test_a_refused_resume_changes_nothing` |
| resume with a corrupt checkpoint | test_bad_luck.py `test_corrupt_newest_...`; here `test_no_commit_can_be_read` |
| --resume where there is nothing; folders that are no runs | here `test_at_once`; tests/cli/test_cli_errors.py |
| port taken | here `test_a_taken_status_port`; tests/cli/test_tensorboard_server.py |
| a script that exits 3 under launch | here `test_a_script_that_exits_3`; tests/launch/test_launch_processes.py |
"""

from __future__ import annotations

import contextlib
import shutil
import socket
import struct
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from jobs import LiveJob, parameters, processes_of, tfleet, wait_until

from tfleet.backends.local import LocalBackend
from tfleet.spec.job import JobSpec
from tfleet.spec.rundir import RunDir

pytestmark = [pytest.mark.processes, pytest.mark.tf]

SMALL = ("--workers", "1", "--ps", "1", "--summary-every", "0")

TASKS = """
import keras, numpy as np
from tfleet import Task

X, Y = np.ones((400, 4), "float32"), np.ones(400, "float32")

def data():
    return {"train": (X, Y), "test": (X, Y)}

def uncompiled(kind=keras.Sequential, units=3):
    return kind([keras.Input((4,)), keras.layers.Dense(units), keras.layers.Dense(1)])

def compiled(model, optimizer="sgd"):
    model.compile(optimizer, "mse")
    return model

class OwnStep(keras.Sequential):
    def train_step(self, data):
        return super().train_step(data)

task = Task(lambda units=3: compiled(uncompiled(units=units)), data)
nothing = Task(lambda: None, data)
lion = Task(lambda: compiled(uncompiled(), "lion"), data)
own_step = Task(lambda: compiled(uncompiled(OwnStep)), data)
wide = Task(lambda: compiled(uncompiled()), lambda: {"train": (np.ones((400, 5), "float32"), Y)})
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with tasks, and with data files that are truncated."""
    here = tmp_path_factory.mktemp("wrong")
    (here / "tasks.py").write_text(TASKS)
    (here / "broken.py").write_text("import keras\n\nimport no_such_module\n")
    (here / "file").touch()
    (here / "empty").mkdir()
    images = struct.pack(">IIII", 2051, 30, 28, 28) + bytes(30 * 28 * 28)
    labels = struct.pack(">II", 2049, 30) + bytes(range(10)) * 3
    (here / "data").mkdir()
    for split in ("train", "t10k"):
        (here / "data" / f"{split}-images-idx3-ubyte").write_bytes(images[:5000])
        (here / "data" / f"{split}-labels-idx1-ubyte").write_bytes(labels)
    return here


def refused(folder: Path, *arguments: str, code: int = 2) -> str:
    """Runs a command that must fail: returns its one sentence, without `tfleet: `."""
    done = tfleet(*arguments, cwd=folder)
    assert done.code == code, done.out + done.err
    assert "Traceback" not in done.out + done.err
    assert done.err.startswith("tfleet: ")
    assert done.err.endswith("\n")
    assert done.err.count("\n") == 1, done.err
    return done.err.removeprefix("tfleet: ").rstrip("\n")


def no_process_left(run: Path) -> None:
    """Like `jobs.nothing_left`, for a job whose run directory is gone."""
    address = LocalBackend().plan(JobSpec(task="mnist"), run).replicas[0].env["PS_HOSTS"].split(",")[0]
    name = address.removeprefix("unix:@").removesuffix("-ps-0")
    wait_until(lambda: not processes_of(run), 30)
    wait_until(lambda: name not in Path("/proc/net/unix").read_text(), 5)
    assert not list(Path("/dev/shm").glob("*tfleet*"))


@pytest.mark.parametrize(
    ("arguments", "start", "end"),
    [
        ("train mnst", "unknown task 'mnst' (did you mean 'mnist'?)", "path/to/file.py:object"),
        ("train mnist --workers 0", "--workers: given '0', but ", "change --workers"),
        ("train mnist --workers -1", "--workers: given '-1', but ", "change --workers"),
        ("train mnist --workers two", "--workers: given 'two', but ", "change --workers"),
        ("train mnist --ps 0", "--ps: given '0', but input should be greater than or equal to 1", "change --ps"),
        ("train mnist --steps 9 --epochs 1", "steps=9 and epochs=1 are both given", "give only one of the two"),
        ("train mnist --run-dir file/run", "the run directory ", "choose another with --run-dir"),
        ("train mnist --run-dir /proc/none/run", "the run directory /proc/none/run cannot be written", "--run-dir"),
        ("train --resume --run-dir empty", "empty is not a run directory", "give the folder that train printed"),
        ("train mnist --resume --run-dir gone", "gone is not a run directory", "give the folder that train printed"),
        ("eval empty", "empty is not a run directory", "give the folder that train printed"),
        ("export empty", "empty is not a run directory", "give the folder that train printed"),
        ("status empty", "empty is not a run directory", "give the folder that train printed"),
        ("logs empty", "empty is not a run directory", "give the folder that train printed"),
        ("stop empty", "empty is not a run directory", "give the folder that train printed"),
        ("tensorboard empty", "empty is not a run directory", "give the folder that train printed"),
    ],
)
def test_at_once(folder: Path, arguments: str, start: str, end: str) -> None:
    before = sorted(folder.rglob("*"))
    sentence = refused(folder, *arguments.split())
    assert sentence.startswith(start)
    assert sentence.endswith(end)
    assert sorted(folder.rglob("*")) == before


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ("broken.py:task", ["ModuleNotFoundError: No module named 'no_such_module'", "broken.py, line 3", "correct"]),
        ("tasks.py:nothing", ["returned nothing (None); let it return a compiled keras.Model"]),
        ("tasks.py:lion", ["the optimizer Lion", "compile it with one that they have: Adagrad, Adam, AdamW"]),
        ("tasks.py:own_step", ["(OwnStep) has a train_step of its own, which cannot be carried; move what it does"]),
        ("tasks.py:wide", ["[20, 5] float32 for the inputs of shape (None, 4)", "change the data or the model"]),
        ("tasks.py:task --batch-size 401", ["larger than the training data of 400 samples; give --batch-size 400"]),
        ("mnist --param hiden_units=3", ["unknown --param hiden_units (did you mean 'hidden_units'?)"]),
        ("mnist --data-dir data", ["train-images-idx3-ubyte is truncated: 5000 bytes instead of 23536"]),
    ],
)
def test_by_the_first_worker(folder: Path, tmp_path: Path, arguments: str, told: list[str]) -> None:
    run = tmp_path / "runs" / "run"
    sentence = refused(folder, "train", *arguments.split(), *SMALL, "--steps", "9", "--run-dir", str(run))
    assert all(words in sentence for words in told), sentence
    assert list(tmp_path.iterdir()) == []
    no_process_left(run)


def test_a_loss_that_is_not_finite(folder: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    flags = (*SMALL, "--steps", "99", "--learning-rate", "1e30", "--run-dir", str(run))
    sentence = refused(folder, "train", "tasks.py:task", *flags, code=1)
    assert "the loss is " in sentence
    assert "at batch 1 of epoch 0" in sentence
    assert "try a smaller learning rate" in sentence
    assert RunDir.at(run).status()["exit_code"] == 1
    assert parameters(run).size == 4 * 3 + 3 + 3 + 1
    no_process_left(run)


def test_a_taken_status_port(folder: Path, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        sentence = refused(folder, "train", "mnist", "--status-port", port, "--run-dir", str(tmp_path / "run"))
    assert sentence == f"--status-port {port} cannot be used: address already in use; choose another port, or 0"
    assert list(tmp_path.iterdir()) == []


def test_a_script_that_exits_3(folder: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    script = 'case "$JOB_NAME $POD_NAME" in worker*-0) exit 3;; esac; exec sleep 1000'
    flags = ("--workers", "2", "--ps", "1", "--run-dir", str(run))
    sentence = refused(folder, "launch", *flags, "--", "sh", "-c", script, code=3)
    assert sentence.startswith("worker 0 ended with code 3, so the others were stopped; its log is ")
    no_process_left(run)


@pytest.fixture(scope="module")
def trained(folder: Path) -> Path:
    """A finished job of `tasks.py:task`; to be copied, not changed."""
    run = folder / "trained"
    done = tfleet("train", "tasks.py:task", *SMALL, "--steps", "40", "--run-dir", str(run), cwd=folder)
    assert done.code == 0, done.err
    return run


@pytest.fixture
def copied(trained: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(trained, tmp_path / "run"))


def test_a_refused_resume_changes_nothing(folder: Path, copied: Path) -> None:
    run = RunDir.at(copied)
    before = run.job_file.read_bytes(), run.status_file.read_bytes()
    again = ("train", "--resume", "--run-dir", str(copied), "--steps", "80")
    sentence = refused(folder, *again, "--param", "units=4")
    assert "commit 1 holds another model" in sentence
    assert "has shape [4, 4] instead of [4, 3]" in sentence
    assert "undo the change of the model" in sentence
    assert (run.job_file.read_bytes(), run.status_file.read_bytes()) == before
    # Seed and strategy are refused by the same table: tests/server/test_fleet_starts.py.
    assert "was trained with batch_size 20, this job has 4" in refused(folder, *again, "--batch-size", "4")
    assert (run.job_file.read_bytes(), run.status_file.read_bytes()) == before
    no_process_left(copied)
    done = tfleet("eval", str(copied), "-o", "json", cwd=folder)
    assert done.code == 0, done.err
    assert done.json()["step"] == 40


def test_no_commit_can_be_read(folder: Path, copied: Path) -> None:
    oldest, newest = sorted((copied / "checkpoints").glob("*part*"))
    newest.write_bytes(newest.read_bytes()[:-1])
    done = tfleet("eval", str(copied), "-o", "json", cwd=folder)
    assert (done.code, done.json()["commit"]) == (0, 0)
    assert done.err.startswith(f"tfleet: note: commit 1 is damaged: {newest.name} ")
    oldest.write_bytes(oldest.read_bytes()[:-1])
    before = {p.name: p.read_bytes() for p in (copied / "checkpoints").glob("commit*")}
    sentence = refused(folder, "train", "--resume", "--run-dir", str(copied), "--steps", "80")
    assert sentence.startswith("no commit of this run can be read (commit 1 is damaged: ")
    assert sentence.endswith("put the files of one back, or train anew with another --run-dir")
    assert {p.name: p.read_bytes() for p in (copied / "checkpoints").glob("commit*")} == before
    assert RunDir.at(copied).status()["phase"] == "done"
    assert refused(folder, "eval", str(copied)).startswith("no commit of this run can be read (commit 1 is damaged: ")


Mount = Callable[[str], Path]


@pytest.fixture
def mount(tmp_path: Path) -> Iterator[Mount]:
    """Mounts a disk in memory with these options; skips where this user may not."""
    disk = tmp_path / "disk"
    disk.mkdir()

    def mounted(options: str) -> Path:
        done = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", options, "tfleet-test", str(disk)], capture_output=True, text=True
        )
        if done.returncode:
            pytest.skip(f"a disk that is full needs the right to mount one: {done.stderr.strip()}")
        return disk

    yield mounted
    subprocess.run(["umount", str(disk)], capture_output=True)


def test_a_disk_that_is_read_only(folder: Path, mount: Mount) -> None:
    disk = mount("ro")
    sentence = refused(folder, "train", "mnist", "--run-dir", str(disk / "run"))
    assert "cannot be written: Read-only file system; choose another with --run-dir" in sentence


def test_a_disk_that_is_full_at_the_start(folder: Path, mount: Mount) -> None:
    disk = mount("size=16k")
    sentence = refused(folder, "train", "mnist", "--run-dir", str(disk / "run"))
    assert "cannot be written: No space left on device; make room on its disk or choose another" in sentence
    assert list(disk.iterdir()) == []


def test_a_disk_that_fills_while_training(folder: Path, mount: Mount) -> None:
    disk = mount("size=4m")
    run = disk / "run"
    often = ("--checkpoint-every-steps", "100", "--keep", "50")
    sentence = refused(folder, "train", "mnist", *SMALL, *often, "--steps", "900", "--run-dir", str(run), code=1)
    assert "No space left on device; make room or repair the disk (earlier commits are unharmed)" in sentence
    assert "then go on with --resume" in sentence
    status = RunDir.at(run).status()
    # Commits failed from about the third on, and the job trained to its end all the same.
    assert status["step"] == 900
    assert len([note for note in status["notes"] if "training goes on, the commit is tried again" in note]) == 1
    assert parameters(run).size == 79510
    assert 100 <= status["last_commit"]["step"] < 900
    no_process_left(run)
    subprocess.run(["mount", "-o", "remount,size=64m", str(disk)], check=True)
    done = tfleet("train", "--resume", "--run-dir", str(run))
    assert done.code == 0, done.err
    assert f"goes on from commit {status['last_commit']['number']} at step {status['last_commit']['step']}" in done.out
    assert RunDir.at(run).status()["last_commit"]["step"] == 900


def test_a_disk_that_is_full_for_a_while(mount: Mount) -> None:
    disk = mount("size=16m")
    flags = ("--workers", "1", "--ps", "1", "--steps", "0", "--summary-every", "20", "--checkpoint-every-steps", "100")
    job = LiveJob(disk / "run", "mnist", *flags)
    told = lambda text: any(text in note for note in job.run.status().get("notes", []))  # noqa: E731
    try:
        wait_until(lambda: (job.run.status().get("last_commit") or {}).get("step", 0) >= 100)
        with (disk / "fill").open("wb", buffering=0) as fill, contextlib.suppress(OSError):
            while True:
                fill.write(bytes(4096))
        wait_until(lambda: told("training goes on, the commit is tried again"))
        status = job.run.status()
        job.wait_for_step(status["step"] + 200)
        assert job.run.status()["counts"]["failed_commits"] >= 1
        (disk / "fill").unlink()
        wait_until(lambda: told("commits are made again, since commit "))
        assert job.run.status()["last_commit"]["number"] > status["last_commit"]["number"]
        assert tfleet("stop", str(disk / "run")).code == 0
        code, out = job.finish()
        assert code == 0, out
        assert job.run.status()["rollbacks"] == 0
        assert not any(member["restarts"] for member in job.run.status()["members"])
    finally:
        if job.process.poll() is None:
            job.process.kill()
        job.process.communicate()
        no_process_left(disk / "run")
