from __future__ import annotations

import sys

import pytest

from tfleet.spec.errors import WrongInput
from tfleet.tasks import Task, load_task

GOOD = "from tfleet.tasks import Task\ntask = Task(lambda: None, lambda: {}, name='mine')\nother = 3\n"


@pytest.fixture(autouse=True)
def _imports_leave_no_trace(monkeypatch, tmp_path):
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    monkeypatch.chdir(tmp_path)
    before = set(sys.modules)
    yield
    for name in set(sys.modules) - before:
        if name.startswith(("tfleet_task_", "own_")):
            del sys.modules[name]


def refused(name):
    with pytest.raises(WrongInput) as caught:
        load_task(name)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_file_is_loaded_with_what_lies_beside_it(tmp_path):
    folder = tmp_path / "deep"
    folder.mkdir()
    (folder / "own_helper.py").write_text(GOOD)
    (folder / "own file.py").write_text("from own_helper import task")
    task = load_task("deep/own file.py:task")
    assert isinstance(task, Task)
    assert task.name == "mine"


def test_a_module_of_the_current_folder_is_loaded(tmp_path):
    (tmp_path / "own_package").mkdir()
    (tmp_path / "own_package" / "tasks.py").write_text(GOOD)
    assert load_task("own_package.tasks:task").name == "mine"


@pytest.mark.parametrize(
    ("source", "error", "line"),
    [
        ("\n1 / 0\n", "ZeroDivisionError: division by zero", 2),
        ("import own_none\n", "ModuleNotFoundError: No module named 'own_none'", 1),
        ("x = 1\ndef f(:\n", "SyntaxError: invalid syntax", 2),
        ("import sys\nsys.exit('usage: no')\n", "SystemExit: usage: no", 2),
        ("import json\n\njson.loads('{')\n", "JSONDecodeError: Expecting property name", 3),
        ("raise ValueError('two\\nlines')\n", "ValueError: two lines", 1),
        ("raise ValueError('x' * 5000)\n", "ValueError: xxx", 1),
        ("assert False\n", "AssertionError", 1),
    ],
)
def test_a_module_that_does_not_import_shows_its_own_error(tmp_path, source, error, line):
    path = tmp_path / "own_broken.py"
    path.write_text(source)
    by_file = refused("own_broken.py:task")
    assert by_file.startswith(f"importing the file {path} failed with {error}")
    assert f"line {line})" in by_file
    assert by_file.endswith("; correct the file")
    assert len(by_file) < 1000
    assert "tfleet_task_own_broken" not in sys.modules
    assert refused("own_broken:task").startswith(f"importing the module own_broken failed with {error}")


def test_a_module_that_does_not_exist_is_refused():
    told = refused("own_nowhere.tasks:task")
    assert (
        "importing the module own_nowhere.tasks failed with ModuleNotFoundError: No module named 'own_nowhere'" in told
    )
    assert told.endswith("; correct the module, or its name in the task")


def test_a_refusal_of_tfleet_within_the_module_is_told_as_it_is(tmp_path):
    (tmp_path / "own_wrong.py").write_text("from tfleet.tasks import Task\ntask = Task('mlp', 3)\n")
    assert refused("own_wrong.py:task").startswith("model of the task is a str")


def test_an_object_that_is_missing_or_no_task_is_refused(tmp_path):
    (tmp_path / "own_good.py").write_text(GOOD)
    assert refused("own_good.py:tsk") == (
        "the task own_good.py:tsk names tsk, which its module does not have (did you mean 'task'?); its tasks: task"
    )
    assert (
        refused("own_good:other")
        == "other of the task own_good:other is a int, not a tfleet.tasks.Task; its tasks: task"
    )
    (tmp_path / "own_empty.py").write_text("def train(): ...\n")
    assert refused("own_empty:train") == (
        "train of the task own_empty:train is a function, not a tfleet.tasks.Task; "
        "make one with tfleet.tasks.Task(model, data)"
    )


def test_a_task_finds_the_backend_that_tfleet_carries(tmp_path, monkeypatch):
    monkeypatch.setenv("KERAS_BACKEND", "jax")
    (tmp_path / "own_backend.py").write_text(GOOD + "import os\nassert os.environ['KERAS_BACKEND'] == 'tensorflow'\n")
    load_task("own_backend.py:task")


@pytest.mark.parametrize("name", ["mnits", "imdb", "nowhere.py:task", ""])
def test_names_are_checked_first(name):
    assert refused(name)
