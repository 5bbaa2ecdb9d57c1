from __future__ import annotations

import numpy as np
import pytest
import xarray as xr

import xatmorep
from tests.tasks import small
from xatmorep.errors import ConfigError, ConventionError
from xatmorep.evaluation.metrics import LOWER_IS_BETTER, METRICS
from xatmorep.tasks.engine import Application, Options
from xatmorep.tasks.lattice import random_mask

CHEAP = ("climatology", "persistence", "interpolation")


def _evaluate(ds: xr.Dataset | None = None, **options) -> xr.Dataset:
    given = {"climatology": small.dataset(seed=1), "rate": 0.4, "seed": 2, "baselines": CHEAP}
    data = small.dataset() if ds is None else ds
    return xatmorep.evaluate(small.model(), data, **(given | options))


def _forecast(ds: xr.Dataset | None = None, **options) -> xr.Dataset:
    data = small.dataset(12) if ds is None else ds
    given = {"lead_time": "12h", "climatology": small.dataset(12, seed=1), "baselines": CHEAP[:2]}
    return xatmorep.evaluate(small.forecaster(), data, task="forecast", **(given | options))


@pytest.fixture(scope="module")
def scores() -> xr.Dataset:
    return _evaluate(baselines=None, block="6h", resamples=50)


@pytest.fixture(scope="module")
def forecasts() -> xr.Dataset:
    return _forecast(baselines=None, block="6h", resamples=50)


def test_labels(scores):
    score = scores["score"]
    assert score.dims == ("forecaster", "metric", "field", "level")
    assert score["forecaster"].values.tolist() == [
        "model",
        "climatology",
        "persistence",
        "time_interpolation",
        "interpolation",
        "anomaly_interpolation",
        "kriging",
        "drifting_kriging",
    ]
    assert score["metric"].values.tolist() == list(METRICS)
    assert score["field"].values.tolist() == ["2m_temperature", "temperature"]
    np.testing.assert_array_equal(score["level"], [np.nan, 500, 850])
    assert score["units"].values.tolist() == ["K", "K"]
    assert scores["score_interval"].dims == ("bound", *score.dims)
    assert scores["ratio"].dims == ("baseline", "metric", "field", "level")
    assert scores["baseline"].values.tolist() == [*score["forecaster"].values[1:], "best"]
    assert scores["mean_ratio"].dims == ("baseline", "metric")
    assert scores["rank_histogram"].dims == ("field", "level", "rank")
    assert scores["spectrum"].dims == ("source", "field", "level", "wavenumber")
    assert scores["source"].values.tolist()[:3] == ["truth", "model", "model_mean"]
    assert scores.attrs["model_digest"] == small.model().digest
    assert scores.attrs["climatology"].startswith("mean, 2020-12-31T06")
    assert (scores.attrs["task"], scores.attrs["rate"], scores.attrs["n_times"]) == (
        *("predict", 0.4),
        5,
    )


def test_labels_of_forecasts(forecasts):
    score = forecasts["score"]
    assert score.dims == ("forecaster", "metric", "field", "level", "lead_time")
    assert score["forecaster"].values.tolist() == [
        *("model", "climatology", "persistence", "kriging", "drifting_kriging")
    ]
    np.testing.assert_array_equal(score["lead_time"] / np.timedelta64(1, "h"), [6, 12])
    assert forecasts["rank_histogram"].dims == ("field", "level", "lead_time", "rank")
    assert forecasts["mean_ratio"].dims == ("baseline", "metric", "lead_time")
    assert "rate" not in forecasts.attrs
    assert forecasts.attrs["n_times"] == 7


def test_a_field_has_its_own_levels_only(scores):
    score = scores["score"].sel(forecaster="model", metric="rmse")
    known = score.notnull().values
    np.testing.assert_array_equal(known, [[True, False, False], [False, True, True]])


