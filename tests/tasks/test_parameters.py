from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Literal

import pytest

from tfleet.spec.errors import WrongInput
from tfleet.tasks.parameters import Parameter, arguments, read_parameters

if TYPE_CHECKING:
    from decimal import Decimal


def test_types_come_from_annotations_or_defaults():
    def function(
        units=100, rate=0.5, deep=True, kind="mlp", depth: int = 1, size: Literal["s", "l"] = "s",
        seed: int | None = None, width: float | None = None, needed: str = inspect.Parameter.empty, *args, **kwargs,
    ): ...  # fmt: skip

    assert read_parameters(function, "f") == {
        "units": Parameter(100, int),
        "rate": Parameter(0.5, float),
        "deep": Parameter(True, bool),
        "kind": Parameter("mlp", str),
        "depth": Parameter(1, int),
        "size": Parameter("s", str, ("s", "l")),
        "seed": Parameter(None, int),
        "width": Parameter(None, float),
        "needed": Parameter(inspect.Parameter.empty, str),
    }


def test_annotations_that_only_type_checkers_know_do_not_hide_the_others():
    def function(units: int = 1) -> Decimal: ...

    assert read_parameters(function, "f") == {"units": Parameter(1, int)}


@pytest.mark.parametrize("function", [lambda a: 0, lambda a=None: 0, lambda a=(1, 2): 0])
def test_a_parameter_without_a_type_that_a_text_can_give_is_refused(function):
    with pytest.raises(WrongInput, match="parameter a of the model function has no type that --param can give"):
        read_parameters(function, "the model function")


def test_annotations_of_several_or_other_types_are_refused():
    def literal(a: Literal[1, "x"] = 1): ...

    def union(a: int | str = 1): ...

    def items(a: list[int] = []): ...  # noqa: B006

    for function in (literal, union, items):
        with pytest.raises(WrongInput, match="parameter a of f has no type"):
            read_parameters(function, "f")


def test_a_positional_parameter_is_refused():
    def function(a=1, /): ...

    with pytest.raises(WrongInput, match="parameter a of f can be given by position only"):
        read_parameters(function, "f")


def test_a_function_without_signature_is_refused():
    with pytest.raises(WrongInput, match="f has no signature that Python can read"):
        read_parameters(dict, "f")


@pytest.mark.parametrize(
    ("parameter", "text", "value"),
    [
        (Parameter(1, int), "-3", -3),
        (Parameter(1.0, float), "1e-3", 0.001),
        (Parameter(1.0, float), "2", 2.0),
        (Parameter(True, bool), "False", False),
        (Parameter(False, bool), "yes", True),
        (Parameter("a", str), "", ""),
        (Parameter("s", str, ("s", "l")), "l", "l"),
        (Parameter(1, int, (1, 2)), "2", 2),
    ],
)
def test_a_text_becomes_a_value_of_the_type(parameter, text, value):
    parsed = parameter.parse("p", text)
    assert parsed == value
    assert type(parsed) is parameter.type


@pytest.mark.parametrize(
    ("parameter", "text", "sentence"),
    [
        (Parameter(100, int), "many", "--param p=many: 'many' is not an integer; give p=100"),
        (Parameter(100, int), "1.5", "'1.5' is not an integer"),
        (Parameter(None, int), "x", "give p=1"),
        (Parameter(0.5, float), "half", "'half' is not a number; give p=0.5"),
        (Parameter(0.5, float), "nan", "'nan' is not a finite number"),
        (Parameter(True, bool), "maybe", "'maybe' is not true or false; give p=True"),
        (Parameter("mlp", str, ("mlp", "cnn")), "cn", "'cn' is not among mlp, cnn (did you mean 'cnn'?); give one"),
    ],
)
def test_a_text_of_another_type_is_refused_in_one_sentence(parameter, text, sentence):
    with pytest.raises(WrongInput) as caught:
        parameter.parse("p", text)
    assert sentence in str(caught.value)


def test_a_function_gets_its_own_parameters_only():
    every = {"units": Parameter(100, int), "kind": Parameter("mlp", str)}
    own = {"kind": every["kind"]}
    assert arguments(every, own, {"units": "5", "kind": "cnn"}) == {"kind": "cnn"}
    assert arguments(every, own, {}) == {}


def test_an_unknown_parameter_is_refused_with_the_nearest_and_the_list():
    every = {"hidden_units": Parameter(100, int), "kind": Parameter("mlp", str)}
    with pytest.raises(WrongInput) as caught:
        arguments(every, every, {"hiden_units": "5"})
    assert str(caught.value) == (
        "unknown --param hiden_units (did you mean 'hidden_units'?); this task has: hidden_units, kind"
    )
    with pytest.raises(WrongInput, match="unknown --param a; this task has: none"):
        arguments({}, {}, {"a": "1"})


def test_a_missing_parameter_is_asked_for():
    every = {"units": Parameter(inspect.Parameter.empty, int)}
    with pytest.raises(WrongInput, match="this task needs --param units; give units=1"):
        arguments(every, every, {})
    assert arguments(every, every, {"units": "3"}) == {"units": 3}
