import gc
import importlib
import sys

from hindsight.quick_imports import quick_imports


def import_anew(name: str) -> None:
    sys.modules.pop(name, None)
    importlib.import_module(name)


def test_imports_are_made_without_garbage_collection_which_goes_on_behind_them():
    with quick_imports():
        import_anew("this")
        assert not gc.isenabled()
        with quick_imports():
            pass
        assert not gc.isenabled()
    assert gc.isenabled()


def test_what_is_imported_is_frozen_and_nothing_else_is_where_all_was_there(monkeypatch):
    frozen = []
    monkeypatch.setattr(gc, "freeze", lambda: frozen.append(len(sys.modules)))
    with quick_imports():
        import json  # noqa: F401 - has been imported
    assert frozen == []
    sys.modules.pop("this", None)
    with quick_imports():
        importlib.import_module("this")
    assert len(frozen) == 1


def test_an_import_that_fails_leaves_garbage_collection_as_it_was():
    try:
        with quick_imports():
            importlib.import_module("hindsight.no_such_module")
    except ModuleNotFoundError:
        pass
    assert gc.isenabled()
