"""Imports without garbage collection, and without packages that are only needed for plots."""

from __future__ import annotations

import gc
import importlib
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tfleet.spec.importing import quick_imports

NAMES = ("plots_of_a_test", "plots_of_a_test.curves", "plots_of_a_test.missing")


@pytest.fixture(autouse=True)
def plots(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A package with one module, not loaded yet."""
    package = tmp_path / NAMES[0]
    package.mkdir()
    (package / "__init__.py").write_text("colour = 'red'\n", encoding="utf-8")
    (package / "curves.py").write_text("def draw():\n    return 'a curve'\n", encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    yield
    for name in [n for n in sys.modules if n.partition(".")[0] == NAMES[0]]:
        del sys.modules[name]
    gc.unfreeze()


def test_modules_for_later_are_loaded_when_something_of_them_is_used():
    with quick_imports(NAMES):
        import plots_of_a_test.curves as curves
        from plots_of_a_test import curves as the_same

        assert not hasattr(sys.modules[NAMES[0]], "__file__")
    assert not [name for name in sys.modules if name.startswith(NAMES[0])]
    assert curves.draw() == the_same.draw() == "a curve"
    assert sys.modules[NAMES[1]].draw() == "a curve"


def test_what_is_used_at_once_is_loaded_at_once():
    with quick_imports(NAMES):
        from plots_of_a_test import colour

        assert sys.modules[NAMES[0]].__file__
    assert colour == "red"
    assert importlib.import_module(NAMES[1]).draw() == "a curve"


def test_what_is_loaded_already_stays_as_it_is():
    package = importlib.import_module(NAMES[0])
    with quick_imports(NAMES):
        curves = importlib.import_module(NAMES[1])
        assert sys.modules[NAMES[0]] is package
    assert sys.modules[NAMES[1]] is curves
    assert curves.__file__


def test_what_is_not_installed_is_not_there():
    with quick_imports(("no_such_package", "no_such_package.curves")), pytest.raises(ModuleNotFoundError):
        importlib.import_module("no_such_package.curves")


def test_a_module_that_does_not_exist_is_missed_when_it_is_used():
    with quick_imports(NAMES):
        missing = importlib.import_module(NAMES[2])
    with pytest.raises(ModuleNotFoundError, match="missing"):
        missing.anything()


@pytest.mark.parametrize("collected", [True, False])
def test_garbage_collection_rests_meanwhile_and_is_then_as_before(collected: bool):
    frozen = gc.get_freeze_count()
    if not collected:
        gc.disable()
    try:
        with pytest.raises(ModuleNotFoundError), quick_imports(NAMES):
            _import_what_fails()
        assert gc.isenabled() is collected
        assert gc.get_freeze_count() > frozen
    finally:
        gc.enable()


def _import_what_fails() -> None:
    assert not gc.isenabled()
    assert importlib.import_module(NAMES[0]).colour == "red"
    importlib.import_module(NAMES[2])


def test_nothing_is_kept_from_collection_where_nothing_was_imported():
    frozen = gc.get_freeze_count()
    with quick_imports(NAMES):
        pass
    assert gc.get_freeze_count() == frozen
