"""Results in canonical form, back in the form of the dataset."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import xarray as xr

from tests.strategies import Presentation, canonical_dataset, present
from xatmorep.data.conventions import CanonicalView, canonical_view

NEEDS = [
    SimpleNamespace(name="temperature", units="K", levels=(850.0, 500.0), level_type="pressure"),
    SimpleNamespace(name="2m_temperature", units="K", levels=(), level_type="surface"),
]


def view_of(how: Presentation | None = None, **variation: Any) -> CanonicalView:
    return canonical_view(present(canonical_dataset(), how or Presentation(**variation)), NEEDS)


def on_tokens(view: CanonicalView, name: str = "2m_temperature") -> xr.DataArray:
    """Features of tokens of one frame, two rows and two columns; rows overlap at the end."""
    field = view.fields[name]
    rows = [
        field.isel(latitude=slice(start, start + 2)).mean("latitude")
        for start in (0, 2, field.sizes["latitude"] - 2)
    ]
    centers = [float(field["latitude"][[start, start + 1]].mean()) for start in (0, 2, 3)]
    tokens = xr.concat(rows, pd.Index(centers, name="latitude"))
    tokens = tokens.coarsen(longitude=2).mean()
    tokens = tokens.expand_dims(feature=3, axis=-1)
    return tokens.transpose(..., "time", "level", "latitude", "longitude", "feature")


@pytest.mark.parametrize("ascending", [False, True])
@pytest.mark.parametrize("lowest", [0.0, -180.0, 90.0])
@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("first", [0, 3])
def test_token_grids_are_strictly_monotonic_in_the_direction_of_the_dataset(
    ascending: bool, lowest: float, reverse: bool, first: int
) -> None:
    view = view_of(
        ascending=ascending,
        lowest=lowest,
        reverse=reverse,
        first=first,
        dims=("time", "plev", "lat", "lon"),
    )
    tokens = on_tokens(view)
    back = view.restore("2m_temperature", tokens)
    assert back.dims == ("time", "lat", "lon", "feature")
    latitude, longitude = np.diff(back["lat"]), np.diff(back["lon"])
    assert np.all(latitude > 0) if ascending else np.all(latitude < 0)
    assert np.all(longitude < 0) if reverse else np.all(longitude > 0)
    # Every value still stands at its place on the globe.
    lowest_stored = float(view.source["lon"].min())
    for token in tokens.isel(time=0, level=0, feature=0).stack(place=("latitude", "longitude")).T:
        at = (float(token["longitude"]) - (lowest_stored - 22.5)) % 360 + lowest_stored - 22.5
        there = back.isel(time=0, feature=0).sel(lat=float(token["latitude"]), lon=at)
        assert float(there) == float(token)


def test_bounds_follow_their_coordinate() -> None:
    view = view_of(
        ascending=True,
        lowest=-180.0,
        reverse=True,
        pascal=True,
        coordinate_dtype="float32",
        dims=("valid_time", "plev", "lat", "lon"),
    )
    tokens = on_tokens(view, "temperature")

    def carried(axis: str, low: Any, high: Any) -> xr.DataArray:
        edges = xr.DataArray(np.stack([low, high], -1), dims=(axis, "bounds"))
        edges = edges.assign_coords({axis: tokens[axis]})
        return view.restore("temperature", edges.assign_coords({f"{axis}_bounds": edges.variable}))

    center = tokens["latitude"].values
    back = carried("latitude", center - 30, center + 30)
    assert back["lat"].attrs["bounds"] == "lat_bounds"
    assert back["lat_bounds"].dtype == "float32"
    assert back["lat_bounds"].values.tolist() == [[-75, -15], [-45, 15], [15, 75]]
    center = tokens["longitude"].values
    back = carried("longitude", center - 45, center + 45)
    # The token of 135 and 180 reaches beyond the dataset's range and stays in one piece.
    np.testing.assert_array_equal(back["lon"], [112.5, 22.5, -67.5, -157.5])
    np.testing.assert_array_equal(
        back["lon_bounds"], [[157.5, 67.5], [67.5, -22.5], [-22.5, -112.5], [-112.5, -202.5]]
    )
    back = carried("level", [900.0, 600.0], [800.0, 400.0])
    assert back["plev"].values.tolist() == [85000.0, 50000.0]
    assert back["plev_bounds"].values.tolist() == [[90000.0, 80000.0], [60000.0, 40000.0]]
    half = np.timedelta64(3, "h")
    back = carried("time", tokens["time"].values - half, tokens["time"].values + half)
    assert back["valid_time"].attrs["bounds"] == "valid_time_bounds"
    assert back["valid_time_bounds"].dtype == view.source["valid_time"].dtype
    assert "bounds" not in view.source["lat"].attrs


def test_bounds_of_the_datasets_own_grid_are_not_those_of_tokens() -> None:
    ds = present(canonical_dataset(), Presentation(dims=("time", "plev", "lat", "lon")))
    ds["lat"].attrs["bounds"] = "lat_bnds"
    view = canonical_view(ds, NEEDS)
    own = view.restore("2m_temperature", view.fields["2m_temperature"])
    assert own["lat"].attrs["bounds"] == "lat_bnds"
    assert "bounds" not in view.restore("2m_temperature", on_tokens(view))["lat"].attrs


def test_a_part_of_the_own_grid_keeps_exact_values_and_other_coordinates() -> None:
    ds = present(
        canonical_dataset(latitude=[50.1, 40.1, 30.1], longitude=[0.1, 0.2, 0.3, 0.4]),
        Presentation(ascending=True, lowest=-180.0, coordinate_dtype="float32", pascal=True),
    )
    ds = ds.assign_coords(
        weight=("latitude", [1.0, 2.0, 3.0]),
        region=(("latitude", "longitude"), np.arange(12).reshape(3, 4)),
        month=("time", [2, 2, 2]),
        surface=0.0,
    )
    view = canonical_view(ds, NEEDS)
    part = {"latitude": [0, 2], "longitude": [1, 3], "time": [2], "level": [1]}
    back = view.restore("temperature", view.fields["temperature"].isel(part))
    expected = ds["temperature"].isel(latitude=[0, 2], longitude=[1, 3], time=[2], level=[1])
    xr.testing.assert_identical(back.drop_attrs(deep=False), expected.drop_attrs(deep=False))
    assert back["latitude"].dtype == "float32"


def test_other_coordinates_are_left_out_where_the_grid_is_another() -> None:
    ds = present(canonical_dataset(), Presentation(extra=2)).assign_coords(
        weight=("latitude", np.arange(5.0)),
        month=("time", [2, 2, 2]),
        name=("number", ["a", "b"]),
        surface=0.0,
        member=7,
    )
    view = canonical_view(ds, NEEDS)
    tokens = on_tokens(view, "temperature").expand_dims(member=2)
    back = view.restore("temperature", tokens)
    assert back.dims == ("member", "number", "time", "level", "latitude", "longitude", "feature")
    assert set(back.coords) == {
        "number",
        "name",
        "time",
        "month",
        "level",
        "latitude",
        "longitude",
        "surface",
    }
    assert back["number"].attrs == ds["number"].attrs
    assert "name" not in view.restore("temperature", tokens.isel(number=[1])).coords
    assert "number" in view.restore("temperature", tokens.isel(number=1)).coords


def test_scalar_axes_are_scalar_again() -> None:
    ds = present(canonical_dataset(), Presentation(pascal=True, lowest=-180.0))
    ds = ds.isel(time=1, level=0, latitude=2, longitude=5)
    view = canonical_view(ds, [NEEDS[1], SimpleNamespace(**{**vars(NEEDS[0]), "levels": (850,)})])
    field = view.fields["temperature"]
    assert field.sizes == {"time": 1, "level": 1, "latitude": 1, "longitude": 1}
    assert field["longitude"].values.tolist() == [225.0]
    for name in view.fields:
        back = view.restore(name, view.fields[name])
        assert back.dims == ()
        assert set(back.coords) == set(ds[name].coords)
        for coord in back.coords:
            assert back[coord].variable.identical(ds[coord].variable)
    features = field.expand_dims(feature=4, axis=-1)
    assert view.restore("temperature", features).dims == ("feature",)
    bounds = xr.DataArray([[0.0, 45.0]], dims=("latitude", "bounds"))
    bounds = bounds.assign_coords(latitude=field["latitude"], latitude_bounds=bounds.variable)
    assert view.restore("temperature", bounds)["latitude_bounds"].dims == ("bounds",)


def test_dimensions_of_size_one_come_back() -> None:
    ds = present(canonical_dataset(n_times=1), Presentation(extra=1))
    view = canonical_view(ds, NEEDS)
    assert view.extra_dims == ()
    back = view.restore("temperature", view.fields["temperature"])
    assert back.dims == ("number", "time", "level", "latitude", "longitude")
    assert back["number"].values.tolist() == [0]
    assert "number" not in view.restore("2m_temperature", view.fields["2m_temperature"]).dims
    # But not an axis over which a result is an average.
    mean = view.fields["temperature"].mean(["time", "latitude", "longitude"])
    assert view.restore("temperature", mean).dims == ("number", "level")


def test_axes_of_a_result_may_be_scalar() -> None:
    view = view_of(dims=("valid_time", "plev", "lat", "lon"), lowest=-180.0, pascal=True)
    at = view.fields["temperature"].isel(time=0, level=1, longitude=-1)
    back = view.restore("temperature", at)
    assert back.dims == ("lat",)
    assert float(back["lon"]) == -45.0
    assert float(back["plev"]) == 50000.0
    assert back["valid_time"].attrs == view.source["valid_time"].attrs


def test_time_along_a_dimension_of_another_name() -> None:
    ds = canonical_dataset()
    steps = pd.to_timedelta([6, 12, 18], "h")
    ds = ds.rename(time="step").assign_coords(
        step=steps, valid_time=("step", ds["time"].values), time=ds["time"].values[0]
    )
    view = canonical_view(ds, NEEDS)
    back = view.restore("2m_temperature", view.fields["2m_temperature"])
    xr.testing.assert_identical(back, ds["2m_temperature"])
    later = view.fields["2m_temperature"].assign_coords(
        time=view.fields["2m_temperature"]["time"] + np.timedelta64(1, "h")
    )
    back = view.restore("2m_temperature", later)
    assert back["valid_time"].dims == ("step",)
    assert "step" not in back.coords


def test_results_take_no_chunks_or_codecs_from_the_store() -> None:
    ds = present(canonical_dataset(), Presentation())
    ds["time"].encoding = {"units": "hours since 1900-01-01", "calendar": "standard", "chunks": 1}
    ds["latitude"].encoding = {"chunks": (1,), "compressors": ("unknown",)}
    view = canonical_view(ds, NEEDS)
    own = view.restore("2m_temperature", view.fields["2m_temperature"])
    assert own["time"].encoding == {"units": "hours since 1900-01-01", "calendar": "standard"}
    assert own["latitude"].encoding == {}
    later = view.fields["2m_temperature"].assign_coords(
        time=view.fields["2m_temperature"]["time"] + np.timedelta64(30, "m")
    )
    back = view.restore("2m_temperature", later)
    assert back["time"].encoding == {}
    assert ds["time"].encoding["chunks"] == 1
