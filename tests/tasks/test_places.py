"""Where the caller's coordinates lie; `nearest` is tested with the attention that asks for it."""

from __future__ import annotations

import cftime
import numpy as np
import pandas as pd
import pytest
import xarray as xr

from tests.tasks import small
from xatmorep.data.conventions import CanonicalView, canonical_view
from xatmorep.errors import ConfigError
from xatmorep.tasks.places import exact_times


def view(ds: xr.Dataset) -> CanonicalView:
    return canonical_view(ds, small.CONFIG.inputs.fields)


def thirty_days(ds: xr.Dataset) -> xr.Dataset:
    """From the 29th of February on, in years of twelve months of 30 days."""
    times = xr.date_range("2021-02-29", periods=5, freq="6h", calendar="360_day", use_cftime=True)
    return ds.assign_coords(time=("time", times, ds["time"].attrs))


@pytest.mark.parametrize("unit", ["s", "us", "ns"])
def test_times_are_found_whatever_the_units(unit):
    ds = small.dataset()
    data = ds.assign_coords(time=("time", ds["time"].values.astype(f"M8[{unit}]")))
    for times in (
        ["2021-01-01T06", "2020-12-31T12"],
        ds["time"].values[[4, 1]],
        pd.DatetimeIndex(["2021-01-01T06", "2020-12-31T12"]),
        xr.DataArray(ds["time"].values[[4, 1]].astype("M8[ms]"), dims="x"),
        (time for time in ds["time"].values[[4, 1]]),
    ):
        assert exact_times(view(data), times) == [4, 1]
    assert exact_times(view(data), "2021-01-01") == [3]
    assert exact_times(view(data), np.datetime64("2021-01-01")) == [3]


def test_times_of_other_calendars():
    found = view(thirty_days(small.dataset()))
    dates = [cftime.Datetime360Day(2021, 2, 30), cftime.Datetime360Day(2021, 2, 29, 6)]
    for times in (
        ["2021-02-30", "2021-02-29T06"],
        dates,
        np.array(dates),
        xr.CFTimeIndex(dates),
        xr.DataArray(dates, dims="x"),
    ):
        assert exact_times(found, times) == [4, 1]


@pytest.mark.parametrize(
    "value",
    [
        "2021-01-01T01",
        "2021-01-01T00:00:00.001",
        "2021-02-30",
        "noon",
        float("nan"),
        np.datetime64("NaT"),
        None,
        slice("2021"),
        pd.Timestamp("2021-01-01", tz="UTC"),
        cftime.DatetimeNoLeap(2021, 1, 1),
    ],
)
def test_other_times_are_refused(value):
    with pytest.raises(ConfigError) as error:
        exact_times(view(small.dataset()), ["2021-01-01", value])
    wanted = "is no time of these data, which have 5 from 2020-12-31 06:00:00 to 2021-01-01 06:00"
    assert str(error.value).startswith(f"{value} {wanted}")


@pytest.mark.parametrize(
    "value",
    ["2021-03-01", "2021-02-29T01", cftime.DatetimeNoLeap(2021, 2, 28), np.datetime64("NaT"), 3],
)
def test_times_of_another_calendar_are_refused(value):
    with pytest.raises(ConfigError, match="is no time of these data, which have 5 from 2021-02-29"):
        exact_times(view(thirty_days(small.dataset())), value)
