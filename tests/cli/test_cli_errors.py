"""Whatever is wrong: one sentence on stderr that says what to change, and the exit code."""

import os
import subprocess
import sys

import pytest

from tfleet.cli.main import COMMANDS, run
from tfleet.spec.errors import ExitCode, Interrupted, JobFailed


def refused(capsys, *arguments):
    code = run(list(arguments))
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("tfleet: ")
    assert err.count("\n") == 1
    assert "Traceback" not in err
    return code, err.removeprefix("tfleet: ").rstrip("\n")


@pytest.mark.parametrize(
    ("arguments", "start", "end"),
    [
        ("trian mnist", "unknown command 'trian' (did you mean 'train'?); allowed: train, eval", ""),
        ("--verison", "unknown option --verison (did you mean '--version'?)", "'tfleet --help' lists what is allowed"),
        ("train --wrokers 3", "unknown option --wrokers (did you mean '--workers'?); 'tfleet train --help'", ""),
        ("train mnist cifar", "got unexpected extra argument", "'tfleet train --help' lists what is allowed"),
        (
            "train mnist --workers",
            "option '--workers' requires an argument",
            "'tfleet train --help' lists what is allowed",
        ),
        ("train mnist -o xml", "invalid value for '-o'", "is allowed"),
        ("train mnist --workers abc", "--workers: given 'abc', but ", "change --workers"),
        ("train mnist --workers 0", "--workers: given '0', but ", "change --workers"),
        ("train mnist --workers -1", "--workers: given '-1', but ", "change --workers"),
        ("train mnist --ps 0", "--ps: given '0', but ", "change --ps"),
        ("train mnist --batch-size -5", "--batch-size: given '-5', but ", "change --batch-size"),
        ("train mnist --eval-every often", "--eval-every: given 'often', but ", "change --eval-every"),
        ("train mnist --strategy ring", "--strategy: given 'ring', but ", "change --strategy"),
        ("train mnist --learning-rate fast", "--learning-rate: given 'fast', but ", "change --learning-rate"),
        ("train mnist --steps 5 --epochs 2", "steps=5 and epochs=2 are both given", "give only one of the two"),
        ("train mnist --replicas-to-aggregate 2", "replicas_to_aggregate does nothing with strategy async", "use sync"),
        ("train mnist --strategy average --local-steps -1", "--local-steps: given '-1', but ", "change --local-steps"),
        ("train mnist --strategy average --rounds 0", "--rounds: given '0', but ", "change --rounds"),
        ("train mnist --rounds 2", "rounds does nothing with strategy async", "leave it out or use average"),
        ("train mnist --strategy sync --local-steps 5", "local_steps does nothing with strategy sync", "use average"),
        ("train mnist --strategy average --steps 100", "steps=100 does nothing with strategy average", "give rounds"),
        ("train mnist --strategy average --steps 0", "steps=0 does nothing with strategy average", "give rounds"),
        ("train mnist --strategy average --epochs 2", "epochs=2 does nothing with strategy average", "give rounds"),
        ("train mnist --strategy average --overlap always", "overlap=always does nothing with strategy average", ""),
        ("train mnist --staleness 2", "staleness does nothing with strategy async", "leave it out or use bounded"),
        ("train mnist --strategy bounded --staleness -1", "--staleness: given '-1', but ", "change --staleness"),
        (
            "train mnist --strategy bounded --local-steps 3",
            "local_steps does nothing with strategy bounded",
            "use average",
        ),
        ("train mnist --ps-placement besides", "--ps-placement: given 'besides', but ", "change --ps-placement"),
        (
            "train mnist --ps-placement colocated --workers 3 --ps 2",
            "ps=2 and workers=3 differ, but ps_placement=colocated puts one ps beside each worker",
            "give the same number of both",
        ),
        ("train mnist --param hidden_units", "--param hidden_units has no value; write --param name=value", ""),
        ("train", "no task was given; name one", ""),
        ("train mnst", "unknown task 'mnst' (did you mean 'mnist'?)", ""),
        ("train nosuch.py:task", "the file ", "give an existing .py file"),
        ("train __main__:task", "the task is '__main__:task'", "give 'my_task.py:task'"),
        ("train --resume", "resume was asked for without a run", "--run-dir"),
        ("train --resume --run-dir nosuch", "nosuch is not a run directory", "the folder that train printed"),
        ("train -f nosuch.yaml", "the job file nosuch.yaml cannot be read", "give a readable file to -f"),
        ("train -f list.yaml", "the job file list.yaml must hold a mapping", ""),
        ("train -f typo.yaml", "unknown job field wokers (did you mean 'workers'?)", ""),
        ("eval", "missing argument 'RUN'", "'tfleet eval --help' lists what is allowed"),
        ("eval nosuch", "nosuch is not a run directory", ""),
        ("eval old --commit abc", "--commit: given 'abc', but it is a whole number of at least -1", "change --commit"),
        ("export nosuch", "nosuch is not a run directory", ""),
        ("tensorboard nosuch", "nosuch is not a run directory", ""),
        ("tensorboard old --port 70000", "--port: given '70000', but it is a whole number from 0 to 65535", ""),
        ("status nosuch", "nosuch is not a run directory", ""),
        ("logs nosuch", "nosuch is not a run directory", ""),
        ("logs old wroker", "unknown role 'wroker' (did you mean 'worker'?); allowed: ps, worker, evaluator", ""),
        ("logs old worker one", "the number of the replica is 'one'", ""),
        ("logs old worker 7", "", "there are: none yet"),
        ("stop nosuch", "nosuch is not a run directory", ""),
        ("stop old", "the job in ", ""),
        ("launch", "missing argument '-- COMMAND'", "'tfleet launch --help' lists what is allowed"),
        ("launch --workers 0 -- true", "--workers: given '0', but it is a whole number of at least 1", ""),
        ("launch --ps x -- true", "--ps: given 'x', but it is a whole number of at least 0", ""),
    ],
)
def test_wrong_input_is_one_sentence_and_exit_code_2(arguments, start, end, backend, tmp_path, capsys):
    (tmp_path / "list.yaml").write_text("- mnist\n")
    (tmp_path / "typo.yaml").write_text("task: mnist\nwokers: 3\n")
    (tmp_path / "old").mkdir()
    (tmp_path / "old/logs").mkdir()
    (tmp_path / "old/job.yaml").write_text("task: mnist\n")
    code, sentence = refused(capsys, *arguments.split())
    assert code == 2
    assert sentence.startswith(start)
    assert sentence.endswith(end)
    assert backend.started is None


