"""Comparing labelled data."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import xarray as xr

__all__ = ["assert_labelled_equal"]


def assert_labelled_equal(
    a: xr.Dataset | xr.DataArray, b: xr.Dataset | xr.DataArray, atol: float = 0.0
) -> None:
    """Check that two objects have equal labels, attributes and types, and nearly equal values.

    Parameters
    ----------
    a, b : xarray.Dataset or xarray.DataArray
        The objects; lazy ones are computed.
    atol : float
        Largest absolute difference of values (of coordinates none is allowed). NaN equals NaN.

    Raises
    ------
    AssertionError
        With the first difference.

    Examples
    --------
    >>> a = xr.DataArray([1.0, 2.0], {"x": [0, 1]}, name="t")
    >>> assert_labelled_equal(a, a + 1e-7, atol=1e-6)
    >>> assert_labelled_equal(a, a.rename(x="y"))
    Traceback (most recent call last):
    ...
    AssertionError: variables: ['t', 'x'] and ['t', 'y']
    """
    _same("kinds", type(a).__name__, type(b).__name__)
    first, second = _dataset(a), _dataset(b)
    _same("variables", sorted(map(str, first.variables)), sorted(map(str, second.variables)))
    _same("coordinates", sorted(map(str, first.coords)), sorted(map(str, second.coords)))
    _same_attributes("attributes", first.attrs, second.attrs)
    for name, variable in first.variables.items():
        other = second.variables[name]
        _same(f"dimensions of {name}", variable.dims, other.dims)
        _same(f"shape of {name}", variable.shape, other.shape)
        _same(f"type of {name}", variable.dtype, other.dtype)
        _same_attributes(f"attributes of {name}", variable.attrs, other.attrs)
        _same_values(str(name), variable, other, atol if name in first.data_vars else 0.0)


def _dataset(data: xr.Dataset | xr.DataArray) -> xr.Dataset:
    if isinstance(data, xr.DataArray):
        # The array of a coordinate can't be a variable beside it.
        name = "array" if data.name is None or data.name in data.coords else data.name
        return data.to_dataset(name=name)
    return data


def _same(what: str, a: Any, b: Any) -> None:
    if a != b:
        raise AssertionError(f"{what}: {a} and {b}")


def _same_attributes(what: str, a: Mapping[Any, Any], b: Mapping[Any, Any]) -> None:
    # xarray compares arrays and NaN among the attributes, which == doesn't.
    if not xr.Variable((), 0, a).identical(xr.Variable((), 0, b)):
        raise AssertionError(f"{what}: {dict(a)} and {dict(b)}")


def _same_values(name: str, a: xr.Variable, b: xr.Variable, atol: float) -> None:
    if a.dtype.kind not in "fc" or atol == 0:
        if not a.equals(b):
            different = (a != b).values & ~(a.isnull() & b.isnull()).values
            raise AssertionError(f"{name} differs at {int(different.sum())} of {a.size} places")
        return
    x, y = a.values, b.values
    if not np.array_equal(np.isnan(x), np.isnan(y)):
        raise AssertionError(f"{name} is NaN at different places")
    with np.errstate(invalid="ignore"):  # the same infinity on both sides differs by NaN
        difference = np.nan_to_num(abs(x - y))
    if difference.size and difference.max() > atol:
        place = np.unravel_index(difference.argmax(), difference.shape)
        where = dict(zip(a.dims, map(int, place), strict=True))
        raise AssertionError(f"{name} differs by {difference.max():g} (over {atol:g}) at {where}")
