"""Every field of the job has one short name."""

import pytest

from tfleet.api.names import Name, names, nest, parse
from tfleet.spec.errors import WrongInput
from tfleet.spec.job import JobSpec


def leaves(values, path=()):
    for key, value in values.items():
        if isinstance(value, dict) and (*path, key) != ("params",):
            yield from leaves(value, (*path, key))
        else:
            yield (*path, key)


def test_every_leaf_has_a_name():
    fields = set(leaves(JobSpec().model_dump())) - {("task",), ("params",)}
    assert {name.path for name in names().values()} == fields


def test_names_say_what_they_are():
    assert names()["eval_every"].path == ("evaluation", "every_steps")
    assert names()["keep"].path == ("checkpoint", "keep")
    assert names()["summary_every"].flag == "--summary-every"
    assert names()["summary_histograms"].dotted == "summary.histograms"


def test_nest_puts_values_into_their_sections():
    assert nest({"workers": 3, "keep": 1, "checkpoint_every_steps": 5}) == {
        "workers": 3,
        "checkpoint": {"keep": 1, "every_steps": 5},
    }


def test_unknown_keyword_gets_the_nearest():
    with pytest.raises(WrongInput, match=r"unknown keyword worker \(did you mean 'workers'\?\); allowed: workers, ps"):
        nest({"worker": 3})


def test_wrong_value_is_named_as_its_user_wrote_it():
    values = {"evaluation": {"every_steps": "often"}}
    with pytest.raises(WrongInput, match=r"^--eval-every: given 'often', but .* integer.*; change --eval-every$"):
        parse(values, ["eval_every"], lambda name: name.flag)
    with pytest.raises(WrongInput, match=r"^eval_every: given 'often'.*; change eval_every$"):
        parse(values, ["eval_every"], lambda name: name.keyword)
    with pytest.raises(WrongInput, match=r"^evaluation\.every_steps: .* in the job file or its flag$"):
        parse(values, [], Name.flag.fget)
