"""Errors: which kind they are, how they travel, and the extra that is missing."""

from __future__ import annotations

import pickle
import sys

import pytest

from xatmorep import errors
from xatmorep.errors import MissingExtraError, XatmorepError, require

NAMES = [name for name in errors.__all__ if name != "XatmorepError"]


@pytest.mark.parametrize("name", NAMES)
def test_each_error_is_ours_and_one_that_python_knows(name):
    error = getattr(errors, name)
    assert issubclass(error, XatmorepError)
    assert issubclass(error, (ValueError, ImportError, ArithmeticError, KeyboardInterrupt))


@pytest.mark.parametrize("name", errors.__all__)
def test_errors_come_back_from_other_processes(name):
    error = pickle.loads(pickle.dumps(getattr(errors, name)("what to do")))
    assert type(error).__name__ == name
    assert str(error) == "what to do"


def test_an_optional_module_that_is_there_is_imported():
    assert require("xml.sax", extra="plot") is sys.modules["xml.sax"]


@pytest.mark.parametrize("module", ["no_such_package", "no_such_package.part"])
def test_a_missing_module_names_its_extra(module):
    with pytest.raises(MissingExtraError) as error:
        require(module, extra="plot")
    assert str(error.value) == (
        "'no_such_package' is not installed; it comes with: pip install 'xatmorep[plot]'"
    )
    assert isinstance(error.value.__cause__, ModuleNotFoundError)


def test_the_dependency_that_is_missing_is_named(tmp_path, monkeypatch):
    """A package may be there, and what it needs not."""
    (tmp_path / "half_installed.py").write_text("import no_such_package")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(MissingExtraError, match="'no_such_package' is not installed"):
        require("half_installed", extra="cmip6")


def test_a_module_that_is_broken_keeps_its_own_error(tmp_path, monkeypatch):
    (tmp_path / "broken_module.py").write_text("1 / 0")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ZeroDivisionError):
        require("broken_module", extra="plot")
