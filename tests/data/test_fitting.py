"""What is needed against what is there: one error that says all."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import xarray as xr

from xatmorep.data.axes import locate_axes
from xatmorep.data.fitting import Choice, choose
from xatmorep.data.units import Conversion
from xatmorep.errors import ConventionError


@dataclass(frozen=True)
class Need:
    name: str
    units: str
    levels: tuple[float, ...] = ()

    @property
    def level_type(self) -> str:
        return "pressure" if self.levels else "surface"


@dataclass(frozen=True)
class Hybrid(Need):
    @property
    def level_type(self) -> str:
        return "hybrid"


DEEP, FLAT = ("time", "plev", "lat", "lon"), ("time", "lat", "lon")
TEMPERATURE = Need("temperature", "K", (500.0, 850.0))
OROGRAPHY = Need("orography", "m")


def dataset(coords: dict[str, Any] | None = None, **variables: Any) -> xr.Dataset:
    coords = {
        "time": np.array(["2001-01-01"], dtype="M8[s]"),
        "plev": ("plev", [85000.0, 50000.0, 25000.0], {"units": "Pa"}),
        "lat": [1.0, 0.0],
        "lon": [0.0, 1.0],
        **(coords or {}),
    }
    sizes = {"number": 2, **xr.Dataset(coords=coords).sizes}
    data = {
        name: (dims, np.zeros([sizes[dim] for dim in dims]), {"units": units} if units else {})
        for name, (dims, units) in variables.items()
    }
    return xr.Dataset(data, coords)


def fit(ds: xr.Dataset, *needs: Need, static: Need | None = None, **explicit: str) -> Any:
    return choose(ds, locate_axes(ds), needs, [static] if static else [], explicit)


def refusal(ds: xr.Dataset, *needs: Need, static: Need | None = None, **explicit: str) -> str:
    with pytest.raises(ConventionError) as caught:
        fit(ds, *needs, static=static, **explicit)
    return str(caught.value)


def test_a_dataset_that_fits() -> None:
    ds = dataset(ta=(DEEP, "K"), msl=(FLAT, "hPa"), orog=(("lat", "lon"), "km"))
    chosen = fit(ds, TEMPERATURE, Need("mean_sea_level_pressure", "Pa"), static=OROGRAPHY)
    temperature = chosen["temperature"]
    assert isinstance(temperature, Choice)
    assert (temperature.match.variable, temperature.match.rule) == ("ta", "alias")
    assert temperature.level is not None
    assert temperature.level.coord == "plev"
    assert chosen["mean_sea_level_pressure"].conversion == Conversion(100.0)
    assert chosen["mean_sea_level_pressure"].level is None
    assert chosen["orography"].conversion == Conversion(1000.0)


def test_one_error_lists_all_that_is_needed_found_and_missing() -> None:
    ds = dataset(ta=(DEEP, "K"), zos=(FLAT, "m"), tos=(FLAT, "K"))
    humidity = Need("specific_humidity", "kg kg-1", (1000.0,))
    temperature = Need("temperature", "K", (1000.0, 850.0, 925.0))
    message = refusal(ds, temperature, humidity, Need("surface_pressure", "Pa"), static=OROGRAPHY)
    for part in (
        "lacks what the model needs",
        "'temperature', found as 'ta', lacks levels 1000, 925 hPa: 'plev' has 850, 500, 250 hPa",
        "no variable is recognized as 'specific_humidity'",
        "no variable is recognized as 'surface_pressure'",
        "no variable is recognized as 'orography'",
        "The model needs temperature [K] at 1000, 850, 925 hPa; "
        "specific_humidity [kg kg-1] at 1000 hPa; surface_pressure [Pa]; orography [m].",
        "The dataset has temperature as 'ta', sea_surface_temperature as 'tos'",
        "levels 'plev' (850, 500, 250 hPa)",
        "not recognized: 'zos'",
        "fields={",
        "a model that fits from xatmorep.models()",
    ):
        assert part in message
    assert "\n" not in message


def test_units_of_another_kind_are_named() -> None:
    message = refusal(dataset(ta=(DEEP, "m s-1")), TEMPERATURE)
    assert "'temperature', found as 'ta', has units 'm s-1'" in message
    assert "can't be converted to 'K'" in message


def test_missing_units_are_canonical_where_the_name_says_what_it_is() -> None:
    assert fit(dataset(ta=(DEEP, "")), TEMPERATURE)["temperature"].conversion.is_identity
    # In the table's units, not in those that are asked for.
    celsius = Need("temperature", "degC", (500.0,))
    assert fit(dataset(ta=(DEEP, "")), celsius)["temperature"].conversion.offset == -273.15
    assert fit(dataset(x=(DEEP, "")), TEMPERATURE, temperature="x")
    unheard = Need("unheard_of", "furlong")
    assert fit(dataset(unheard_of=(FLAT, "")), unheard)["unheard_of"].conversion.is_identity


def test_missing_units_are_refused_where_only_a_standard_name_speaks() -> None:
    ds = dataset(warmth=(DEEP, ""))
    ds["warmth"].attrs["standard_name"] = "air_temperature"
    message = refusal(ds, TEMPERATURE)
    assert "found as 'warmth', states no units (needed: 'K'): set ds['warmth'].attrs" in message


def test_water_may_be_a_mass() -> None:
    chosen = fit(dataset(tp=(FLAT, "kg m-2")), Need("total_precipitation", "m"))
    assert chosen["total_precipitation"].conversion == Conversion(0.001)


def test_only_ambiguities_that_matter_are_refused() -> None:
    ds = dataset(ta=(DEEP, "K"), t=(DEEP, "K"), q=(DEEP, "1"))
    assert fit(ds, Need("specific_humidity", "kg kg-1", (500.0,)))
    assert "'temperature' could be any of 'ta' (alias), 't' (alias)" in refusal(ds, TEMPERATURE)
    assert fit(ds, TEMPERATURE, temperature="t")["temperature"].match.variable == "t"


def test_levels_of_another_kind() -> None:
    need = Hybrid("temperature", "K", (96.0, 137.0))
    message = refusal(dataset(ta=(DEEP, "K")), need)
    assert (
        "is on pressure levels 'plev' (850, 500, 250 hPa), but is needed at hybrid 96, 137; if"
        in (message)
    )


def test_a_bare_level_is_told_apart_by_a_standard_name() -> None:
    need = Hybrid("temperature", "K", (96.0, 137.0))
    ds = dataset(ta=(DEEP, "K")).rename(plev="level").assign_coords(level=[96, 137, 120])
    assert "set ds['level'].attrs['standard_name'] ('air_pressure', 'model_level_" in refusal(
        ds, need
    )
    ds["level"].attrs["standard_name"] = "model_level_number"
    assert fit(ds, need)["temperature"].level.kind == "hybrid"


def test_each_field_has_its_own_vertical_axis() -> None:
    ds = dataset(
        {"hybrid": [96.0, 137.0]}, ta=(DEEP, "K"), q=(("time", "hybrid", "lat", "lon"), "1")
    )
    humidity = Hybrid("specific_humidity", "1", (137.0,))
    chosen = fit(ds, TEMPERATURE, humidity)
    assert [choice.level.coord for choice in chosen.values()] == ["plev", "hybrid"]


def test_a_scalar_level_serves_and_a_missing_one_does_not() -> None:
    ds = dataset(ta=(DEEP, "K"))
    need = Need("temperature", "K", (850.0,))
    assert fit(ds.isel(plev=0), need)["temperature"].level.dim is None
    message = refusal(ds.isel(plev=0, drop=True), need)
    assert "'temperature', found as 'ta', has no vertical coordinate" in message


def test_levels_where_the_surface_is_needed() -> None:
    message = refusal(dataset(tas=(DEEP, "K")), Need("2m_temperature", "K"))
    assert "has the vertical dimension 'plev', but is needed at the surface" in message
    assert "ds.isel(plev=..., drop=True)" in message
    # A scalar level is another variable's: it stays beside a surface field.
    assert fit(dataset(tas=(DEEP, "K")).isel(plev=0), Need("2m_temperature", "K"))


def test_fields_need_a_time_and_constants_have_none_but_the_first() -> None:
    ds = dataset(tas=(("lat", "lon"), "K"), orog=(FLAT, "m"))
    assert "'tas' has dimensions ('lat', 'lon'), without time 'time'" in refusal(
        ds, Need("2m_temperature", "K")
    )
    assert fit(ds, static=OROGRAPHY)


def test_constants_may_be_repeated_along_members_but_not_vary_otherwise() -> None:
    members = ("number", "lat", "lon")
    ds = dataset(orog=(members, "m"), tas=(("number", *FLAT), "K"), ta=(DEEP, "K"))
    assert fit(ds, Need("2m_temperature", "K"), static=OROGRAPHY)
    message = refusal(ds, static=OROGRAPHY)
    assert "'orog' has the dimension 'number', but is needed as a constant field" in message
    ds = dataset(orog=(DEEP, "m"), ta=(DEEP, "K"))
    assert "'orog' has the dimension 'plev'" in refusal(ds, TEMPERATURE, static=OROGRAPHY)


def test_an_explicit_variable_must_have_the_grid() -> None:
    message = refusal(
        dataset(x=(("time",), "K")), Need("2m_temperature", "K"), **{"2m_temperature": "x"}
    )
    assert "'x' has dimensions ('time',), without latitude 'lat'" in message


def test_text_is_no_field() -> None:
    ds = dataset(tas=(FLAT, "K"))
    ds["tas"] = ds["tas"].astype(str)
    assert "'tas' holds <U32, not numbers" in refusal(ds, Need("2m_temperature", "K"))


def test_a_misspelled_canonical_name_is_refused_with_the_nearest() -> None:
    ds = dataset(ta=(DEEP, "K"))
    with pytest.raises(ConventionError, match=r"'temprature'.*did you mean 'temperature'\?"):
        fit(ds, TEMPERATURE, temprature="ta")
    with pytest.raises(
        ConventionError, match=r"'qqqq': .* is no canonical name of a field or axis$"
    ):
        fit(ds, TEMPERATURE, qqqq="ta")


def test_long_lists_are_cut() -> None:
    ds = dataset(**{f"x{i:03}": (FLAT, "K") for i in range(273)})
    message = refusal(ds, Need("2m_temperature", "K"))
    assert "'x011' and 261 more" in message
    assert "x012" not in message