@pytest.mark.parametrize(("error", "code"), [(JobFailed("two\nlines"), 1), (Interrupted("two\nlines"), 130)])
def test_errors_of_a_command_end_with_their_code(error, code, monkeypatch, capsys):
    def fail(*_):
        raise error

    monkeypatch.setattr("tfleet.cli.train.plan", fail)
    assert refused(capsys, "train", "mnist") == (code, "two lines")


def test_ctrl_c_needs_no_words(monkeypatch, capsys):
    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("tfleet.cli.train.plan", interrupt)
    assert run(["train", "mnist"]) == 130
    assert capsys.readouterr().err == ""


def test_a_defect_is_not_hidden(monkeypatch):
    def fail(*_):
        raise ZeroDivisionError

    monkeypatch.setattr("tfleet.cli.train.plan", fail)
    with pytest.raises(ZeroDivisionError):
        run(["train", "mnist"])


def test_help_lists_every_command(capsys):
    assert run([]) == 0
    shown = capsys.readouterr().out
    assert all(f" {name} " in shown for name in COMMANDS)


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_its_help(name, capsys):
    assert run([name, "--help"]) == 0
    assert COMMANDS[name].split(".")[0] in " ".join(capsys.readouterr().out.split())


def test_version(capsys):
    assert run(["--version"]) == 0
    assert capsys.readouterr().out == "tfleet 0.1.0\n"


@pytest.mark.processes
def test_output_that_cannot_be_written_is_told():
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    with open("/dev/full", "w", encoding="utf-8") as full:
        command = [sys.executable, "-m", "tfleet", "--version"]
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, check=False, env=environment)
    assert done.returncode == ExitCode.FAILED
    assert done.stderr == "tfleet: the output could not be written: No space left on device; make room for it\n"
