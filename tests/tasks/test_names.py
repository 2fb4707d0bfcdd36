from __future__ import annotations

import pytest

from tfleet.spec.errors import WrongInput
from tfleet.tasks.names import BUILTINS, check_name


@pytest.mark.parametrize("name", [*BUILTINS, "package.module:task", "module:my_task", "_a.b2:c"])
def test_well_formed_names_pass_without_an_import(name):
    check_name(name)


def test_an_existing_file_passes(tmp_path, monkeypatch):
    (tmp_path / "my tasks.py").write_text("raise RuntimeError")
    check_name(f"{tmp_path}/my tasks.py:task")
    monkeypatch.chdir(tmp_path)
    check_name("my tasks.py:task")
    check_name("./my tasks.py:task")


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("", "no task is given; built in: mnist"),
        ("mnits", "unknown task 'mnits' (did you mean 'mnist'?); built in: mnist; your own: package.module:object or"),
        ("zzz", "unknown task 'zzz'; built in: mnist"),
        ("imdb", "the task imdb is not in this version of tfleet yet; built in: mnist"),
        ("a.b:", "unknown task 'a.b:'"),
        (":task", "unknown task ':task'"),
        ("a..b:task", "unknown task 'a..b:task'"),
        ("a:b:c", "unknown task 'a:b:c'"),
        ("a b:task", "unknown task 'a b:task'"),
        ("tasks/flowers:task", "unknown task 'tasks/flowers:task'"),
        ("flowers.py", "the task flowers.py does not say which object of the file is meant; give flowers.py:task"),
        ("flowers.py:", "give flowers.py:task"),
        ("flowers.py:2nd", "'2nd' in the task flowers.py:2nd is not a name of an object; give flowers.py:task"),
    ],
)
def test_other_names_are_refused_in_one_sentence(name, sentence):
    with pytest.raises(WrongInput) as caught:
        check_name(name)
    assert sentence in str(caught.value)


def test_a_missing_file_is_refused_with_the_nearest(tmp_path):
    (tmp_path / "flowers.py").write_text("")
    with pytest.raises(WrongInput, match=r"flower.py .* does not exist \(did you mean 'flowers.py'\?\)"):
        check_name(f"{tmp_path}/flower.py:task")
    with pytest.raises(WrongInput, match=r"does not exist; give an existing .py file"):
        check_name(f"{tmp_path}/no/flower.py:task")
