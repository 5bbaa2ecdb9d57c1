"""Token info against the plain datetime module, in every unit and calendar."""

from __future__ import annotations

import datetime
import itertools

import cftime
import numpy as np
import pandas as pd
import pytest
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st

from tests.tokens.strategies import make_spec, specs, times
from xatmorep.tokens.info import TOKEN_INFO, center, time_parts, token_info
from xatmorep.tokens.spec import FieldSpec, InputSpec, NeighborhoodSpec

dates = st.datetimes(datetime.datetime(1800, 1, 1), datetime.datetime(2200, 1, 1)).map(
    lambda date: date.replace(microsecond=0)
)


@given(st.lists(dates, min_size=1, max_size=3), st.sampled_from(["s", "ms", "us", "ns"]))
def test_time_parts_against_datetime(when: list[datetime.datetime], unit: str) -> None:
    parts = time_parts(np.array(when, dtype=f"datetime64[{unit}]"))
    expected = [d.timetuple() for d in when]
    assert parts.year.tolist() == [d.tm_year for d in expected]
    assert parts.day_of_year.tolist() == [d.tm_yday for d in expected]
    hours = [d.tm_hour + d.tm_min / 60 + d.tm_sec / 3600 for d in expected]
    np.testing.assert_allclose(parts.hour, hours, rtol=1e-15)


def test_time_parts_of_calendars() -> None:
    days = {"noleap": 365, "360_day": 360, "standard": 366, "all_leap": 366}
    for calendar, last in days.items():
        end = 30 if calendar == "360_day" else 31
        when = np.array([[cftime.datetime(2020, 12, end, 18, 30, calendar=calendar)]])
        parts = time_parts(when)
        assert parts.day_of_year.tolist() == [[last]]
        assert parts.hour.tolist() == [[18.5]]


def test_time_parts_accepts_what_xarray_has() -> None:
    when = times(4)
    expected = time_parts(when)
    for same in (pd.DatetimeIndex(when), xr.DataArray(when, dims="time")):
        for part, wanted in zip(time_parts(same), expected, strict=True):
            np.testing.assert_array_equal(part, wanted)


@pytest.mark.parametrize("calendar", [None, "noleap"])
def test_center_keeps_the_type(calendar: str | None) -> None:
    when = times(5, step=7, calendar=calendar)
    middle = center(when[:1], when[1:2])
    assert middle.dtype == when.dtype
    assert middle[0] == when[0] + np.timedelta64(12600, "s").astype(object)
    assert center(when, when).tolist() == when.tolist()


@given(specs(), st.sampled_from([None, "noleap"]))
def test_against_slow_twin(spec, calendar: str | None) -> None:
    nt, na, no = spec.neighborhood.shape
    when = times(nt, step=7, calendar=calendar)
    latitude, longitude = 50.0 - np.arange(na), 357.5 + np.arange(no)
    for field in spec.fields:
        t, a, o = field.token_shape
        info = token_info(spec, field.name, when, latitude, longitude)
        assert info.dtype == np.float32
        assert info.shape == (field.n_levels, *spec.token_grid(field.name), len(TOKEN_INFO))
        for level, i, j, k in itertools.product(*map(range, info.shape[:-1])):
            first, last = when[i * t], when[i * t + t - 1]
            date = center(np.array([first]), np.array([last]))[0]
            date = date.item() if calendar is None else date
            day = date.timetuple().tm_yday
            expected = [
                date.year,
                day,
                date.hour + date.minute / 60,
                (field.levels or (0.0,))[level],
                latitude[j * a : (j + 1) * a].mean(),
                longitude[k * o : (k + 1) * o].mean() % 360,
                1,
            ]
            np.testing.assert_allclose(info[level, i, j, k], expected, rtol=1e-6)


def test_many_neighborhoods_at_once_equal_single_ones() -> None:
    spec = make_spec(fields={"a": ((2, 2, 3), (500, 850))}, grid_step=(0.25, 0.5))
    when = np.stack([times(2), times(4)[2:]])
    latitude = np.stack([50.0 - np.arange(4), -np.arange(4)])
    longitude = np.stack([np.arange(6.0), 350.0 + np.arange(6)])
    together = token_info(spec, "a", when, latitude, longitude)
    for i in range(2):
        alone = token_info(spec, "a", when[i], latitude[i], longitude[i])
        np.testing.assert_array_equal(together[i], alone)
    assert (together[..., TOKEN_INFO.index("resolution")] == 0.25).all()


@pytest.mark.parametrize("east", [360.0, np.nextafter(360.0, 0), -1e-9, 0.0])
def test_longitude_stays_below_360(east: float) -> None:
    spec = make_spec((1, 1, 1), {"a": ((1, 1, 1), ())})
    info = token_info(spec, "a", times(1), np.zeros(1), np.array([east]))
    assert info[0, 0, 0, 0, TOKEN_INFO.index("longitude")] == 0


def referring(reference: str, spec: InputSpec) -> InputSpec:
    """The same inputs with another place and time of a token."""
    return InputSpec.model_validate({**spec.model_dump(), "token_reference": reference})


