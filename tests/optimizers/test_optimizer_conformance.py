"""The shared conformance suite, for every optimizer of the registry and every variant of it."""

from __future__ import annotations

import pytest

from tfleet.optimizers import OptimizerSpec, build, registry
from tfleet.testing.optimizers import OptimizerConformance

VARIANTS = [
    *(OptimizerSpec(name, {}, decay) for name in registry() for decay in (0.0, 0.1)),
    OptimizerSpec("sgd", {"momentum": 0.9}),
    OptimizerSpec("sgd", {"momentum": 0.9, "nesterov": True}),
    OptimizerSpec("rmsprop", {"momentum": 0.9}),
    OptimizerSpec("rmsprop", {"centered": True, "momentum": 0.9}),
    OptimizerSpec("adam", {"amsgrad": True}),
    OptimizerSpec("adamw", {"amsgrad": True}, 0.004),
]


class TestOptimizers(OptimizerConformance):
    @pytest.fixture(params=VARIANTS, ids=str)
    def make(self, request):
        return lambda: build(request.param)
