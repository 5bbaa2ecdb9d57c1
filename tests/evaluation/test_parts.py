from __future__ import annotations

import numpy as np
import pytest
import xarray as xr

from tests import contexts
from tests.tasks import small
from xatmorep.errors import ConfigError, ConventionError
from xatmorep.evaluation.parts import Forecasts, Predictions
from xatmorep.tasks.engine import Application, Options
from xatmorep.tasks.lattice import random_mask

SURFACE = "2m_temperature"


def _predictions(ds: xr.Dataset, **options) -> Predictions:
    application = Application.of(ds, small.model(), None, Options())
    return Predictions(application, **{"rate": 0.4, "seed": 2, **options})


def _forecasts(ds: xr.Dataset, lead_time="12h", init_times=None, init_step=None) -> Forecasts:
    application = Application.of(ds, small.forecaster(), None, Options(), in_time=False)
    return Forecasts.of(application, lead_time, init_times, init_step)


def _one_slab_at_a_time(monkeypatch):
    monkeypatch.setattr("xatmorep.evaluation.parts.MOST_BYTES", 1)


# ---- predictions


@pytest.mark.parametrize("n_times", [2, 3, 4, 5, 9])
def test_windows_cover_all_times_once_and_begin_with_a_slab(monkeypatch, n_times):
    _one_slab_at_a_time(monkeypatch)
    windows = _predictions(small.dataset(n_times)).windows()
    frames = [frame for window in windows for frame in range(n_times)[window]]
    assert frames == list(range(n_times))
    assert all(window.start % 2 == 0 for window in windows)
    assert all(window.stop - window.start >= 2 for window in windows)
    assert len(windows) == n_times // 2


def test_parts_are_what_predict_gives_of_the_whole(monkeypatch):
    """Hidden points, truth and members, as a user would have them."""
    _one_slab_at_a_time(monkeypatch)
    ds = small.dataset(9)
    question = _predictions(ds)
    parts = list(question.parts())
    assert len(parts) == 4
    masks = random_mask(question.application, rate=0.4, seed=2)
    predicted = ds.atmorep.predict(model=small.model(), mask=masks)
    for name in (SURFACE, "temperature"):
        for key, twin in (
            ("truth", ds[name]),
            ("hidden", masks[name]),
            ("prediction", predicted[name]),
        ):
            found = xr.concat([getattr(part[name], key) for part in parts], "time", join="exact")
            found = found.isel(sample=0)
            if name == SURFACE:
                found = found.squeeze("level", drop=True)
            else:
                twin = twin.sel(level=[850, 500])
            twin = twin.transpose(*found.dims)
            np.testing.assert_allclose(found, twin, rtol=1e-5)
            for dim in ("time", "latitude", "longitude"):
                np.testing.assert_array_equal(found[dim], twin[dim])


@pytest.mark.parametrize("n_times", [4, 9, 10])
def test_parts_of_neighborhoods_that_overlap_are_those_of_the_whole(monkeypatch, n_times):
    """Each reads the time slabs that reach into it, which other parts read as well."""
    _one_slab_at_a_time(monkeypatch)
    ds, model = small.dataset(n_times), small.wide()
    application = Application.of(ds, model, None, Options(overlap=0.5))
    question = Predictions(application, rate=0.4, seed=2)
    parts = list(question.parts())
    assert len(parts) == n_times // 4
    masks = random_mask(application, rate=0.4, seed=2)
    predicted = ds.atmorep.predict(model=model, mask=masks, overlap=0.5)
    found = xr.concat([part["temperature"].prediction for part in parts], "time", join="exact")
    twin = predicted["temperature"].sel(level=[850, 500])
    found = found.isel(sample=0).transpose(*twin.dims)
    hidden = masks["temperature"].sel(level=[850, 500]).transpose(*twin.dims[1:])
    np.testing.assert_allclose(found.where(hidden), twin.where(hidden), rtol=1e-5)
    np.testing.assert_array_equal(found["time"], ds["time"])