def test_scores_of_the_model_are_those_of_its_predictions(scores):
    """A twin with explicit loops over the points."""
    ds, model = small.dataset(), small.model()
    masks = random_mask(Application.of(ds, model, None, Options()), rate=0.4, seed=2)
    predicted = ds.atmorep.predict(model=model, mask=masks)["temperature"].sel(level=850).values
    truth = ds["temperature"].sel(level=850).values
    mask = masks["temperature"].sel(level=850).values
    total = weights = spread = absolute = 0.0
    counts = np.zeros(4)
    for t, j, i in zip(*np.nonzero(mask), strict=True):
        w = max(0.0, np.cos(np.deg2rad(float(ds["latitude"][j]))))
        members = predicted[:, t, j, i].astype("float64")
        total += w * (members.mean() - truth[t, j, i]) ** 2
        absolute += w * abs(members.mean() - truth[t, j, i])
        spread += w * members.var(ddof=1)
        counts[(members < truth[t, j, i]).sum()] += w
        weights += w
    found = scores["score"].sel(forecaster="model", field="temperature", level=850)
    assert float(found.sel(metric="rmse")) == pytest.approx(np.sqrt(total / weights), rel=1e-5)
    assert float(found.sel(metric="mae")) == pytest.approx(absolute / weights, rel=1e-5)
    assert float(found.sel(metric="spread")) == pytest.approx(np.sqrt(spread / weights), rel=1e-5)
    ratio = np.sqrt(4 / 3) * np.sqrt(spread / total)
    assert float(found.sel(metric="spread_skill_ratio")) == pytest.approx(ratio, rel=1e-5)
    ranks = scores["rank_histogram"].sel(field="temperature", level=850)
    np.testing.assert_allclose(ranks, counts / counts.sum(), atol=1e-6)


def test_scores_of_forecasts_are_those_of_forecast(forecasts):
    ds = small.dataset(12)
    init = ds["time"].values[3:10]
    said = ds.atmorep.forecast("12h", model=small.forecaster(), init_times=init)
    said = said["temperature"].sel(level=500).astype("float64").mean("member")
    total = weights = persisted = 0.0
    for k, time in enumerate(init):
        truth = ds["temperature"].sel(level=500, time=time + np.timedelta64(12, "h"))
        weight = np.cos(np.deg2rad(ds["latitude"])).clip(min=0)
        error = said.isel(init_time=k, lead_time=1) - truth
        total += float((weight * error**2).sum())
        persisted += float(
            (weight * (ds["temperature"].sel(level=500, time=time) - truth) ** 2).sum()
        )
        weights += float(weight.sum()) * ds.sizes["longitude"]
    place = {"metric": "rmse", "field": "temperature", "level": 500}
    rmse = forecasts["score"].sel(place).isel(lead_time=1)
    assert float(rmse.sel(forecaster="model")) == pytest.approx(np.sqrt(total / weights), rel=1e-5)
    twin = np.sqrt(persisted / weights)
    assert float(rmse.sel(forecaster="persistence")) == pytest.approx(twin, rel=1e-5)


def test_the_climatology_is_the_mean_of_other_data(scores):
    """Noise around 280 with deviation 10 against the mean of five others."""
    rmse = scores["score"].sel(forecaster="climatology", metric="rmse", field="2m_temperature")
    assert float(rmse[0]) == pytest.approx(10 * np.sqrt(1 + 1 / 5), rel=0.15)
    acc = scores["score"].sel(forecaster="climatology", metric="acc")
    assert bool(acc.isnull().all())  # it has no anomaly


def test_scores_by_the_deviation_of_anomalies(scores):
    place = {"forecaster": "model", "field": "temperature", "level": 850}
    found = scores["score"].sel(place)
    deviation = scores["anomaly_std"].sel(field="temperature", level=850)
    assert float(deviation) == pytest.approx(5 * np.sqrt(4 / 5), rel=0.1)
    expected = float(found.sel(metric="rmse") / deviation)
    assert float(found.sel(metric="normalized_rmse")) == pytest.approx(expected)


def test_what_each_forecaster_has(scores):
    known = scores["score"].sel(field="temperature", level=850).notnull()
    assert bool(known.sel(forecaster="model").all())
    assert bool(known.sel(forecaster="kriging").all())
    one = known.sel(forecaster="persistence")
    assert set(one["metric"].values[~one.values]) == {"crps_fair", "spread", "spread_skill_ratio"}
    plain = scores["score"].sel(forecaster="persistence")
    np.testing.assert_array_equal(plain.sel(metric="crps"), plain.sel(metric="mae"))


def test_ratios_are_of_the_scores(scores):
    model = scores["score"].sel(forecaster="model")
    for metric in METRICS:
        ratio = scores["ratio"].sel(metric=metric)
        if metric not in LOWER_IS_BETTER:
            assert bool(ratio.isnull().all())
            continue
        others = scores["score"].sel(metric=metric).drop_sel(forecaster="model")
        twin = (model.sel(metric=metric) / others).transpose("forecaster", ...)
        np.testing.assert_allclose(ratio.drop_sel(baseline="best"), twin)
        best = model.sel(metric=metric) / others.min("forecaster")
        np.testing.assert_allclose(ratio.sel(baseline="best"), best)
    mean = scores["ratio"].mean(["field", "level"])
    np.testing.assert_allclose(scores["mean_ratio"], mean)


