"""Ctrl-C on real jobs: the first commits, the second kills, and nothing is left behind."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [pytest.mark.tf, pytest.mark.processes]


def start(folder, *arguments):
    command = [sys.executable, "-m", "tfleet", "train", "mnist", "--run-dir", "run", "-o", "json", *arguments]
    return subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def read_until(job, start_of_line):
    for line in job.stderr:
        if line.startswith(start_of_line):
            return
    pytest.fail(f"the job ended before it said '{start_of_line}'")


def replicas(folder):
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            words = (entry / "cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        if os.fsencode(folder / "run") in words:
            found.append(words)
    return found


def test_ctrl_c_commits_and_resume_goes_on(tmp_path):
    job = start(tmp_path, "--steps", "0")
    read_until(job, "training with ")
    assert len(replicas(tmp_path)) == 4
    job.send_signal(signal.SIGINT)
    out, err = job.communicate(timeout=60)
    assert job.returncode == 130
    told = json.loads(out)
    step = told["step"]
    assert (told["phase"], told["last_commit"]["step"]) == ("interrupted", step)
    assert err.splitlines()[-1] == (
        f"tfleet: interrupted at step {step:,}, all of it committed; go on with 'tfleet train --resume --run-dir run'"
    )
    assert replicas(tmp_path) == []

    job = start(tmp_path, "--resume", "--steps", str(step + 10), "--workers", "1", "--ps", "1")
    out, err = job.communicate(timeout=120)
    assert job.returncode == 0, err
    assert json.loads(out)["step"] == step + 10
    assert replicas(tmp_path) == []


def test_second_ctrl_c_kills(tmp_path):
    job = start(tmp_path, "--steps", "0")
    read_until(job, "starting")
    job.send_signal(signal.SIGINT)
    read_until(job, "interrupted: waiting for the final commit")
    job.send_signal(signal.SIGINT)
    err = job.communicate(timeout=60)[1]
    assert job.returncode == 130
    assert "tfleet: killed; " in err or "tfleet: interrupted before the first step; " in err
    assert replicas(tmp_path) == []
