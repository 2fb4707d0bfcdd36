"""The copy of a run directory: the program that sends it, run for real, and its receiver."""

import io
import subprocess
import sys
import tarfile
from types import SimpleNamespace

import pytest
import yaml

from tfleet.backends.kubernetes import copying, helm
from tfleet.backends.kubernetes.handle import Handle
from tfleet.spec.errors import JobFailed, WrongInput


@pytest.fixture
def run(tmp_path):
    folder = tmp_path / "volume/run"
    for name, text in {
        "job.yaml": "task: /etc/tfleet/task/flowers.py:task\n",
        "status.json": f'{{"phase": "done", "export": "{folder}/export/1"}}\n',
        "export/1/model.keras": "model",
        "checkpoints/a/part-0": "x" * 3_000_000,
        "logs/ps-0.log": "",
        ".tfleet/token": "secret",
    }.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    (folder / "export/latest").symlink_to("1")
    return folder


def sent(run, *wanted):
    done = subprocess.run([sys.executable, "-c", copying.SEND, str(run), *wanted], capture_output=True, check=False)
    if done.returncode:
        raise JobFailed(done.stderr.decode().strip())
    return done.stdout


def pieces(data, size=70_001):
    return iter([data[i : i + size] for i in range(0, len(data), size)])


def names(folder):
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file())


@pytest.mark.processes
def test_what_is_sent_arrives_without_the_secret(run, tmp_path):
    shown = []
    target = tmp_path / "here"
    target.mkdir()
    result = copying.receive(pieces(sent(run)), target, lambda done, total: shown.append((done, total)))
    assert names(target) == ["checkpoints/a/part-0", "export/1/model.keras", "job.yaml", "logs/ps-0.log", "status.json"]
    assert (target / "checkpoints/a/part-0").read_bytes() == (run / "checkpoints/a/part-0").read_bytes()
    assert shown[-1] == (result["bytes"], result["bytes"])
    assert result["files"] == 5
    assert (target / "job.yaml").stat().st_mtime == int((run / "job.yaml").stat().st_mtime)


@pytest.mark.processes
def test_a_part_is_sent_with_what_makes_it_a_run(run, tmp_path):
    copying.receive(pieces(sent(run, *copying.ALWAYS, "export")), tmp_path, lambda *_: None)
    assert names(tmp_path / "export") == ["1/model.keras"]
    assert not (tmp_path / "checkpoints").exists()


@pytest.mark.processes
def test_a_folder_without_a_run(run):
    with pytest.raises(JobFailed, match="there is no run in /nowhere on the volume yet"):
        sent("/nowhere")


@pytest.mark.processes
@pytest.mark.parametrize("cut", [1, 700, 1_000_000, -20_000])
def test_a_copy_that_broke_off_is_not_taken_for_whole(run, tmp_path, cut):
    with pytest.raises(JobFailed, match=r"broke off|not whole"):
        copying.receive(pieces(sent(run)[:cut]), tmp_path / "x", lambda *_: None)


@pytest.mark.processes
def test_a_byte_that_changed_on_the_way_is_noticed(run, tmp_path):
    data = bytearray(sent(run))
    data[data.index(b"xxxx") + 9] = ord("y")
    with pytest.raises(JobFailed, match="not as they were sent"):
        copying.receive(pieces(bytes(data)), tmp_path / "x", lambda *_: None)


@pytest.mark.parametrize("name", ["../out", "/etc/passwd", "a/../../b"])
def test_a_path_that_leads_out_is_refused(tmp_path, name):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        tar.addfile(tarfile.TarInfo(name))
    with pytest.raises(JobFailed, match="leads out of the folder"):
        copying.receive(pieces(buffer.getvalue()), tmp_path / "x", lambda *_: None)
    assert not (tmp_path / "out").exists()


@pytest.fixture
def job(run, monkeypatch):
    """A job whose pod is this machine."""
    import contextlib

    at = Handle("c", "n", "digits")
    closed = []

    @contextlib.contextmanager
    def pod(cluster, at, kind, tell, arguments=()):
        try:
            yield {"metadata": {"name": "p"}, "spec": {"containers": [{"name": "main"}]}}
        finally:
            closed.append(kind)

    def execute(namespace, name, container, command):
        return pieces(sent(*command[3:]))

    monkeypatch.setattr(copying, "tool_pod", pod)
    monkeypatch.setattr(helm, "values_of", lambda at: {"taskFile": {"name": "flowers.py", "content": "task = 1\n"}})
    cluster = SimpleNamespace(execute=execute)
    return SimpleNamespace(at=at, handle=str(at), run_dir=str(run), cluster=cluster, closed=closed)


@pytest.mark.processes
def test_a_copied_run_brings_its_task_and_names_its_own_paths(job, tmp_path):
    target = tmp_path / "runs/digits"
    copying.copy_run(job, target, (), print, lambda *_: None)
    assert yaml.safe_load((target / "job.yaml").read_text())["task"] == f"{target}/task/flowers.py:task"
    assert (target / "task/flowers.py").read_text() == "task = 1\n"
    assert f'"{target}/export/1"' in (target / "status.json").read_text()
    assert [p.name for p in target.parent.iterdir()] == ["digits"]
    assert job.closed == ["copy"]
    with pytest.raises(WrongInput, match=r"is there already; give another folder"):
        copying.copy_run(job, target, (), print, lambda *_: None)


@pytest.mark.processes
def test_nothing_is_left_of_a_copy_that_failed(job, tmp_path):
    job.run_dir = "/nowhere"
    with pytest.raises(JobFailed):
        copying.copy_run(job, tmp_path / "runs/digits", (), print, lambda *_: None)
    assert list((tmp_path / "runs").iterdir()) == []
    assert job.closed == ["copy"]


def test_a_command_of_the_users_own_has_nothing_to_copy(job, tmp_path):
    job.run_dir = ""
    with pytest.raises(WrongInput, match="keeps no run directory; use kubectl cp"):
        copying.copy_run(job, tmp_path / "x", (), print, lambda *_: None)
