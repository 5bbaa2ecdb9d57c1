from __future__ import annotations

import numpy as np
import pytest
import xarray as xr

from tests.tasks import small
from tests.training.runs import RUN
from xatmorep.errors import ConfigError, ConventionError
from xatmorep.training.config import read_config
from xatmorep.training.data import open_data, split

CONFIG = read_config(RUN)


def _times(n: int = 10) -> xr.DataArray:
    times = np.datetime64("2020-01-01") + np.arange(n) * np.timedelta64(1, "D")
    return xr.DataArray(times, coords={"time": times}, dims="time")


def test_split_leaves_runs_before_and_after():
    runs, held_out = split(_times(), slice("2020-01-04", "2020-01-05"), 2)
    assert runs == [slice(0, 3), slice(5, 10)]
    assert held_out == slice(3, 5)


def test_runs_too_short_for_a_neighborhood_are_left_out():
    runs, held_out = split(_times(), slice("2020-01-02", "2020-01-05"), 2)
    assert runs == [slice(5, 10)]
    assert held_out == slice(1, 5)


def test_split_of_climate_model_calendars():
    times = xr.date_range("2001-02-27", periods=6, calendar="noleap", use_cftime=True)
    time = xr.DataArray(times, coords={"time": times}, dims="time")
    assert split(time, slice("2001-03", "2001-03"), 2) == ([slice(0, 2)], slice(2, 6))


@pytest.mark.parametrize(
    ("validation", "message"),
    [
        (slice("2021", "2021"), "holds 0 times, a neighborhood has 2; the data have 10 times"),
        (slice("2020-01-03", "2020-01-03"), "holds 1 times, a neighborhood has 2"),
        (slice("2020-01-01", "2020-01-09"), "leaves no run of 2 times"),
        (slice("2019", "2022"), "from 2019 to 2022 leaves no run of 2 times"),
        (slice(None, None), "leaves no run of 2 times"),
        (slice("2020-01-06", "2020-01-03"), "2020-01-06 to 2020-01-03 is the wrong way round"),
        (slice("2022", "2019"), "from 2022 to 2019 is the wrong way round"),
        (slice("2020-01-03", "2020-01-08", 2), "must be a slice of times, .*: it has a step"),
        (slice("jan", "feb"), r"must be a slice of times, .*, found slice\('jan', 'feb', None\): "),
        (slice(2, 5), r"must be a slice of times, .*, found slice\(2, 5, None\): "),
        ("2020-01-03", "must be a slice of times, .*, found '2020-01-03'"),
    ],
)
def test_held_out_times_that_can_not_be_used_are_refused(validation, message):
    with pytest.raises(ConfigError, match=message):
        split(_times(), validation, 2)


def test_climate_model_calendars_are_refused_likewise():
    times = xr.date_range("2001-02-27", periods=6, calendar="noleap", use_cftime=True)
    time = xr.DataArray(times, coords={"time": times}, dims="time")
    with pytest.raises(ConfigError, match="is the wrong way round"):
        split(time, slice("2001-03-02", "2001-03-01"), 2)
    with pytest.raises(ConfigError, match="must be a slice of times"):
        split(time, slice("jan", "feb"), 2)


@pytest.mark.parametrize("first", [0, 1, 2, 5, 8])
@pytest.mark.parametrize("n", [2, 3, 8])
def test_no_time_is_both_trained_on_and_held_out(first, n):
    time = _times(16)
    training, held_out = split(time, slice(*time.values[[first, first + n - 1]]), 2)
    assert held_out == slice(first, first + n)
    for run in training:
        assert run.stop <= first or run.start >= first + n


def test_statistics_are_those_of_the_training_times():
    ds = small.dataset(8)
    data = open_data(ds, CONFIG, slice("2021-01-01", "2021-01-01T06"))
    weights = np.cos(np.deg2rad(ds["latitude"])).clip(min=1e-4)
    rest = ds["2m_temperature"].sel(time=[t for t in ds["time"].values if t not in _held(ds)])
    expected = rest.astype("float64").weighted(weights).mean()
    found = data.fit(CONFIG).mean["2m_temperature"]
    np.testing.assert_allclose(found, float(expected), rtol=1e-6)


def _held(ds):
    return ds["time"].sel(time=slice("2021-01-01", "2021-01-01T06")).values


def test_neighborhoods_are_normalized_and_of_their_times_only():
    data = open_data(small.dataset(8), CONFIG, slice("2021-01-01", "2021-01-01T06"))
    normalizer = data.fit(CONFIG)
    for run in (*data.training, data.held_out):
        source = data.neighborhoods(run, normalizer, CONFIG, seed=0)
        times = data.time.values[run]
        for k in range(20):
            batch = source.slab(0, k)
            assert np.isin(batch.times, times).all()
            assert abs(batch.tokens["2m_temperature"].mean()) < 0.5


def test_a_dataset_that_does_not_fit_is_refused():
    with pytest.raises(ConventionError, match="temperature"):
        open_data(small.dataset().drop_vars("temperature"), CONFIG, None)
    with pytest.raises(ConventionError, match="latitude"):
        open_data(small.dataset().isel(latitude=slice(None, None, 2)), CONFIG, None)