def as_the_original(
    spec: InputSpec, name: str, when: list[datetime.datetime], latitude, longitude, *, quirk: bool
) -> np.ndarray:
    """AtmoRep's token info by its definition, one token after the other."""
    field = spec.field(name)
    t, a, o = field.token_shape
    n_levels, nt, na, no = field.n_levels, *spec.token_grid(name)
    info = np.empty((n_levels, nt, na, no, 7), np.float32)
    for level, i, j, k in itertools.product(range(n_levels), range(nt), range(na), range(no)):
        date = when[i * t + t - 1]
        day = (date.date() - datetime.date(date.year, 1, 1)).days + 1
        if quirk and date.year < when[-1].year:
            day = 365 + (date.date() - datetime.date(date.year + 1, 1, 1)).days + 1
        north = sorted(latitude[j * a : (j + 1) * a], reverse=True)[a // 2]
        east = longitude[k * o + o // 2]
        while east >= 360:
            east -= 360
        height = (field.levels or (0.0,))[level]
        step = spec.neighborhood.grid_step[0]
        info[level, i, j, k] = (date.year, day, date.hour, height, north, east, step)
    return info


# The last frame of the neighborhood: across the end of a leap year, of another year, of February,
# on the last hour of a year, and in the middle of one.
LAST = ["2021-01-01T02", "2022-01-01T05", "2020-03-01T01", "2020-12-31T23", "2021-07-15T12"]


@pytest.mark.parametrize("west", [0.0, 350.0, 171.5])
@pytest.mark.parametrize("last", LAST)
@pytest.mark.parametrize("reference", ["atmorep-2024", "atmorep-2023"])
@pytest.mark.parametrize("token", [(3, 3, 3), (2, 2, 4), (6, 6, 12), (1, 1, 1)])
def test_atmorep_references_equal_loops(
    token: tuple[int, int, int], reference: str, last: str, west: float
) -> None:
    fields = {"a": (token, (137, 96)), "b": ((6, 2, 6), ())}
    spec = referring(reference, make_spec((6, 6, 12), fields, time_step=1, grid_step=(0.25, 1.0)))
    when = np.datetime64(last, "h") + np.arange(-5, 1)
    latitude, longitude = 61.5 - 0.25 * np.arange(6), west + 1.0 * np.arange(12)
    for name in fields:
        expected = as_the_original(
            spec,
            name,
            when.astype(object).tolist(),
            latitude,
            longitude,
            quirk=reference == "atmorep-2023",
        )
        found = token_info(spec, name, when, latitude, longitude)
        np.testing.assert_array_equal(found, expected)


def test_2023_counts_the_last_days_of_a_leap_year_one_too_low() -> None:
    spec = make_spec((6, 2, 3), {"a": ((2, 2, 3), ())}, time_step=1)
    axes = (np.array([1.0, 0.0]), np.arange(3.0))
    days = {}
    for last in ("2021-01-01T01", "2022-01-01T01", "2020-12-31T23"):
        when = np.datetime64(last, "h") + np.arange(-5, 1)
        for reference in ("atmorep-2023", "atmorep-2024"):
            info = token_info(referring(reference, spec), "a", when, *axes)
            days[last, reference] = info[0, :, 0, 0, 1].tolist()
    assert days["2021-01-01T01", "atmorep-2023"] == [365, 365, 1]
    assert days["2021-01-01T01", "atmorep-2024"] == [366, 366, 1]
    # A common year is no exception, and neither is a neighborhood that ends within the year.
    for last in ("2022-01-01T01", "2020-12-31T23"):
        assert days[last, "atmorep-2023"] == days[last, "atmorep-2024"]


def test_2023_counts_each_neighborhood_from_its_own_last_frame() -> None:
    spec = referring("atmorep-2023", make_spec((6, 2, 3), {"a": ((2, 2, 3), ())}, time_step=1))
    when = np.array([np.datetime64(last, "h") + np.arange(-5, 1) for last in LAST])
    latitude = np.tile([[1.0, 0.0]], (len(LAST), 1))
    longitude = np.tile(np.arange(3.0), (len(LAST), 1))
    together = token_info(spec, "a", when, latitude, longitude)
    for i in range(len(LAST)):
        alone = token_info(spec, "a", when[i], latitude[i], longitude[i])
        np.testing.assert_array_equal(together[i], alone)


@pytest.mark.parametrize("calendar", ["noleap", "all_leap", "360_day", "standard"])
def test_2023_takes_any_year_for_one_of_365_days(calendar: str) -> None:
    spec = referring("atmorep-2023", make_spec((2, 1, 1), {"a": ((1, 1, 1), ())}, time_step=12))
    noon = cftime.datetime(2020, 12, 30, 12, calendar=calendar)
    while noon.year == 2020:
        noon, last = noon + datetime.timedelta(days=1), noon
    when = np.array([[last, last + datetime.timedelta(hours=12)]] * 2)
    info = token_info(spec, "a", when, np.zeros((2, 1)), np.zeros((2, 1)))
    assert info[:, 0, :, 0, 0, :3].tolist() == [[[2020, 365, 12], [2021, 1, 0]]] * 2


def test_published_sizes_at_the_edges_of_the_grid() -> None:
    """A quarter degree, 18 x 18 points: each number is exact in single precision."""
    spec = InputSpec(
        neighborhood=NeighborhoodSpec(shape=(6, 54, 108), time_step=1, grid_step=(0.25, 0.25)),
        fields=(FieldSpec(name="a", units="1", token_shape=(3, 18, 18)),),
        token_reference="atmorep-2024",
    )
    latitude = -90 + 0.25 * np.arange(54)[::-1]
    longitude = 350 + 0.25 * np.arange(108)
    info = token_info(spec, "a", times(6, step=1), latitude, longitude)[0]
    assert info[0, :, 0, 4].tolist() == [-90 + 0.25 * (53 - row) for row in (9, 27, 45)]
    assert info[0, 0, :, 5].tolist() == [352.25, 356.75, 1.25, 5.75, 10.25, 14.75]
