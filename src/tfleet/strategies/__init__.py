"""How updates meet: one file a strategy, with its ledger, its rule for partitions, its exchange for workers."""

from __future__ import annotations

import importlib
import pkgutil
from functools import cache

from tfleet.strategies.base import Strategy

__all__ = ["Strategy", "strategy"]


@cache
def _registry() -> dict[str, Strategy]:
    for module in pkgutil.iter_modules(__path__):
        importlib.import_module(f"{__name__}.{module.name}")
    return {kind.name: kind() for kind in Strategy.__subclasses__()}


def strategy(name: str) -> Strategy:
    """Returns the strategy of this name; `JobSpec.strategy` admits those only that there are."""
    return _registry()[name]
