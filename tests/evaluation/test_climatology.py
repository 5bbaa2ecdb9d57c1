from __future__ import annotations

import numpy as np
import pytest
import xarray as xr

from tests.tasks import small
from xatmorep.errors import ConventionError
from xatmorep.evaluation.climatology import Climatology, Record, elapsed
from xatmorep.tasks.engine import Application, Options

SURFACE = "2m_temperature"


def _dataset(n_days: int, per_day: int = 4, start: str = "2020-01-01") -> xr.Dataset:
    """The small dataset over many days."""
    ds = small.dataset(n_days * per_day)
    step = np.timedelta64(24 // per_day, "h")
    return ds.assign_coords(time=np.datetime64(start, "s") + step * np.arange(n_days * per_day))


def _fit(ds: xr.Dataset, wanted: xr.Dataset | None = None) -> tuple[Climatology, Application]:
    wanted = small.dataset() if wanted is None else wanted
    application = Application.of(wanted, small.model(), None, Options())
    record = Record.of(ds, application, None)
    return Climatology.fit(record, wanted["time"].values), application


def test_the_mean_by_month_and_hour_is_that_of_xarray():
    ds = _dataset(62)
    ds[SURFACE][3, 5, 6] = np.nan
    found, application = _fit(ds, _dataset(3, start="2021-02-10"))
    assert found.by == ("month", "hour")
    assert found.words == "mean by month and hour of the day"
    frames = ds[SURFACE].sel(time=ds.time.dt.month == 2)
    twin = frames.groupby("time.hour").mean()
    times = np.array([["2021-02-11T06", "2021-02-10T18"]], "M8[s]")
    got = found.at(SURFACE, times)
    assert got.shape == (1, 2, 1, 19, 24)
    np.testing.assert_allclose(got[0, 0, 0], twin.sel(hour=6), rtol=1e-6)
    np.testing.assert_allclose(got[0, 1, 0], twin.sel(hour=18), rtol=1e-6)
    level = ds["temperature"].sel(level=850, time=ds.time.dt.month == 2).groupby("time.hour").mean()
    first = found.at("temperature", times)[0, 0, 0]  # levels as the model has them
    np.testing.assert_allclose(first, level.sel(hour=6), rtol=1e-6)
    assert application.model.config.inputs.field("temperature").levels[0] == 850


@pytest.mark.parametrize(
    ("days", "per_day", "start", "expected"),
    [
        (62, 4, "2020-01-01", ("month", "hour")),
        (62, 2, "2020-01-01", ("month",)),  # the hours 6 and 18 are wanted as well
        (62, 4, "2020-04-01", ("hour",)),  # February is wanted
        (15, 4, "2020-02-01", ()),
    ],
)
def test_means_are_as_fine_as_the_record_allows(days, per_day, start, expected):
    found, _ = _fit(_dataset(days, per_day, start), _dataset(3, start="2021-02-10"))
    assert found.by == expected


def test_deviations_are_those_from_these_means():
    ds = _dataset(40)
    found, _ = _fit(ds, _dataset(2, start="2020-02-03"))
    assert found.by == ("hour",)  # of February there are nine days only
    anomalies = ds[SURFACE].astype("float64").groupby("time.hour")
    anomalies = anomalies - anomalies.mean()
    area = np.cos(np.deg2rad(ds.latitude)).clip(min=0)
    expected = np.sqrt((anomalies**2).weighted(area).mean())
    assert found.anomaly_std[SURFACE] == pytest.approx([float(expected)], rel=1e-6)
    variance = (anomalies**2).mean("time")
    share = 40 / 60
    drawn = share * variance + (1 - share) * variance.mean("longitude")
    np.testing.assert_allclose(found.deviation[SURFACE][0], np.sqrt(drawn), rtol=1e-6)


def test_large_values_lose_no_digits():
    ds = _dataset(25)
    shifted = ds.assign({SURFACE: (ds[SURFACE] + 1e6).assign_attrs(ds[SURFACE].attrs)})
    plain, moved = (_fit(each)[0].anomaly_std[SURFACE][0] for each in (ds, shifted))
    assert moved == pytest.approx(plain, rel=1e-3)  # float32 data, not the sums


def test_a_point_that_is_never_known_has_no_mean():
    ds = _dataset(25)
    ds[SURFACE][:, 4, 7] = np.nan
    found, _ = _fit(ds)
    mean = found.at(SURFACE, small.dataset()["time"].values)[0, 0]
    assert np.isnan(mean[4, 7])
    assert np.isnan(mean).sum() == 1
    assert np.isfinite(found.deviation[SURFACE]).all()


@pytest.mark.parametrize(
    "present",
    [
        lambda ds: ds,
        lambda ds: ds.chunk(time=7, latitude=5),
        small.flipped,
        small.rolled,
        small.renamed,
    ],
)
def test_the_same_from_every_form_of_the_data(present):
    found, _ = _fit(present(_dataset(25)))
    twin, _ = _fit(_dataset(25))
    for name in (SURFACE, "temperature"):
        np.testing.assert_allclose(found.means[name], twin.means[name], rtol=1e-6)


def test_parts_are_added_up(monkeypatch):
    twin, _ = _fit(_dataset(25))
    monkeypatch.setattr("xatmorep.evaluation.climatology.MOST_BYTES", 20_000)
    found, _ = _fit(_dataset(25))
    np.testing.assert_allclose(found.means[SURFACE], twin.means[SURFACE], rtol=1e-9)
    np.testing.assert_allclose(found.deviation[SURFACE], twin.deviation[SURFACE], rtol=1e-6)


def test_a_record_of_elsewhere_or_without_a_field_is_refused():
    with pytest.raises(ConventionError, match="the climatology lacks grid points"):
        _fit(_dataset(5).isel(latitude=slice(0, 9)))
    with pytest.raises(ConventionError, match="the data of the climatology can't be used"):
        _fit(_dataset(5).drop_vars("temperature"))


def test_hours_of_any_calendar():
    times = xr.date_range("2001-02-28", periods=3, freq="12h", calendar="360_day", use_cftime=True)
    np.testing.assert_array_equal(elapsed(times.values), [0, 12, 24])
    both = np.stack([times.values, times.values])
    np.testing.assert_array_equal(elapsed(both), [[0, 12, 24], [0, 12, 24]])