def test_contexts_read_beyond_the_parts(monkeypatch):
    """Six frames before a time slab of two, further than a part looks for what is visible."""
    _one_slab_at_a_time(monkeypatch)
    ds = small.dataset(10)
    application = Application.of(ds, contexts.model(), None, Options())
    parts = list(Predictions(application, rate=0.4, seed=2).parts())
    assert len(parts) == 5
    predicted = ds.atmorep.predict(model=contexts.model(), rate=0.4, seed=2)
    found = xr.concat([part["temperature"].prediction for part in parts], "time", join="exact")
    twin = predicted["temperature"].sel(level=[850, 500])
    found = found.isel(sample=0).transpose(*twin.dims)
    np.testing.assert_allclose(found, twin, rtol=1e-5)
    np.testing.assert_array_equal(found["time"], twin["time"])


def test_what_is_visible_is_neither_hidden_nor_missing(monkeypatch):
    _one_slab_at_a_time(monkeypatch)
    ds = small.dataset(9)
    ds[SURFACE][4, 3, 5] = np.nan
    for part in _predictions(ds).parts():
        case = part[SURFACE]
        wanted = case.visible[:, case.wanted]
        np.testing.assert_array_equal(wanted, ~case.hidden.values & np.isfinite(case.truth.values))
        assert case.values.shape[1] <= 2 + 2 * case.reach + 1
        np.testing.assert_array_equal(case.times[0, case.wanted], case.truth["time"])


@pytest.mark.parametrize("chunks", [None, {"time": 2, "latitude": 7}])
@pytest.mark.parametrize("present", [lambda ds: ds, small.flipped, small.rolled, small.renamed])
def test_the_same_from_every_form_of_the_data(present, chunks):
    ds = present(small.dataset())
    ds = ds if chunks is None else ds.chunk({k: v for k, v in chunks.items() if k in ds.dims})
    (part,), (twin,) = (list(_predictions(each).parts()) for each in (ds, small.dataset()))
    for name, case in part.items():
        xr.testing.assert_allclose(case.truth, twin[name].truth)
        xr.testing.assert_equal(case.hidden, twin[name].hidden)
        xr.testing.assert_allclose(case.prediction, twin[name].prediction, atol=1e-3)


def test_further_dimensions_are_samples():
    ds = xr.concat([small.dataset(), small.dataset(seed=3)], "number", data_vars="all")
    ds["geopotential_at_surface"] = small.dataset()["geopotential_at_surface"]
    (part,) = _predictions(ds).parts()
    case = part["temperature"]
    assert case.truth.sizes["sample"] == 2
    twin = ds["temperature"].isel(number=1).sel(level=850)
    np.testing.assert_allclose(case.truth.isel(sample=1).sel(level=850), twin, rtol=1e-6)


def test_values_are_in_the_units_of_the_data():
    ds = small.dataset()
    celsius = ds.assign({SURFACE: (ds[SURFACE] - 273.15).assign_attrs(units="degC")})
    (part,), (twin,) = (list(_predictions(each).parts()) for each in (celsius, ds))
    np.testing.assert_allclose(part[SURFACE].truth, twin[SURFACE].truth - 273.15, atol=1e-4)
    np.testing.assert_allclose(
        part[SURFACE].prediction, twin[SURFACE].prediction - 273.15, atol=1e-3
    )


# ---- forecasts


def test_forecasts_are_those_of_forecast(monkeypatch):
    ds = small.dataset(9)
    question = _forecasts(ds)
    twin = ds.atmorep.forecast("12h", model=small.forecaster(), init_times=question.times)
    assert len(question.times) == 4
    for most in (2**26, 1):
        monkeypatch.setattr("xatmorep.evaluation.parts.MOST_BYTES", most)
        parts = list(question.parts())
        assert len(parts) == (1 if most > 1 else 4)
        for name in (SURFACE, "temperature"):
            found = xr.concat([part[name].prediction for part in parts], "init_time", join="exact")
            found = found.isel(sample=0)
            expected = twin[name]
            if name == SURFACE:
                found = found.squeeze("level", drop=True)
            else:
                expected = expected.sel(level=[850, 500])
            np.testing.assert_allclose(found, expected.transpose(*found.dims), rtol=1e-5)
            np.testing.assert_array_equal(found["init_time"], expected["init_time"])
            np.testing.assert_array_equal(found["lead_time"], expected["lead_time"])