def test_intervals_hold_the_scores(scores, forecasts):
    for result in (scores, forecasts):
        for name in ("score", "ratio", "mean_ratio"):
            low, high = result[f"{name}_interval"]
            known = result[name].notnull()
            assert bool((low <= high).where(known, True).all())
            inside = (low <= result[name]) & (result[name] <= high)
            assert float(inside.where(known).mean()) > 0.9
            assert bool(low.notnull().where(known, True).all())


def test_too_few_times_have_no_interval():
    result = _evaluate()
    assert bool(result["score_interval"].isnull().all())
    assert result.attrs["block_length"] == 20


def test_parts_change_nothing(monkeypatch):
    ds, other = small.dataset(11), small.dataset(11, seed=1)
    some = [*CHEAP, "time_interpolation", "drifting_kriging"]
    forecasts, whole = _forecast(), _evaluate(ds, climatology=other, baselines=some)
    monkeypatch.setattr("xatmorep.evaluation.parts.MOST_BYTES", 1)
    monkeypatch.setattr("xatmorep.evaluation.climatology.MOST_BYTES", 1)
    parts = _evaluate(ds, climatology=other, baselines=some)
    xr.testing.assert_allclose(parts, whole, rtol=1e-5)
    xr.testing.assert_allclose(_forecast(), forecasts, rtol=1e-5)


@pytest.mark.parametrize("chunks", [None, {"time": 2, "latitude": 7}])
def test_seeds_repeat_with_dask_or_without(scores, chunks):
    data, others = (small.dataset(seed=seed) for seed in (0, 1))
    if chunks is not None:
        data, others = data.chunk(chunks), others.chunk(chunks)
    again = _evaluate(data, climatology=others, baselines=None, block="6h", resamples=50)
    xr.testing.assert_allclose(again, scores)


@pytest.mark.parametrize("present", [small.flipped, small.rolled, small.renamed])
def test_the_same_in_every_form_of_the_data(scores, present):
    other = _evaluate(
        present(small.dataset()), climatology=present(small.dataset(seed=1)), baselines=None
    )
    for name in ("score", "rank_histogram", "spectrum", "anomaly_std"):
        np.testing.assert_allclose(other[name], scores[name], rtol=1e-3, atol=1e-5)
    np.testing.assert_array_equal(other["level"], scores["level"])


def test_data_from_a_file_are_read_in_parts(tmp_path, scores):
    small.dataset().to_netcdf(tmp_path / "data.nc")
    with xr.open_dataset(tmp_path / "data.nc") as ds:
        result = _evaluate(ds, baselines=())
    assert "ratio" not in result
    rmse, twin = (r["score"].sel(forecaster="model", metric="rmse") for r in (result, scores))
    np.testing.assert_allclose(rmse, twin, rtol=1e-5)


def test_ensemble_members_of_the_data_are_scored_together():
    ds = xr.concat([small.dataset(), small.dataset(seed=3)], "number", data_vars="all")
    ds["geopotential_at_surface"] = small.dataset()["geopotential_at_surface"]
    result = _evaluate(ds, climatology=None, baselines=None)
    assert result["forecaster"].values.tolist() == [
        *("model", "persistence", "time_interpolation", "interpolation")
    ]
    assert float(result["score"].sel(metric="rmse").notnull().mean()) == 0.5
    assert "anomaly_std" not in result
    assert bool(result["score"].sel(metric=["acc", "normalized_rmse"]).isnull().all())
    forecasts = xr.concat([small.dataset(9), small.dataset(9, seed=3)], "number", data_vars="all")
    forecasts["geopotential_at_surface"] = small.dataset()["geopotential_at_surface"]
    result = _forecast(forecasts, climatology=None, baselines=None)
    assert float(result["score"].sel(metric="rmse").notnull().mean()) == 0.5


