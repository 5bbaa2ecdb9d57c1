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
        (slice("2020-01-01", "2020-01-09"), "leaves no run of 2 times"),
    ],
)
def test_split_that_leaves_nothing_is_refused(validation, message):
    with pytest.raises(ConfigError) as error:
        split(_times(), validation, 2)
    assert message in str(error.value)


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
