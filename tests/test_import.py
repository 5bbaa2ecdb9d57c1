"""``import xatmorep`` costs what ``import xarray`` costs, and public names resolve when used."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import xatmorep
from xatmorep.errors import XatmorepError

ROOT = Path(xatmorep.__file__).parents[1]


def run(code: str) -> str:
    """Standard output of Python code in a process of its own."""
    return subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, text=True, capture_output=True, check=True
    ).stdout


def test_nothing_is_imported_beyond_what_xarray_brings():
    code = (
        "import sys, xarray\n"
        "before = {*sys.modules, *sys.stdlib_module_names}\n"
        "import xatmorep\n"
        "print(*sorted({name.partition('.')[0] for name in set(sys.modules) - before}))\n"
        "print(*sorted(name for name in sys.modules if name.startswith('xatmorep')))\n"
    )
    roots, modules = run(code).splitlines()
    assert roots == "xatmorep"
    assert modules == "xatmorep xatmorep._version xatmorep.accessor"


def test_reading_catalogs_fields_and_models_takes_no_torch():
    """What a newcomer does first, before any model runs."""
    code = (
        "import sys, xatmorep\n"
        "ds = xatmorep.open_dataset('era5-sample')\n"
        "print(ds.atmorep.axes['time'], len(xatmorep.models()), 'torch' in sys.modules)\n"
    )
    time, models, torch = run(code).split()
    assert (time, torch) == ("time", "False")
    assert int(models) >= 1


@pytest.mark.parametrize("name", xatmorep.__all__)
def test_public_names_resolve_and_are_listed(name):
    assert getattr(xatmorep, name) is not None
    assert name in dir(xatmorep)


def test_every_lazy_name_is_public():
    eager = {"AtmorepAccessor", "__version__"}
    assert set(xatmorep._PLACES) | eager == set(xatmorep.__all__)
    assert xatmorep.__all__ == sorted(xatmorep.__all__)


def test_names_come_from_where_they_are_defined():
    from xatmorep.tasks.tokens import tokenize

    assert xatmorep.tokenize is tokenize
    assert issubclass(xatmorep.ConventionError, XatmorepError)


def test_a_star_import_brings_all_names():
    names: dict[str, object] = {}
    exec("from xatmorep import *", names)
    assert set(xatmorep.__all__) <= set(names)


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="module 'xatmorep' has no attribute 'embedd'"):
        getattr(xatmorep, "embedd")  # noqa: B009
    with pytest.raises(ImportError, match="cannot import name 'embedd' from 'xatmorep'"):
        exec("from xatmorep import embedd")


def test_rooms_that_users_name_in_full_are_there_without_importing_them():
    code = (
        "import sys, xatmorep\n"
        "print(*(name for name in xatmorep._SUBMODULES if f'xatmorep.{name}' in sys.modules))\n"
        "print(all(hasattr(xatmorep, name) for name in xatmorep._SUBMODULES))\n"
    )
    assert run(code).splitlines() == ["", "True"]
    assert set(xatmorep._SUBMODULES) <= set(dir(xatmorep))
