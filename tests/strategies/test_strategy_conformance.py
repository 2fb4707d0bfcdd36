"""The strategies that come with tfleet conform."""

from __future__ import annotations

import pytest

from tfleet.spec.job import JobSpec
from tfleet.strategies import Strategy, strategy
from tfleet.strategies.ledger import Ledger
from tfleet.testing.strategies import BATCHES, StrategyConformance


class TestAsync(StrategyConformance):
    @pytest.fixture
    def strategy(self) -> Strategy:
        return strategy("async")


class TestSync(StrategyConformance):
    @pytest.fixture
    def strategy(self) -> Strategy:
        return strategy("sync")


class TestBounded(StrategyConformance):
    @pytest.fixture
    def strategy(self) -> Strategy:
        return strategy("bounded")


class TestBoundedInLockStep(TestBounded):
    def ledger(self, strategy: Strategy, total: int = 0) -> Ledger:
        return strategy.ledger(BATCHES, total, 1, JobSpec(strategy="bounded", staleness=0))


def test_each_strategy_of_a_job_is_there() -> None:
    for name in JobSpec.json_schema()["properties"]["strategy"]["enum"]:
        assert strategy(name).name == name
