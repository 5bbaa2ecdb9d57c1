"""Axes of a dataset: canonical order, the way back, and grids that are refused."""

from __future__ import annotations

import dask.array as da
import numpy as np
import pandas as pd
import pytest
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st

from xatmorep.data.axes import locate_axes
from xatmorep.data.grid import Axis, latitude_axis, level_axis, longitude_axis, take, time_axis
from xatmorep.errors import ConventionError


def longitudes(values: object, attrs: dict[str, str] | None = None) -> Axis:
    ds = xr.Dataset(coords={"lon": ("lon", np.asarray(values), attrs or {})})
    return longitude_axis(ds, locate_axes(ds)["longitude"][0])


def latitudes(values: object) -> Axis:
    ds = xr.Dataset(coords={"lat": np.asarray(values)})
    return latitude_axis(ds, locate_axes(ds)["latitude"][0])


def times(values: object) -> Axis:
    ds = xr.Dataset(coords={"time": values})
    return time_axis(ds, locate_axes(ds)["time"][0])


@st.composite
def stored_longitudes(draw: st.DrawFn) -> np.ndarray:
    """A regular longitude, global or not, in any range, from any start, in either direction."""
    step = draw(st.sampled_from([0.25, 1.0, 2.5, 30.0]))
    size = int(360 / step) if step == 30.0 and draw(st.booleans()) else draw(st.integers(2, 11))
    start = draw(st.integers(-720, 720)) * 0.25
    lowest = draw(st.sampled_from([0.0, -180.0, -90.0, 45.0, -360.0]))
    values = (start + step * np.arange(size) - lowest) % 360.0 + lowest
    values = np.roll(values, draw(st.integers(0, size - 1)))
    values = values[::-1] if draw(st.booleans()) else values
    return np.asarray(values.astype(draw(st.sampled_from(["float32", "float64"]))))


@given(stored_longitudes())
def test_longitude_is_put_in_order_and_back(stored: np.ndarray) -> None:
    axis = longitudes(stored)
    values = axis.index.to_numpy()
    assert axis.order is not None
    assert np.all(np.diff(values) > 0)
    assert 0 <= values[0] < 360
    assert values[-1] - values[0] < 360
    np.testing.assert_allclose((values - stored[axis.order]) % 360.0 % 359.999, 0, atol=1e-3)
    # The edge is the widest gap: no other start would make the steps equal.
    if len(stored) > 2:
        np.testing.assert_allclose(np.diff(values), np.diff(values)[0], rtol=1e-3)
    assert axis.is_global == (len(stored) * np.diff(values)[0] > 359.9)
    if axis.is_global:
        assert values[0] < np.diff(values)[0]
    back = axis.restore(axis.index)
    assert back.coordinate.identical(xr.IndexVariable("lon", stored))
    assert back.sorting is not None
    np.testing.assert_array_equal(values[back.sorting], values[np.argsort(axis.order)])


@given(stored_longitudes(), st.integers(1, 3))
def test_token_centers_of_longitude_fall_into_the_range_of_the_dataset(
    stored: np.ndarray, token: int
) -> None:
    axis = longitudes(stored)
    values = axis.index.to_numpy()
    if len(values) < 2 * token:
        return
    starts = np.unique([*range(0, len(values) - token + 1, token), len(values) - token])
    centers = (values[starts] + values[starts + token - 1]) / 2
    back = axis.restore(pd.Index(centers))
    restored = back.coordinate.values.astype("float64")
    sorting = np.arange(len(centers)) if back.sorting is None else back.sorting
    np.testing.assert_allclose((restored - centers[sorting] + 180) % 360 - 180, 0, atol=1e-3)
    assert restored.dtype.kind == "f"
    assert back.coordinate.dtype == stored.dtype
    step = np.diff(values)[0]
    assert np.all(restored >= stored.min() - step / 2 - 1e-3)
    assert np.all(restored < stored.min() - step / 2 + 360)
    if back.places is None:
        steps = np.diff(restored)
        assert np.all(steps < 0) if axis.descending else np.all(steps > 0)


