"""Conformance suite for backends: a test class of yours derives from it and says which backend it tests."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tfleet.backends.base import Backend, Plan
from tfleet.spec.errors import WrongInput
from tfleet.spec.job import JobSpec

HONOURED: tuple[dict[str, Any], ...] = (
    {"workers": 3},
    {"ps": 3},
    {"threads": 2},
    {"evaluation": {"evaluator": True}},
)
"""Fields that say what is started: a backend starts something else for each, or refuses it."""


class BackendConformance:
    """What every backend does. Derive a class named `Test...` and give it `backend`."""

    inapplicable: tuple[dict[str, Any], ...] = ()
    """Fields that mean nothing to this backend, each set to something: they are refused by name."""

    def backend(self) -> Backend:
        """Returns the backend under test."""
        raise NotImplementedError

    def spec(self, **values: Any) -> JobSpec:
        """Returns the job that the tests plan, with `values` changed; override where the backend needs more."""
        return JobSpec.parse({"task": "mnist", **values})

    def run_dir(self, tmp_path: Path) -> Path:
        """Returns a run directory that the backend accepts; override where it is not a folder of this machine."""
        return tmp_path / "run"

    def started(self, plan: Plan) -> Any:
        """Returns what a plan starts; override where replicas read a part of their job from what is beside them."""
        return plan.replicas

    def test_a_plan_has_the_same_bytes_twice(self, tmp_path: Path) -> None:
        """Same arguments, same plan, from two backends too."""
        plans = [self.backend().plan(self.spec(), self.run_dir(tmp_path)) for _ in range(2)]
        assert json.dumps(plans[0].to_json()) == json.dumps(plans[1].to_json())
        assert plans[0].text() == plans[1].text()

    def test_a_plan_touches_nothing(self, tmp_path: Path) -> None:
        """A dry run leaves the disk as it was."""
        self.backend().plan(self.spec(), self.run_dir(tmp_path))
        assert list(tmp_path.iterdir()) == []

    def test_a_plan_has_each_replica_once(self, tmp_path: Path) -> None:
        """As many of each role as the job says, numbered from 0."""
        plan = self.backend().plan(self.spec(workers=3, ps=2), self.run_dir(tmp_path))
        names = sorted((r.role, r.index) for r in plan.replicas)
        assert names == [("ps", 0), ("ps", 1), ("worker", 0), ("worker", 1), ("worker", 2)]

    @pytest.mark.parametrize("values", HONOURED, ids=str)
    def test_a_field_is_honoured_or_refused(self, tmp_path: Path, values: dict[str, Any]) -> None:
        """Nothing is silently ignored."""
        before, refusal = self.started(self.backend().plan(self.spec(), self.run_dir(tmp_path))), ""
        after = before
        try:
            after = self.started(self.backend().plan(self.spec(**values), self.run_dir(tmp_path)))
        except WrongInput as error:
            refusal = str(error)
        assert after != before or next(iter(values)) in refusal

    def test_resuming_starts_something_else(self, tmp_path: Path) -> None:
        """`--resume` reaches the replicas."""
        plans = [self.backend().plan(self.spec(), self.run_dir(tmp_path), resume) for resume in (False, True)]
        assert plans[0].replicas != plans[1].replicas
        assert [p.resume for p in plans] == [False, True]

    def test_a_plan_tells_the_whole_job(self, tmp_path: Path) -> None:
        """The resolved job can be read back from the plan."""
        plan: Plan = self.backend().plan(self.spec(seed=7), self.run_dir(tmp_path))
        assert JobSpec.parse(plan.to_json()["job"]) == self.spec(seed=7)

    def test_a_plan_names_the_job(self, tmp_path: Path) -> None:
        """The handle is known before anything is started, and the run directory is the one asked for."""
        plan = self.backend().plan(self.spec(), self.run_dir(tmp_path))
        assert plan.handle
        assert plan.run_dir == self.run_dir(tmp_path)

    def test_no_secret_is_in_the_environment_of_a_replica(self, tmp_path: Path) -> None:
        """The token is in a file that is named; whoever may see the plan may not join the job."""
        for replica in self.backend().plan(self.spec(), self.run_dir(tmp_path)).replicas:
            assert [name for name in replica.env if "TOKEN" in name.upper()] in ([], ["TFLEET_TOKEN_FILE"])

    def test_what_cannot_be_honoured_is_refused_by_name(self, tmp_path: Path) -> None:
        """A field that means nothing here is not silently ignored."""
        for values in self.inapplicable:
            with pytest.raises(WrongInput, match=next(iter(values))):
                self.backend().plan(self.spec(**values), self.run_dir(tmp_path))
