from __future__ import annotations

import json

import numpy as np
import pytest

from tfleet.data import as_source
from tfleet.spec.errors import WrongInput
from tfleet.spec.job import JobSpec
from tfleet.tasks import Task, resolve

DATA = (np.zeros((3, 2), np.float32), np.arange(3))


class Model:
    """Has what the check of a built model looks at; tests/tasks/test_mnist_task.py builds real ones."""

    __module__ = "keros"
    compiled = True


KerasModel = type("Model", (Model,), {"__module__": "keras.src.models.model"})


def task(model=lambda: KerasModel(), data=lambda: {"train": DATA}, **others):
    return Task(model, data, **others)


def job(**values):
    return JobSpec(task="t", **values)


def refused(function, *arguments, **named):
    with pytest.raises(WrongInput) as caught:
        function(*arguments, **named)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    ("attributes", "sentence"),
    [
        ({"model": "mlp"}, "model of the task is a str, but a function that returns it is needed"),
        ({"data": DATA}, "data of the task is a tuple, but a function"),
        ({"steps": -1}, "steps of the task is -1; give an integer of at least 0"),
        ({"steps": 1.5}, "steps of the task is 1.5"),
        ({"batch_size": 0}, "batch_size of the task is 0; give an integer of at least 1"),
        ({"batch_size": True}, "batch_size of the task is True"),
        ({"class_weight": [1, 2]}, "class_weight of the task is [1, 2]; give integer classes"),
        ({"class_weight": {"a": 1.0}}, "class_weight of the task is {'a': 1.0}"),
        ({"class_weight": {0: -1.0}}, "class_weight of the task is {0: -1.0}"),
        ({"signatures": {}}, "signatures of the task is no function"),
    ],
)
def test_attributes_of_another_kind_are_refused(attributes, sentence):
    assert sentence in refused(task, **attributes)


def test_a_built_model_in_the_place_of_its_function_is_refused():
    class Built:
        trainable_variables = ()

        def __call__(self): ...

    assert "model of the task is a Built, but a function that returns it" in refused(task, Built())


def test_parameters_go_to_the_functions_that_have_them():
    got = {}

    def model(units: int = 1, classes: int = 10):
        got["model"] = (units, classes)
        return KerasModel()

    def data(classes: int = 10, noise: float = 0.0):
        got["data"] = (classes, noise)
        return {"train": DATA}

    mine = task(model, data)
    assert list(mine.parameters()) == ["units", "classes", "noise"]
    spec = job(params={"classes": "3", "noise": "0.5"})
    mine.build_model(spec)
    mine.build_data(spec)
    assert got == {"model": (1, 3), "data": (3, 0.5)}


def test_functions_that_disagree_on_a_shared_parameter_are_refused():
    assert "parameter n has one type or default in the model function and another" in refused(
        task(lambda n=1: 0, lambda n=2: 0).parameters
    )


def test_a_data_folder_goes_to_the_functions_that_have_it():
    got = []

    def data(data_dir: str = "none"):
        got.append(data_dir)
        return {"train": DATA}

    mine = task(data=data)
    mine.build_data(job(data_dir="/d"))
    mine.build_data(job())
    assert got == ["/d", "none"]
    assert mine.parameters() == {}
    assert "unknown --param data_dir" in refused(mine.check, job(params={"data_dir": "/d"}))


def test_a_data_folder_that_nobody_reads_or_that_is_missing_is_refused():
    assert refused(task().check, job(data_dir="/d")) == (
        "--data-dir /d is given, but task t reads no data folder; leave it out"
    )
    needing = task(data=lambda data_dir: {"train": DATA})
    with pytest.raises(WrongInput, match="has no type"):
        needing.check(job())

    def data(data_dir: str):
        return {"train": DATA}

    assert refused(task(data=data).check, job()) == "task t needs its data folder; give --data-dir"


def test_data_become_sources():
    built = task(data=lambda: {"train": DATA, "test": as_source(DATA)}).build_data(job())
    assert len(built.train) == len(built.test) == 3
    assert task(data=lambda: {"train": DATA, "test": None}).build_data(job()).test is None


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        (DATA, "the data function of task t returned a tuple; let it return {'train': (x, y), ...}"),
        ({}, "the data function of task t returned no 'train'"),
        ({"train": DATA, "tset": DATA}, "returned 'tset' (did you mean 'test'?); allowed are 'train' and 'test'"),
        ({"train": DATA, 1: DATA}, "returned 1; allowed are 'train' and 'test'"),
        ({"train": DATA, "test": iter([])}, "test is a list_iterator, whose samples have no addresses"),
    ],
)
def test_data_of_another_form_are_refused(given, sentence):
    assert sentence in refused(task(data=lambda: given).build_data, job())


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        (None, "the model function of task t returned nothing (None); let it return a compiled keras.Model"),
        (Model(), "the model function of task t returned a Model; let it return"),
        ((KerasModel(),), "the model function of task t returned a tuple"),
    ],
)
def test_what_is_no_model_is_refused(given, sentence):
    assert sentence in refused(task(lambda: given).build_model, job())


def test_an_uncompiled_model_is_refused():
    model = KerasModel()
    model.compiled = False
    assert "returned a model that is not compiled; call model.compile(" in refused(
        task(lambda: model).build_model, job()
    )


def test_a_function_that_fails_is_told_with_its_line():
    def broken():
        raise KeyError("labels")

    line = broken.__code__.co_firstlineno + 1
    for built in (task(broken).build_model, task(data=broken).build_data):
        told = refused(built, job())
        assert f"function of task t failed with KeyError: 'labels' ({__file__}, line {line}); correct the" in told


def test_a_failure_within_a_library_is_told_with_the_users_line():
    def broken():
        return np.zeros((2, 3)).reshape(np.prod([4, 5]))

    line = broken.__code__.co_firstlineno + 1
    assert f"({__file__}, line {line})" in refused(task(data=broken).build_data, job())

    def deep():
        return json.loads("{")

    assert f"({__file__}, line {deep.__code__.co_firstlineno + 1})" in refused(task(deep).build_model, job())


def test_a_sentence_of_tfleet_passes_unchanged():
    def refusing():
        raise WrongInput("pad them")

    assert refused(task(refusing).build_model, job()) == "pad them"


def test_what_the_job_leaves_open_comes_from_the_task():
    mine = task(steps=300, batch_size=7)
    resolved = resolve(job(), mine)
    assert (resolved.steps, resolved.batch_size) == (300, 7)
    assert resolve(resolved, mine) == resolved


@pytest.mark.parametrize(
    ("given", "steps", "batch_size"),
    [
        ({"steps": 5}, 5, 7),
        ({"steps": 0}, 0, 7),
        ({"batch_size": 64}, 300, 64),
        ({"epochs": 2}, -1, 7),
    ],
)
def test_what_the_job_says_stands(given, steps, batch_size):
    resolved = resolve(job(**given), task(steps=300, batch_size=7))
    assert (resolved.steps, resolved.batch_size, resolved.epochs) == (steps, batch_size, given.get("epochs", 0))


def test_a_task_that_says_nothing_ends_by_itself():
    assert resolve(job(), task()).steps == 1000
    assert resolve(job(), task(steps=0)).steps == 0


def test_resolving_checks_parameters():
    assert "unknown --param units" in refused(resolve, job(params={"units": 3}), task())
