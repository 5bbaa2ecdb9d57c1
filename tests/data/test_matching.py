"""Fields: explicit before canonical name before alias before standard name."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import xarray as xr

from xatmorep.data.matching import Match, find_fields
from xatmorep.errors import ConventionError

GRID = {"lat": [1.0, 0.0], "lon": [0.0, 1.0]}
FLAT = ("lat", "lon")
DEEP = ("plev", "lat", "lon")


def dataset(coords: dict[str, Any] | None = None, **variables: Any) -> xr.Dataset:
    sizes = {"plev": 2, "lat": 2, "lon": 2, "band": 2}
    return xr.Dataset(
        {
            name: (dims, np.zeros([sizes[dim] for dim in dims]), attrs)
            for name, (dims, attrs) in variables.items()
        },
        {**GRID, "plev": [85000.0, 50000.0], **(coords or {})},
    )


def standard(name: str) -> dict[str, str]:
    return {"standard_name": name}


def test_canonical_names_and_aliases() -> None:
    ds = dataset(**{"2m_temperature": (FLAT, {}), "ta": (DEEP, {}), "q": (DEEP, {})})
    assert find_fields(ds) == {
        "temperature": Match("ta", "alias"),
        "specific_humidity": Match("q", "alias"),
        "2m_temperature": Match("2m_temperature", "name"),
    }


def test_rules_have_an_order() -> None:
    ds = dataset(temperature=(DEEP, {}), t=(DEEP, {}), warmth=(DEEP, standard("air_temperature")))
    assert find_fields(ds)["temperature"] == Match("temperature", "name")
    ds = ds.drop_vars("temperature")
    assert find_fields(ds)["temperature"] == Match("t", "alias")
    ds = ds.drop_vars("t")
    assert find_fields(ds)["temperature"] == Match("warmth", "standard_name")
    assert find_fields(ds, {"temperature": "warmth"})["temperature"].rule == "explicit"


def test_levels_tell_geopotential_from_that_of_the_surface() -> None:
    assert list(find_fields(dataset(z=(DEEP, {})))) == ["geopotential"]
    assert list(find_fields(dataset(z=(FLAT, {})))) == ["geopotential_at_surface"]


@pytest.mark.parametrize(
    ("dims", "coords", "expected"),
    [
        (DEEP, {}, "temperature"),
        (FLAT, {}, None),
        (FLAT, {"height": 2.0}, "2m_temperature"),
        (FLAT, {"heightAboveGround": 2}, "2m_temperature"),
        (FLAT, {"z": ((), 2.0, {"standard_name": "height"})}, "2m_temperature"),
        (FLAT, {"height": 10.0}, None),
    ],
)
def test_a_shared_standard_name_needs_levels_or_the_right_height(
    dims: tuple[str, ...], coords: dict[str, Any], expected: str | None
) -> None:
    found = find_fields(dataset(coords, warmth=(dims, standard("air_temperature"))))
    assert list(found) == ([expected] if expected else [])


def test_ambiguous_names_are_refused_with_the_candidates() -> None:
    ds = dataset(t2m=(FLAT, {}), tas=(FLAT, {}))
    with pytest.raises(ConventionError) as caught:
        find_fields(ds)
    message = str(caught.value)
    assert "'2m_temperature' could be any of 't2m' (alias), 'tas' (alias)" in message
    assert "fields={'2m_temperature': 't2m'}" in message
    assert find_fields(ds, {"2m_temperature": "tas"})["2m_temperature"].variable == "tas"


def test_two_variables_of_one_standard_name_are_ambiguous() -> None:
    ds = dataset(a=(FLAT, standard("surface_altitude")), b=(FLAT, standard("surface_altitude")))
    with pytest.raises(ConventionError, match=r"'a' \(standard_name\), 'b' \(standard_name\)"):
        find_fields(ds)


def test_what_lacks_the_grid_is_no_field() -> None:
    ds = dataset(t=(("plev",), {}), ta=(("plev", "lat"), {}), msl=(("band",), {}))
    assert find_fields(ds) == {}
    assert find_fields(xr.Dataset({"t": ("x", [1.0])})) == {}


def test_bounds_are_no_fields() -> None:
    ds = dataset({"plev": ("plev", [1.0, 2.0], {"bounds": "t"})}, t=(DEEP, {}))
    assert find_fields(ds) == {}


def test_an_explicit_variable_must_exist() -> None:
    with pytest.raises(ConventionError, match="'tt'} names no variable of the dataset; it has q"):
        find_fields(dataset(q=(DEEP, {})), {"temperature": "tt"})


def test_an_explicit_axis_is_no_field() -> None:
    assert list(find_fields(dataset(q=(DEEP, {})), {"latitude": "lat"})) == ["specific_humidity"]


def test_scalar_latitude_and_longitude_are_a_grid_too() -> None:
    ds = dataset(t=(DEEP, {})).isel(lat=0, lon=0)
    assert list(find_fields(ds)) == ["temperature"]


def test_names_that_are_no_text_are_passed_over():
    grid = {"lat": [1.0, 0.0], "lon": [0.0, 1.0]}
    ds = xr.Dataset({1: (("lat", "lon"), [[0.0, 1.0], [2.0, 3.0]])}, grid)
    assert find_fields(ds) == {}