def test_missing_data_are_not_scored():
    """Points, a whole map and a whole latitude are missing; the scores are of the rest."""
    ds = small.dataset()
    rng = np.random.default_rng(5)
    gaps = rng.random(ds["2m_temperature"].shape) < 0.1
    gaps[1], gaps[:, 7] = True, True
    ds["2m_temperature"] = ds["2m_temperature"].where(~gaps)
    result = _evaluate(ds, baselines=None)
    known = result["score"].sel(field="2m_temperature").isel(level=0)
    assert bool(known.sel(metric="rmse").notnull().all())
    mask = random_mask(Application.of(ds, small.model(), None, Options()), rate=0.4, seed=2)
    said = ds.atmorep.predict(model=small.model(), mask=mask)["2m_temperature"]
    error = said.astype("float64").mean("member") - ds["2m_temperature"]
    error = error.where(mask["2m_temperature"])
    area = np.cos(np.deg2rad(ds["latitude"])).clip(min=0)
    twin = np.sqrt(float((error**2).weighted(area).mean()))
    assert float(known.sel(forecaster="model", metric="rmse")) == pytest.approx(twin, rel=1e-5)


def test_one_time_and_one_level():
    content = small.CONFIG.model_dump()
    assert content["inputs"]["neighborhood"]["shape"][0] == 2
    result = _evaluate(small.dataset(2), baselines=None)
    assert float(result["score"].sel(metric="rmse").notnull().mean()) == 0.5
    result = _forecast(small.dataset(6), baselines=None)
    assert result.attrs["n_times"] == 1
    assert float(result["score"].sel(metric="rmse").notnull().mean()) == 0.5


def test_a_region_has_no_spectrum():
    ds = small.dataset().isel(longitude=slice(0, 12), latitude=slice(0, 12))
    result = _evaluate(ds, baselines=None)
    assert "spectrum" not in result
    assert float(result["score"].sel(metric="rmse").notnull().mean()) == 0.5


def test_the_spectrum_of_the_truth_is_that_of_the_data(scores):
    maps = small.dataset()["temperature"].sel(level=500).transpose("time", "latitude", "longitude")
    found = scores["spectrum"].sel(source="truth", field="temperature", level=500)
    area = np.cos(np.deg2rad(maps["latitude"])).clip(min=0)
    variance = float(maps.astype("float64").var("longitude").weighted(area).mean())
    assert float(found.sum()) == pytest.approx(variance, rel=1e-6)
    mean, members = (
        scores["spectrum"].sel(source=name, field="temperature", level=500)
        for name in ("model_mean", "model")
    )
    assert float(mean.sum()) < float(members.sum())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"baselines": ["persistance"]}, "baseline 'persistance' is unknown; did you mean 'persi"),
        ({"baselines": ["kriging"]}, "baseline 'kriging' needs climatology="),
        ({"task": "forecast"}, 'the task "forecast" needs lead_time'),
        ({"task": "forcast"}, "task 'forcast' is unknown; did you mean 'forecast'?"),
        ({"lead_time": "6h"}, 'lead_time is for forecasts: say task="forecast"'),
        ({"init_step": "6h"}, 'init_step is for forecasts: say task="forecast"'),
        ({"task": "forecast", "lead_time": "6h", "rate": 0.5}, "rate is for predictions"),
        ({"rate": 1.0}, "rate must lie between 0 and 1, not 1.0"),
        ({"block": 5}, "block 5 has no unit"),
        ({"block": "-1h"}, "block must be positive"),
        ({"resamples": 0}, "resamples must be at least 1"),
        ({"confidence": 95}, "confidence must lie between 0 and 1, not 95"),
    ],
)
def test_impossible_arguments_are_named(arguments, message):
    with pytest.raises(ConfigError) as error:
        xatmorep.evaluate(small.model(), small.dataset(), **arguments)
    assert message in str(error.value)


def test_a_baseline_of_the_other_task_is_refused():
    with pytest.raises(ConfigError, match="'interpolation' isn't for the task 'forecast'"):
        _forecast(baselines=["interpolation"])


def test_a_climatology_of_elsewhere_is_refused():
    elsewhere = small.dataset(seed=1).isel(latitude=slice(0, 9))
    with pytest.raises(ConventionError, match="the climatology lacks grid points"):
        _evaluate(climatology=elsewhere)


@pytest.mark.parametrize("which", ["scores", "forecasts"])
def test_scores_read_back_identical(which, request, tmp_path):
    result = request.getfixturevalue(which)
    result.to_netcdf(tmp_path / "scores.nc")
    xr.testing.assert_identical(xr.open_dataset(tmp_path / "scores.nc").load(), result)
    result.to_zarr(tmp_path / "scores.zarr", consolidated=False)
    xr.testing.assert_identical(
        xr.open_zarr(tmp_path / "scores.zarr", consolidated=False).load(), result
    )
