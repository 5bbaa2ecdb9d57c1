"""Axes: by attributes, by guess, by name, or refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
import xarray as xr

from xatmorep.data.axes import bounds_names, find_axes, level_values, locate_axes
from xatmorep.errors import ConventionError

DATES = np.array(["2001-01-01", "2001-01-02"], dtype="M8[s]")


def coords(**variables: Any) -> xr.Dataset:
    return xr.Dataset(coords=variables)


@pytest.mark.parametrize(
    ("names", "attributed"),
    [
        (("time", "level", "latitude", "longitude"), False),
        (("time", "plev", "lat", "lon"), False),
        (("valid_time", "pressure_level", "latitude", "longitude"), False),
        (("time", "isobaricInhPa", "lat", "lon"), False),
        (("time", "hybrid", "lat", "lon"), False),
        (("time", "model_level", "lat", "lon"), False),
        (("when", "p", "j", "i"), True),
    ],
)
def test_axes_are_found_by_name_or_by_attributes(names: tuple[str, ...], attributed: bool) -> None:
    time, level, latitude, longitude = names
    ds = coords(
        **{
            time: DATES,
            level: (level, [500.0, 850.0], {"units": "hPa", "axis": "Z"} if attributed else {}),
            latitude: (latitude, [1.0, 0.0], {"units": "degrees_north"} if attributed else {}),
            longitude: (longitude, [0.0], {"units": "degrees_east"} if attributed else {}),
        }
    )
    before = ds.copy(deep=True)
    expected = dict(zip(("time", "level", "latitude", "longitude"), names, strict=True))
    assert find_axes(ds) == expected
    assert ds.identical(before)
    rules = {matches[0].rule for matches in locate_axes(ds).values()}
    assert rules <= ({"attributes", "guess"} if attributed else {"guess", "name"})


def test_absent_axes_are_left_out() -> None:
    assert find_axes(xr.Dataset()) == {}
    assert find_axes(coords(lat=[0.0], x=[1], number=[1, 2], step=[1, 2])) == {"latitude": "lat"}


def test_scalar_coordinates_are_axes() -> None:
    ds = coords(time=DATES[0], level=500.0, latitude=[1.0], longitude=0.0)
    assert find_axes(ds)["level"] == "level"
    assert locate_axes(ds)["level"][0].dim is None
    assert locate_axes(ds)["time"][0].name == "time"


def test_the_time_with_an_index_goes_first() -> None:
    ds = coords(time=DATES, valid_time=("time", DATES + np.timedelta64(1, "h")))
    assert find_axes(ds) == {"time": "time"}


def test_a_forecast_of_one_start_has_its_valid_time_along_the_lead_time() -> None:
    steps = pd.to_timedelta([6, 12], "h")
    ds = coords(time=DATES[0], step=steps, valid_time=("step", DATES[0] + steps))
    (match,) = locate_axes(ds)["time"]
    assert (match.coord, match.dim) == ("valid_time", "step")
    assert find_axes(ds) == {"time": "step"}


def test_of_two_scalar_times_the_valid_one_counts() -> None:
    assert find_axes(coords(time=DATES[0], valid_time=DATES[1])) == {"time": "valid_time"}


def test_two_dimensions_of_dates_are_ambiguous_unless_one_says_that_it_is_time() -> None:
    ds = coords(init_time=DATES, time=DATES)
    with pytest.raises(ConventionError, match=r"time could be any of 'init_time' .*'time'"):
        find_axes(ds)
    assert find_axes(ds, {"time": "time"}) == {"time": "time"}
    ds["time"].attrs["standard_name"] = "time"
    assert find_axes(ds) == {"time": "time"}


def test_two_latitudes_are_ambiguous() -> None:
    ds = coords(lat=[0.0], lat_2=[1.0], lon=[0.0])
    with pytest.raises(ConventionError, match=r"latitude could be any of 'lat' .*'lat_2'.*fields="):
        find_axes(ds)
    assert find_axes(ds, {"latitude": "lat_2"})["latitude"] == "lat_2"


@pytest.mark.parametrize("calendar", ["noleap", "360_day"])
def test_cftime_dates_are_a_time_axis(calendar: str) -> None:
    dates = xr.date_range("2001-01-01", periods=2, calendar=calendar, use_cftime=True)
    assert find_axes(coords(time=dates)) == {"time": "time"}
    assert find_axes(coords(time=dates[0])) == {"time": "time"}


def test_numbers_are_no_dates() -> None:
    ds = coords(time=("time", [0, 1], {"standard_name": "time", "units": "hours"}))
    assert find_axes(ds) == {}
    with pytest.raises(ConventionError, match="'time' holds no dates: decode"):
        find_axes(ds, {"time": "time"})


def test_an_explicit_axis_must_exist() -> None:
    with pytest.raises(ConventionError, match=r"'nav_lat'.* no coordinate .*has lat, lon"):
        find_axes(coords(lat=[0.0], lon=[0.0]), {"latitude": "nav_lat"})


def test_curvilinear_and_unstructured_grids_are_refused() -> None:
    attrs = {"standard_name": "latitude"}
    ds = coords(nav=(("y", "x"), np.zeros((2, 2)), attrs), lon=(("y", "x"), np.zeros((2, 2))))
    with pytest.raises(ConventionError, match=r"curvilinear: latitude 'nav'.*regrid"):
        find_axes(ds)
    ds = coords(latitude=("values", [0.0, 1.0]), longitude=("values", [0.0, 1.0]))
    with pytest.raises(ConventionError, match=r"unstructured: .*share the dimension 'values'"):
        find_axes(ds)


def test_latitude_along_a_dimension_of_another_name() -> None:
    ds = coords(lat=("y", [1.0, 0.0]), lon=("x", [0.0, 1.0]))
    assert find_axes(ds) == {"latitude": "y", "longitude": "x"}


@pytest.mark.parametrize(
    ("name", "values", "attrs", "kind", "levels"),
    [
        ("level", [500, 850], {}, "pressure", [500.0, 850.0]),
        ("level", [85000.0, 50000.0], {}, "pressure", [850.0, 500.0]),
        ("plev", [85000.0, 50000.0], {"units": "Pa"}, "pressure", [850.0, 500.0]),
        ("plev", [1000.0], {"units": "Pa"}, "pressure", [10.0]),
        ("level", [500, 850], {"units": "millibars"}, "pressure", [500.0, 850.0]),
        ("level", [1, 2, 3], {}, "hybrid", [1.0, 2.0, 3.0]),
        ("hybrid", [96.0, 137.0], {}, "hybrid", [96.0, 137.0]),
        ("lev", [1, 2], {"standard_name": "model_level_number"}, "hybrid", [1.0, 2.0]),
        ("level", [0.2, 0.51, 1.0], {}, "sigma", [0.2, 0.51, 1.0]),
        ("s", [0.5], {"standard_name": "atmosphere_sigma_coordinate"}, "sigma", [0.5]),
    ],
)
def test_kinds_of_level(
    name: str, values: list[float], attrs: dict[str, str], kind: str, levels: list[float]
) -> None:
    ds = coords(**{name: (name, np.array(values), attrs)})
    (match,) = locate_axes(ds)["level"]
    assert match.kind == kind
    np.testing.assert_allclose(level_values(ds, match), levels)


@pytest.mark.parametrize(
    ("name", "attrs"),
    [
        ("height", {"standard_name": "height", "units": "m", "axis": "Z"}),
        ("depth", {"positive": "down", "units": "m"}),
        ("zone", {}),
        ("lev", {"standard_name": "atmosphere_hybrid_height_coordinate"}),
    ],
)
def test_other_verticals_are_no_levels(name: str, attrs: dict[str, str]) -> None:
    ds = coords(**{name: (name, [1.0, 2.0], attrs)})
    assert find_axes(ds) == {}
    with pytest.raises(ConventionError, match="no pressure, hybrid or sigma level: set"):
        find_axes(ds, {"level": name})


def test_pressure_stands_before_other_levels_and_dimensions_before_scalars() -> None:
    ds = coords(hybrid=[1.0, 2.0], plev=[500.0, 850.0], pressure=700.0)
    names = [match.coord for match in locate_axes(ds)["level"]]
    assert names == ["plev", "hybrid", "pressure"]
    assert find_axes(ds) == {"level": "plev"}
    assert find_axes(ds, {"level": "hybrid"}) == {"level": "hybrid"}


def test_bounds_are_no_axes() -> None:
    attrs = {"standard_name": "latitude", "bounds": "edges"}
    ds = xr.Dataset(
        {"lon_bnds": (("lon", "b"), np.zeros((1, 2)))},
        {"lat": ("lat", [0.0], attrs), "lon": [0.0], "edges": (("lat", "b"), np.zeros((1, 2)))},
    )
    ds["edges"].attrs["standard_name"] = "latitude"
    ds["lon"].encoding["bounds"] = "lon_edges"
    assert bounds_names(ds) == {"edges", "lon_bnds", "lon_edges"}
    assert find_axes(ds) == {"latitude": "lat", "longitude": "lon"}