@pytest.mark.parametrize(
    ("stored", "canonical", "is_global"),
    [
        ([0, 90, 180, 270], [0, 90, 180, 270], True),
        ([-180, -90, 0, 90], [0, 90, 180, 270], True),
        ([180, 270, 0, 90], [0, 90, 180, 270], True),
        ([270, 180, 90, 0], [0, 90, 180, 270], True),
        ([45, 135, 225, 315], [45, 135, 225, 315], True),
        ([359.99999, 89.99999, 180, 270], [0, 89.99999, 180, 270], True),
        ([-10, 0, 10], [350, 360, 370], False),
        ([350, 0, 10], [350, 360, 370], False),
        ([0, 10, 350], [350, 360, 370], False),
        ([10, 0, -10], [350, 360, 370], False),
        ([170, 180, -170], [170, 180, 190], False),
        ([-170, 170, 180], [170, 180, 190], False),
        ([170, 180, 190], [170, 180, 190], False),
        ([0, 0.33, 0.67, 1.0], [0, 0.33, 0.67, 1.0], False),
        ([-10, 350 - 355], [350, 355], False),
        ([-30], [330], False),
        ([0, 180], [0, 180], True),
        (list(range(1, 360)), list(range(1, 360)), False),
    ],
)
def test_longitudes_in_canonical_order(
    stored: list[float], canonical: list[float], is_global: bool
) -> None:
    axis = longitudes(np.array(stored, dtype="float64"))
    np.testing.assert_allclose(axis.index, canonical, atol=1e-9)
    assert axis.is_global == is_global
    assert axis.restore(axis.index).coordinate.values.tolist() == stored


def test_a_token_that_straddles_the_first_longitude() -> None:
    axis = longitudes(np.arange(-180.0, 180.0, 1.0).astype("f4"))
    # Tokens of three points from Greenwich; that of 179, 180 and 181 has its center at 180.
    centers = pd.Index(np.arange(1.0, 360.0, 3.0) + 0.5)
    back = axis.restore(centers).coordinate
    assert back.dtype == "float32"
    assert back.values[0] == -178.5
    assert back.values[-1] == 178.5
    assert np.all(np.diff(back.values) == 3)
    # Half a step before the first longitude is the edge of the range, noise or not.
    for noise in (0.0, 1e-12, -1e-12):
        edge = axis.restore(pd.Index([90.0, 179.5 + noise, 200.5])).coordinate.values
        assert edge.tolist() == [-180.5, -159.5, 90.0]


def test_two_points_have_a_direction_too() -> None:
    assert [longitudes([10.0, 20.0]).descending, longitudes([20.0, 10.0]).descending] == [0, 1]
    assert [latitudes([10.0, 20.0]).descending, latitudes([20.0, 10.0]).descending] == [1, 0]


def test_whole_degrees_become_float_only_where_they_must() -> None:
    axis = longitudes(np.arange(0, 360, 90))
    assert axis.restore(pd.Index([0.0, 180.0])).coordinate.dtype == "int64"
    assert axis.restore(pd.Index([45.0, 225.0])).coordinate.dtype == "int64"
    assert axis.restore(pd.Index([45.5, 225.5])).coordinate.dtype == "float64"


@pytest.mark.parametrize(
    ("stored", "words"),
    [
        ([0, 120, 240, 360], "one meridian twice, as 0 and 360 .*cyclic.*drop_isel.*'lon': .3."),
        ([-180, -90, 0, 90, 180], "one meridian twice, as -180 and 180"),
        ([0, 120, 240, 359.99999], "one meridian twice, as 0 and 360"),
        ([0, 1, 1, 2], "repeats 1 at positions 1 and 2.*drop_duplicates"),
        ([0, 1, 2, 4, 5], "irregular: from 2 to 4 it steps by 2 degrees instead of 1.*interp"),
        ([350, 355, 0, 5, 11], "irregular: from 5 to 11"),
        ([0, 2, 1, 3], "not in order: .* at position .*sortby"),
        ([], "empty or has missing values"),
        ([0, np.nan, 2], "empty or has missing values"),
    ],
)
def test_longitudes_that_are_refused(stored: list[float], words: str) -> None:
    with pytest.raises(ConventionError, match=words):
        longitudes(np.array(stored, dtype="float64"))


def test_degrees_are_asked_for() -> None:
    with pytest.raises(ConventionError, match="longitude 'lon' has units 'radians', not degrees"):
        longitudes([0.0, 0.1], {"units": "radians", "standard_name": "longitude"})


GAUSSIAN = np.rad2deg(np.arcsin(np.polynomial.legendre.leggauss(8)[0]))


@pytest.mark.parametrize(
    "stored", [[90.0, 0.0, -90.0], [-90, 0, 90], GAUSSIAN, GAUSSIAN.astype("f4")[::-1], [45.0]]
)
def test_latitude_is_put_from_north_to_south_and_back(stored: object) -> None:
    axis = latitudes(stored)
    assert np.all(np.diff(axis.index) < 0)
    assert axis.index.dtype == "float64"
    back = axis.restore(axis.index).coordinate
    assert back.identical(xr.IndexVariable("lat", np.asarray(stored)))
    part = axis.restore(axis.index[:1]).coordinate
    assert part.values[0] == np.max(stored)
    if len(axis.index) > 2:
        centers = (axis.index[:-1].to_numpy() + axis.index[1:].to_numpy()) / 2
        ascending = np.asarray(stored)[1] > np.asarray(stored)[0]
        steps = np.diff(axis.restore(pd.Index(centers)).coordinate.values)
        assert np.all(steps > 0) if ascending else np.all(steps < 0)


