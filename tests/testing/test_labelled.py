"""The comparer: it finds every difference, names the first, and no others."""

from __future__ import annotations

from collections.abc import Callable

import cftime
import numpy as np
import pytest
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st

from tests.strategies import Presentation, canonical_dataset, present, presentations
from xatmorep.testing import assert_labelled_equal


def base() -> xr.Dataset:
    values = np.arange(6.0).reshape(2, 3)
    values[0, 1] = np.nan
    return xr.Dataset(
        {
            "t": (("x", "y"), values, {"units": "K", "valid_range": np.array([0, 9])}),
            "hidden": (("x", "y"), values > 2),
            "name": ("x", ["a", "b"]),
        },
        {
            "x": ("x", np.array(["2020-01-01", "2020-01-02"], "M8[s]"), {"axis": "T"}),
            "y": [10.0, 20.0, 30.0],
            "date": ("x", [cftime.DatetimeNoLeap(2020, 1, day) for day in (1, 2)]),
            "scalar": 1.0,
        },
        {"title": "base", "missing": np.nan},
    )


def with_value(ds: xr.Dataset, value: float) -> xr.Dataset:
    ds["t"][1, 2] = value
    return ds


def later(times: xr.DataArray) -> xr.DataArray:
    return (times + np.timedelta64(1, "s")).assign_attrs(times.attrs)


CHANGES: list[tuple[Callable[[xr.Dataset], xr.Dataset], str]] = [
    (lambda ds: ds.rename(t="u"), "variables: ['date', 'hidden', 'name', 'scalar', 't', 'x', 'y']"),
    (lambda ds: ds.drop_vars("y"), "variables: "),
    (lambda ds: ds.reset_coords("scalar"), "coordinates: ['date', 'scalar', 'x', 'y'] and"),
    (lambda ds: ds.assign_attrs(title="other"), "attributes: {'title': 'base'"),
    (lambda ds: ds.assign(t=ds["t"].T), "dimensions of t: ('x', 'y') and ('y', 'x')"),
    (lambda ds: ds.isel(y=slice(0, 2)), "shape of t: (2, 3) and (2, 2)"),
    (lambda ds: ds.assign(t=ds["t"].astype("f4")), "type of t: float64 and float32"),
    (lambda ds: ds.assign(t=ds["t"].assign_attrs(units="C")), "attributes of t: {'units': 'K'"),
    (
        lambda ds: ds.assign(t=ds["t"].assign_attrs(valid_range=np.array([0, 8]))),
        "attributes of t: ",
    ),
    (lambda ds: with_value(ds, 7.5), "t differs"),
    (lambda ds: with_value(ds, np.nan), "t "),
    (lambda ds: ds.assign(hidden=~ds["hidden"]), "hidden differs at 6 of 6 places"),
    (lambda ds: ds.assign(name=("x", ["a", "c"])), "name differs at 1 of 2 places"),
    (lambda ds: ds.assign_coords(y=[10.0, 20.0, 30.5]), "y differs at 1 of 3 places"),
    (lambda ds: ds.assign_coords(date=ds["date"][::-1].variable), "date differs at 2 of 2 places"),
    (lambda ds: ds.assign_coords(scalar=2.0), "scalar differs at 1 of 1 places"),
    (lambda ds: ds.assign_coords(x=later(ds["x"])), "x differs at 2 of 2 places"),
    (lambda ds: ds.assign_coords(x=ds["x"].astype("M8[ns]")), "type of x: datetime64[s] and dat"),
]


@pytest.mark.parametrize("atol", [0.0, 0.1])
def test_a_copy_is_equal(atol):
    assert_labelled_equal(base(), base(), atol)
    assert_labelled_equal(base().chunk(), base(), atol)
    for name in base().variables:
        assert_labelled_equal(base()[name], base()[name], atol)


@pytest.mark.parametrize("atol", [0.0, 0.1])
@pytest.mark.parametrize(("change", "message"), CHANGES)
def test_every_difference_is_named(change, message, atol):
    changed = change(base())
    for first, second in ((base(), changed), (changed, base())):
        with pytest.raises(AssertionError) as error:
            assert_labelled_equal(first, second, atol)
    with pytest.raises(AssertionError) as error:
        assert_labelled_equal(base(), changed, atol)
    assert str(error.value).startswith(message)


def test_a_dataset_is_no_array():
    array = base()["t"]
    with pytest.raises(AssertionError, match="kinds: DataArray and Dataset"):
        assert_labelled_equal(array, array.to_dataset())
    with pytest.raises(AssertionError, match=r"variables: .*'t'.* and .*'u'"):
        assert_labelled_equal(array, array.rename("u"))


def test_arrays_without_a_name():
    array = xr.DataArray([1.0, 2.0])
    assert_labelled_equal(array, array.copy())
    with pytest.raises(AssertionError, match="array differs at 1 of 2 places"):
        assert_labelled_equal(array, xr.DataArray([1.0, 3.0]))


def test_the_largest_difference_is_located():
    ds = base()
    other = ds.copy(deep=True)
    other["t"][1, 2] += 0.25
    other["t"][1, 1] += 0.125
    assert_labelled_equal(ds, other, atol=0.25)
    with pytest.raises(AssertionError) as error:
        assert_labelled_equal(ds, other, atol=0.2)
    assert str(error.value) == "t differs by 0.25 (over 0.2) at {'x': 1, 'y': 2}"


def test_a_tolerance_is_for_values_only():
    ds = base()
    moved = ds.assign_coords(y=ds["y"] + 1e-9)
    with pytest.raises(AssertionError, match="y differs at 3 of 3 places"):
        assert_labelled_equal(ds, moved, atol=1.0)


def test_nan_is_found_where_it_is():
    ds = base()
    with pytest.raises(AssertionError, match="t is NaN at different places"):
        assert_labelled_equal(ds, ds.assign(t=ds["t"].fillna(5.0)), atol=100.0)
    # Places where both are NaN don't count as different.
    with pytest.raises(AssertionError, match="t differs at 5 of 6 places"):
        assert_labelled_equal(ds, ds.assign(t=(ds["t"] + 1).assign_attrs(ds["t"].attrs)))


def test_infinities():
    array = xr.DataArray([np.inf, -np.inf, 1.0])
    assert_labelled_equal(array, array, atol=1e-6)
    with pytest.raises(AssertionError, match=r"differs by .* at {'dim_0': 1}"):
        assert_labelled_equal(array, xr.DataArray([np.inf, np.inf, 1.0]), atol=1e-6)


@pytest.mark.parametrize("shape", [(), (0,), (3, 0, 2)])
def test_scalars_and_nothing(shape):
    array = xr.DataArray(np.zeros(shape))
    assert_labelled_equal(array, array + 1e-7, atol=1e-6)
    if not shape:
        with pytest.raises(AssertionError, match=r"differs by 1 \(over 0.5\) at {}"):
            assert_labelled_equal(array, array + 1, atol=0.5)


@given(presentations(), st.floats(0, 1))
def test_any_dataset_equals_itself(how: Presentation, atol: float):
    ds = present(canonical_dataset(), how)
    assert_labelled_equal(ds, ds.copy(deep=True), atol)
