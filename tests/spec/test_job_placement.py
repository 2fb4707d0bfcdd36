"""`ps_placement` in a job: as many ps as workers, given or not."""

from __future__ import annotations

import pytest

from tfleet.spec.errors import WrongInput
from tfleet.spec.job import JobSpec


@pytest.mark.parametrize(
    ("values", "workers", "ps"),
    [
        ({}, 2, 2),
        ({"workers": 5}, 5, 5),
        ({"workers": "5"}, 5, 5),
        ({"workers": 5, "ps": 5}, 5, 5),
        ({"workers": 1}, 1, 1),
    ],
)
def test_colocated_has_a_ps_for_each_worker(values, workers, ps):
    spec = JobSpec.parse({"task": "mnist", "ps_placement": "colocated", **values})
    assert (spec.workers, spec.ps) == (workers, ps)
    assert JobSpec.parse(spec.model_dump(mode="json")) == spec


@pytest.mark.parametrize("values", [{"ps": 3}, {"workers": 3, "ps": 2}])
def test_another_number_of_ps_is_refused(values):
    with pytest.raises(WrongInput, match=r"differ, but ps_placement=colocated.*give the same number of both"):
        JobSpec.parse({"ps_placement": "colocated", **values})


@pytest.mark.parametrize("workers", [0, "many", 300])
def test_a_wrong_number_of_workers_is_refused_as_ever(workers):
    with pytest.raises(WrongInput, match=r"given"):
        JobSpec.parse({"ps_placement": "colocated", "workers": workers})


def test_elsewhere_the_number_of_ps_is_the_default():
    assert JobSpec.parse({"workers": 5}).ps == 2
    assert JobSpec.parse({"workers": 5, "ps_placement": "own"}).ps == 2
