"""The strategies that come with tfleet conform."""

from __future__ import annotations

import pytest

from tfleet.spec.job import JobSpec
from tfleet.strategies import Strategy, strategy
from tfleet.strategies.average import Average
from tfleet.strategies.bounded import Bounded
from tfleet.testing.strategies import StrategyConformance


class TestAsync(StrategyConformance):
    @pytest.fixture
    def strategy(self) -> Strategy:
        return strategy("async")


class TestSync(StrategyConformance):
    @pytest.fixture
    def strategy(self) -> Strategy:
        return strategy("sync")


class TestAverage(StrategyConformance):
    @pytest.fixture(params=[0, 1, 2])
    def strategy(self, request: pytest.FixtureRequest) -> Strategy:
        return Average(local_steps=request.param)


class TestBounded(StrategyConformance):
    @pytest.fixture(params=[0, 4])
    def strategy(self, request: pytest.FixtureRequest) -> Strategy:
        return Bounded(staleness=request.param)


def test_each_strategy_of_a_job_is_there() -> None:
    for name in JobSpec.json_schema()["properties"]["strategy"]["enum"]:
        assert strategy(name).name == name
