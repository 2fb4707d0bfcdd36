"""Imports of large packages in less time: TensorFlow and Keras together 1.8 s instead of 2.5 s (2 cores, both workers).

Two things make such an import slow that nobody needs. An import makes hundreds of thousands of objects that all stay,
and the garbage collector looks through them again and again. And Keras imports packages for plots, where they are
installed, though a replica plots nothing.
"""

from __future__ import annotations

import gc
import importlib
import importlib.util
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import ModuleType
from typing import Any

PLOTS = ("matplotlib", "matplotlib.pyplot", "matplotlib.patches", "IPython")
"""What Keras imports for plots and notebooks only; each package before its modules."""


@contextmanager
def quick_imports(later: Sequence[str] = ()) -> Iterator[None]:
    """Imports within the block go without garbage collection, and without the modules `later`.

    Whoever imports one of `later` in the block gets a stand-in, which loads the module when something of it is first
    used. After the block the names mean the real modules again. Those that are not installed, or that are loaded
    already, are left as they are.

    What is there after the block is taken out of all later collections (`gc.freeze`): it stays anyway, and each of
    them, also those that packages ask for, would go through it for a quarter of a second.
    """
    collected, loaded = gc.isenabled(), len(sys.modules)
    gc.disable()
    stand_ins = _put_in(later)
    try:
        yield
    finally:
        _take_out(stand_ins)
        if len(sys.modules) > loaded:
            gc.freeze()
        if collected:
            gc.enable()


class _StandIn(ModuleType):
    """A module that is imported when something of it is first used."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):  # asked for by the import system, which is satisfied without
            raise AttributeError(name)
        _take_out([m for m in list(sys.modules.values()) if isinstance(m, _StandIn)])
        return getattr(importlib.import_module(self.__name__), name)


def _put_in(names: Sequence[str]) -> list[_StandIn]:
    made: dict[str, _StandIn] = {}
    for name in names:
        package, _, last = name.rpartition(".")
        if name in sys.modules or (package and package not in made):
            continue
        spec = None if package else importlib.util.find_spec(name)
        if not package and spec is None:
            continue
        module = made[name] = _StandIn(name)
        module.__spec__ = spec
        sys.modules[name] = module
        if package:
            setattr(made[package], last, module)
    return list(made.values())


def _take_out(modules: Sequence[ModuleType]) -> None:
    for module in modules:
        if sys.modules.get(module.__name__) is module:
            del sys.modules[module.__name__]