@pytest.mark.parametrize(
    ("stored", "words"),
    [
        ([90.0, 0.0, 45.0], "neither ascending nor descending: 45 comes after 0 at position 2"),
        ([0.0, 0.0, 1.0], "neither ascending nor descending: 0 comes after 0 at position 1"),
        ([0.0, 100.0], "reaches from 0 to 100, which is no latitude"),
        ([np.nan, 1.0], "missing values"),
    ],
)
def test_latitudes_that_are_refused(stored: list[float], words: str) -> None:
    with pytest.raises(ConventionError, match=words):
        latitudes(stored)


def test_time_keeps_its_dtype() -> None:
    dates = np.array(["2001-01-01T00", "2001-01-01T06"], dtype="M8[s]")
    axis = times(dates)
    middle = pd.DatetimeIndex(np.array(["2001-01-01T03:00"], dtype="M8[ns]"))
    assert axis.restore(middle).coordinate.dtype == "M8[s]"
    own = axis.restore(pd.DatetimeIndex(dates.astype("M8[us]")[1:]))
    assert own.places is not None
    assert own.coordinate.values.tolist() == dates[1:].tolist()


def test_cftime_keeps_its_calendar() -> None:
    dates = xr.date_range("2001-02-28", periods=3, freq="D", calendar="noleap", use_cftime=True)
    axis = times(dates)
    middle = dates[:2].shift(12, "h")
    assert axis.restore(middle).coordinate.to_index().calendar == "noleap"
    assert axis.restore(dates[1:]).places is not None


@pytest.mark.parametrize(
    ("dates", "words"),
    [
        (["2001-01-02", "2001-01-01"], "not strictly increasing: 2001-01-01 00:00:00 comes after"),
        (["2001-01-01", "2001-01-02", "2001-01-02"], "at position 2; sort.*drop_duplicates"),
        (["2001-01-01", "NaT", "2001-01-02"], "not strictly increasing: NaT comes after"),
    ],
)
def test_times_that_are_refused(dates: list[str], words: str) -> None:
    with pytest.raises(ConventionError, match=words):
        times(np.array(dates, dtype="M8[s]"))


def test_cftime_out_of_order_is_refused() -> None:
    dates = xr.date_range("2001-02-28", periods=3, freq="D", calendar="noleap", use_cftime=True)
    with pytest.raises(ConventionError, match="2001-02-28 00:00:00 comes after 2001-03-02"):
        times(dates[[1, 2, 0]])


def test_levels_are_picked_and_come_back_in_the_order_of_the_dataset() -> None:
    stored = np.array([1e5, 8.5e4, 5e4, 2.5e4], dtype="f4")
    ds = xr.Dataset(coords={"plev": ("plev", stored, {"units": "Pa", "positive": "down"})})
    axis = level_axis(ds, locate_axes(ds)["level"][0], (250.0, 850.0))
    assert axis.order is not None
    assert axis.order.tolist() == [3, 1]
    back = axis.restore(axis.index)
    assert back.coordinate.identical(ds["plev"].variable[[1, 3]])
    assert back.sorting is not None
    assert back.sorting.tolist() == [1, 0]
    assert axis.restore(pd.Index([550.0])).coordinate.values.tolist() == [5.5e4]


@given(st.integers(1, 9), st.data())
def test_take_is_indexing(size: int, data: st.DataObject) -> None:
    array = np.random.default_rng(0).normal(size=(2, size))
    rolled = np.roll(np.arange(size), data.draw(st.integers(0, size - 1)))
    order = data.draw(
        st.sampled_from([rolled, rolled[::-1], np.arange(size)[: size // 2 + 1]])
        | st.permutations(range(size)).map(np.array)
    )
    for holder in (array, da.from_array(array, chunks=(1, 2))):
        taken = take(xr.Variable(("a", "b"), holder), "b", order)
        np.testing.assert_array_equal(taken.values, array[:, order])


def test_rolling_and_flipping_keep_chunks() -> None:
    variable = xr.Variable("x", da.zeros(8, chunks=4))
    assert take(variable, "x", np.array([4, 5, 6, 7, 0, 1, 2, 3])).chunks == ((4, 4),)
    assert take(variable, "x", np.arange(8)[::-1]).chunks == ((4, 4),)
    assert take(variable, "x", np.arange(8)) is variable
    assert take(variable, "x", None) is variable
