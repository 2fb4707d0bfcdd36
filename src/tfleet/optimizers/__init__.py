"""The optimizers of a parameter server, in NumPy: one file each, found by the registry below."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from collections.abc import Mapping
from functools import cache
from types import MappingProxyType

from tfleet.optimizers.base import Optimizer
from tfleet.optimizers.spec import OptimizerSpec
from tfleet.spec.errors import WrongInput, nearest

__all__ = ["Optimizer", "OptimizerSpec", "build", "registry"]


@cache
def registry() -> Mapping[str, type[Optimizer]]:
    """Returns every optimizer of this package under its name, in the order of the names."""
    found: dict[str, type[Optimizer]] = {}
    for info in pkgutil.iter_modules(__path__):
        module = importlib.import_module(f"{__name__}.{info.name}")
        for value in vars(module).values():
            if inspect.isclass(value) and issubclass(value, Optimizer) and not inspect.isabstract(value):
                found[value.name] = value
    return MappingProxyType(dict(sorted(found.items())))


def build(spec: OptimizerSpec) -> Optimizer:
    """Returns the optimizer that `spec` describes.

    Raises:
        WrongInput: when there is none of its name, or it does not have one of the hyperparameters.
    """
    kinds = registry()
    if spec.name not in kinds:
        raise WrongInput(f"unknown optimizer {spec.name}{nearest(spec.name, kinds)}; allowed: {', '.join(kinds)}")
    return kinds[spec.name](spec)
