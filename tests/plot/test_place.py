"""Values, cells and labels of a map."""

from __future__ import annotations

from typing import Any

import cftime
import numpy as np
import pytest
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st

from xatmorep.errors import ConventionError
from xatmorep.plot.place import Place, full_label, name_of, when


def field(latitude: Any, longitude: Any, **attrs: str) -> xr.DataArray:
    """Values that tell where they are: 1000 * latitude + longitude modulo 360."""
    latitude, longitude = np.asarray(latitude, float), np.asarray(longitude, float)
    values = 1000 * latitude[:, None] + longitude % 360
    coords = {"latitude": latitude, "longitude": longitude}
    return xr.DataArray(values, coords, ("latitude", "longitude"), "field", attrs)


def assert_in_place(place: Place) -> None:
    """Check that edges increase and every value lies in its cell."""
    assert (np.diff(place.lon_edges) > 0).all()
    middle_lat = (place.lat_edges[1:] + place.lat_edges[:-1]) / 2
    middle_lon = (place.lon_edges[1:] + place.lon_edges[:-1]) / 2
    latitude, longitude = np.divmod(place.values + 90_000, 1000)
    # Cells at the poles are cut in half.
    assert (np.abs(latitude - 90 - middle_lat[:, None]) < 3).all()
    gap = (longitude - middle_lon + 180) % 360 - 180
    assert (np.abs(gap) < 1e-6).all()


@given(
    start=st.integers(-200, 360),
    size=st.integers(2, 30),
    roll=st.integers(0, 29),
    low=st.sampled_from([-180, 0, 100]),
    up=st.booleans(),
    turned=st.booleans(),
)
def test_regions_are_joined_wherever_they_lie_and_however_they_are_stored(
    start: int, size: int, roll: int, low: int, up: bool, turned: bool
) -> None:
    longitude = np.roll((start + 10.0 * np.arange(size) - low) % 360 + low, roll)
    latitude = np.arange(-20.0, 31, 10)[:: 1 if up else -1]
    array = field(latitude, longitude)
    place = Place.of(array.transpose() if turned else array)
    assert place.width == pytest.approx(10 * size)
    assert_in_place(place)


def test_globe_keeps_its_range() -> None:
    latitude = np.linspace(90, -90, 19)
    for west in (-180.0, 0.0):
        place = Place.of(field(latitude, west + np.arange(0.0, 360, 30)))
        assert_in_place(place)
        assert place.lon_edges[0] == west - 15
        assert (place.lat_edges[0], place.lat_edges[-1]) == (90, -90)
        assert place.aspect == 1.0


def test_region_of_middle_latitudes_keeps_its_shape() -> None:
    place = Place.of(field([62.0, 60.0, 58.0], [10.0, 12.0, 14.0]))
    assert place.aspect == pytest.approx(2.0)
    assert place.height == pytest.approx(12.0)
    assert place.width == pytest.approx(6.0)


def test_single_point_and_rounded_coordinates() -> None:
    place = Place.of(field([10.0], [20.0]))
    np.testing.assert_array_equal(place.lon_edges, [19.5, 20.5])
    third = Place.of(field([0.0, 1.0], np.arange(350, 380, 1 / 3).astype("f4").astype(float) % 360))
    assert (np.diff(third.lon_edges) > 0).all()
    assert third.width == pytest.approx(30, abs=1e-3)


def test_other_names_and_dimensions_of_size_one() -> None:
    array = field([1.0, 0.0], [0.0, 1.0]).rename(latitude="lat", longitude="lon")
    place = Place.of(array.expand_dims(time=1, member=1))
    np.testing.assert_array_equal(place.values, array)
    with pytest.raises(ConventionError, match=r"select along \['member'\], for.*isel\(member=0\)"):
        Place.of(array.expand_dims(member=2))
    with pytest.raises(ConventionError, match=r"needs latitude and longitude: .*{'lon': 2}"):
        Place.of(array[0])


@pytest.mark.parametrize(
    ("units", "label"),
    [
        ("K", "field [K]"),
        ("m s-1", "field [m s$^{-1}$]"),
        ("m s**-1", "field [m s$^{-1}$]"),
        ("m2 s-2", "field [m$^{2}$ s$^{-2}$]"),
        ("kg/m^2", "field [kg/m$^{2}$]"),
        ("1", "field"),
        ("", "field"),
    ],
)
def test_label_says_the_units(units: str, label: str) -> None:
    assert full_label(field([0.0, 1.0], [0.0, 1.0], units=units)) == label


def test_names_and_times() -> None:
    array = field([0.0, 1.0], [0.0, 1.0])
    assert name_of(array.rename(None)) == ""
    assert name_of(array.assign_attrs(long_name="long")) == "long"
    assert when(array) == ""
    array = array.assign_coords(time=np.datetime64("2020-02-03T04:05"), level=500.0)
    array["level"].attrs["units"] = "hPa"
    assert when(array) == "500 hPa, 2020-02-03 04:05"
    april = cftime.datetime(2001, 2, 30, 6, calendar="360_day")
    assert when(array.drop_vars("level").assign_coords(time=april)) == "2001-02-30 06:00"
