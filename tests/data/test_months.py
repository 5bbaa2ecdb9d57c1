"""Months as numbers."""

from __future__ import annotations

import cftime
import numpy as np
import pytest
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st

from xatmorep.data.months import month_names, month_number, month_numbers


@given(
    year=st.integers(1850, 2200),
    month=st.integers(1, 12),
    day=st.integers(1, 28),
    calendar=st.sampled_from(["noleap", "360_day", "standard", None]),
)
def test_numbers_of_any_calendar(year: int, month: int, day: int, calendar: str | None) -> None:
    date = f"{year:04d}-{month:02d}-{day:02d}"
    time = (
        np.datetime64(date, "s")
        if calendar is None
        else cftime.datetime(year, month, day, 23, calendar=calendar)
    )
    times = xr.DataArray(np.array([time]), dims="time")
    assert month_numbers(times, "month").tolist() == [month]
    assert month_numbers(times, "year_month").tolist() == [12 * year + month - 1]
    assert month_number(date[:7]) == 12 * year + month - 1
    assert month_names([month_number(date[:7])]) == date[:7]


@pytest.mark.parametrize("text", ["", "2021", "2021-1", "2021-00", "2021-13", "2021-01-01", "x"])
def test_what_is_no_month_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is no month such as '2021-01'"):
        month_number(text)


def test_spans_are_told_apart() -> None:
    assert month_names([]) == "none"
    assert month_names([5, 3, 4, 3], "month") == "3 to 5"
    assert month_names(range(24252, 24264)) == "2021-01 to 2021-12"
    assert month_names(range(1, 30, 2), "month") == "1, 3, 5, 7, 9, 11 ..."
