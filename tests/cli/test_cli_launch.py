"""`tfleet launch` plans what it is told and passes the exit code on."""

import json

import pytest

from tfleet.cli.main import run


@pytest.fixture(autouse=True)
def _in_a_new_folder(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)


def test_dry_run_keeps_the_options_of_the_script(capsys):
    arguments = ["launch", "--workers", "3", "--ps", "1", "--chief", "--dry-run", "-o", "json"]
    assert run([*arguments, "--", "python", "x.py", "--workers", "9"]) == 0
    plan = json.loads(capsys.readouterr().out)
    assert [r["role"] for r in plan["replicas"]].count("worker") == 3
    assert [r["role"] for r in plan["replicas"]].count("chief") == 1
    assert all(r["command"][-4:] == ["python", "x.py", "--workers", "9"] for r in plan["replicas"])
    assert plan["run_dir"].endswith("runs/launch-<time>")


def test_dry_run_prints_the_same_bytes_twice(capsys, tmp_path):
    texts = []
    for _ in range(2):
        assert run(["launch", "--dry-run", "--", "true"]) == 0
        texts.append(capsys.readouterr().out)
    assert texts[0] == texts[1]
    assert list(tmp_path.iterdir()) == []


def test_exit_code_and_output_of_the_script(monkeypatch, capsys):
    def fake(plan, echo, tell):
        echo("hello")
        tell("worker 0 failed")
        return 3

    monkeypatch.setattr("tfleet.backends.launch.run", fake)
    assert run(["launch", "--", "true"]) == 3
    assert capsys.readouterr() == ("hello\n", "tfleet: worker 0 failed\n")
    assert run(["launch", "-o", "json", "--", "true"]) == 3
    out, err = capsys.readouterr()
    assert (json.loads(out)["exit_code"], err) == (3, "hello\ntfleet: worker 0 failed\n")
