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
