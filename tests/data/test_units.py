"""Units: one kind in many spellings, and refusals that name both."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from xatmorep.data.names import FIELDS
from xatmorep.data.units import Conversion, convert_units
from xatmorep.errors import ConventionError

ALIKE = [
    ("K", "kelvin", "degK"),
    ("Pa", "pascal"),
    ("hPa", "mbar", "millibars", "mb"),
    ("m s-1", "m/s", "m s**-1", "m s^-1", "m.s-1", "m * s-1", "meters/second", "  m  s-1 "),
    ("m2 s-2", "m**2 s**-2", "m^2/s^2", "m2/s2", "m²/s²", "J kg-1", "J/kg"),
    ("kg kg-1", "kg/kg", "kg kg**-1", "1", "(0 - 1)", "~", "dimensionless"),
    ("g kg-1", "g/kg", "g kg**-1"),
    ("s-1", "1/s", "s**-1"),
    ("Pa s-1", "Pa/s", "Pa s**-1"),
    ("kg m-2 s-1", "kg/m2/s", "kg m**-2 s**-1"),
    ("K m2 kg-1 s-1", "K m**2 kg**-1 s**-1"),
    ("W m-2", "W/m^2", "J m-2 s-1"),
    ("m", "metres", "m of water equivalent", "m of water"),
    ("degC", "Celsius", "degree_Celsius", "degrees_celsius", "°C"),
]


@pytest.mark.parametrize("spellings", ALIKE, ids=lambda spellings: spellings[0])
def test_spellings_of_one_unit_are_the_same(spellings: tuple[str, ...]) -> None:
    for found in spellings:
        for wanted in spellings:
            assert convert_units(found, wanted, what="x").is_identity, (found, wanted)


@pytest.mark.parametrize(
    ("found", "wanted", "value", "expected"),
    [
        ("degC", "K", 0.0, 273.15),
        ("K", "degC", 273.15, 0.0),
        ("degF", "K", 212.0, 373.15),
        ("degF", "degC", 32.0, 0.0),
        ("hPa", "Pa", 1013.25, 101325.0),
        ("Pa", "hPa", 85000.0, 850.0),
        ("g kg-1", "kg kg-1", 5.0, 0.005),
        ("%", "1", 50.0, 0.5),
        ("mm", "m", 2.0, 0.002),
        ("km/h", "m s-1", 36.0, 10.0),
        ("mm/day", "m s-1", 86400.0 * 1000, 1.0),
        ("hPa s-1", "Pa s-1", 2.0, 200.0),
    ],
)
def test_conversions(found: str, wanted: str, value: float, expected: float) -> None:
    conversion = convert_units(found, wanted, what="x")
    assert conversion.apply(value) == pytest.approx(expected, abs=1e-9)
    assert conversion.invert(expected) == pytest.approx(value, abs=1e-9)


def test_a_mass_of_water_is_a_depth_only_where_it_is_water() -> None:
    assert convert_units("kg m-2", "m", what="tp", water=True).apply(2.0) == 0.002
    assert convert_units("mm", "kg m-2", what="tp", water=True).apply(2.0) == pytest.approx(2.0)
    with pytest.raises(ConventionError, match=r"z has units 'kg m-2'.*'m'"):
        convert_units("kg m-2", "m", what="z")


@pytest.mark.parametrize(
    ("found", "wanted"),
    [
        ("K", "Pa"),
        ("m", "m2 s-2"),
        ("mol mol-1", "kg kg-1"),
        ("m s-1", "kg m-2 s-1"),
        ("furlong", "m"),
        ("m s-", "m s-1"),
        ("1e-6 kg kg-1", "kg kg-1"),
    ],
)
def test_units_of_another_kind_are_refused_with_both_named(found: str, wanted: str) -> None:
    with pytest.raises(ConventionError) as caught:
        convert_units(found, wanted, what="'temperature'")
    for part in ("'temperature'", repr(found), repr(wanted)):
        assert part in str(caught.value)


def test_units_that_are_not_understood_pass_if_they_are_spelled_alike() -> None:
    assert convert_units("furlong", " furlong", what="x") == Conversion()


def test_units_of_all_known_fields_are_understood() -> None:
    for field in FIELDS.values():
        assert convert_units(f"{field.units} ", field.units.replace(" ", "  "), what="x")
        convert_units(field.units.replace("-", "**-"), field.units, what=field.name)


@given(st.sampled_from(ALIKE), st.sampled_from(ALIKE), st.floats(-1e6, 1e6))
def test_there_and_back(first: tuple[str, ...], second: tuple[str, ...], value: float) -> None:
    try:
        there = convert_units(first[-1], second[0], what="x")
    except ConventionError:
        return
    back = convert_units(second[-1], first[0], what="x")
    np.testing.assert_allclose(back.apply(there.apply(value)), value, rtol=1e-12, atol=1e-9)
    np.testing.assert_allclose(there.invert(there.apply(value)), value, rtol=1e-12, atol=1e-9)