def test_the_truth_of_a_forecast_is_what_came():
    ds = small.dataset(9)
    (part,) = _forecasts(ds).parts()
    case = part["temperature"]
    for init in case.truth["init_time"].values:
        for lead in case.truth["lead_time"].values:
            found = case.truth.sel(init_time=init, lead_time=lead, level=500).isel(sample=0)
            twin = ds["temperature"].sel(time=init + lead, level=500)
            np.testing.assert_allclose(found, twin, rtol=1e-6)
    assert bool(case.hidden.all())


def test_nothing_after_the_init_time_is_visible():
    (part,) = _forecasts(small.dataset(9)).parts()
    case = part[SURFACE]
    assert case.values.shape[:2] == (4, 6)
    assert case.visible[:, :4].all()
    assert not case.visible[:, 4:].any()
    np.testing.assert_array_equal(case.times[:, 3], case.truth["init_time"])
    np.testing.assert_allclose(case.hours, np.tile(6.0 * np.arange(6), (4, 1)))


def test_which_init_times():
    ds = small.dataset(12)
    times = ds["time"].values
    np.testing.assert_array_equal(_forecasts(ds).times, times[3:10])
    np.testing.assert_array_equal(_forecasts(ds, init_step="12h").times, times[3:10:2])
    given = [times[8], times[5]]
    np.testing.assert_array_equal(_forecasts(ds, init_times=given).times, times[[5, 8]])


def test_times_across_a_gap_are_left_out():
    ds = small.dataset(14).isel(time=[*range(6), *range(8, 14)])
    found = _forecasts(ds).times
    np.testing.assert_array_equal(found, ds["time"].values[[3, 9]])
    with pytest.raises(ConventionError, match=r"the step of 'time' from .* is 18 hours"):
        _forecasts(ds, init_times=ds["time"].values[5])


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"init_times": 0}, ConventionError, "can't be scored: it needs 4 frames up to then and 2"),
        ({"init_times": 8}, ConventionError, "the data have 9 and 0"),
        ({"init_times": 4, "init_step": "6h"}, ConfigError, "give init_times or init_step"),
        ({"init_step": "7h"}, ConfigError, "no positive multiple of the model's time step, 6h"),
        ({"init_step": "12"}, ConfigError, "init_step 12 has no unit"),
        ({"lead_time": "7h"}, ConfigError, "no positive multiple of the model's time step"),
    ],
)
def test_impossible_times_are_refused(options, error, message):
    ds = small.dataset(9)
    if "init_times" in options:
        options = options | {"init_times": ds["time"].values[options["init_times"]]}
    with pytest.raises(error, match=message):
        _forecasts(ds, **options)


def test_too_short_data_are_refused():
    with pytest.raises(ConventionError, match="reads 4 frames and is compared with 2 after them"):
        _forecasts(small.dataset(5))


def test_forecasts_read_the_past_of_contexts(monkeypatch):
    _one_slab_at_a_time(monkeypatch)
    ds = small.dataset(12)
    application = Application.of(ds, contexts.forecaster(), None, Options(), in_time=False)
    parts = list(Forecasts.of(application, "12h", None, None).parts())
    found = xr.concat([part["temperature"].prediction for part in parts], "init_time")
    twin = ds.atmorep.forecast(
        "12h", model=contexts.forecaster(), init_times=found["init_time"].values
    )["temperature"].sel(level=[850, 500])
    assert found.sizes["init_time"] == 7
    np.testing.assert_allclose(found.isel(sample=0).transpose(*twin.dims), twin, rtol=1e-5)
