from __future__ import annotations

import numpy as np
import pytest
import scoringrules
import xarray as xr

import xatmorep
from tests.tasks import small
from xatmorep.errors import ConfigError, ConventionError
from xatmorep.evaluation.scores import _metrics


@pytest.fixture(scope="module")
def scores() -> xr.Dataset:
    ds = small.dataset()
    return xatmorep.evaluate(small.model(), ds, climatology=small.dataset(seed=1), rate=0.4, seed=2)


def test_labels(scores):
    score = scores["score"]
    assert score.dims == ("forecaster", "metric", "quantity")
    assert list(score["forecaster"]) == [
        "model",
        "climatology",
        "interpolation",
        "anomaly_interpolation",
    ]
    assert list(score["field"]) == ["2m_temperature", "temperature", "temperature"]
    np.testing.assert_array_equal(score["level"], [np.nan, 500, 850])
    assert set(score["units"].values) == {"K"}
    assert scores.attrs["model_digest"] == small.model().digest


def test_scores_of_the_model_are_those_of_its_predictions(scores):
    """A twin with explicit loops over the points."""
    from xatmorep.tasks.engine import Application, Options
    from xatmorep.tasks.lattice import random_mask

    ds, model = small.dataset(), small.model()
    masks = random_mask(Application.of(ds, model, None, Options()), rate=0.4, seed=2)
    predicted = ds.atmorep.predict(model=model, mask=masks)["temperature"].sel(level=850).values
    truth = ds["temperature"].sel(level=850).values
    mask = masks["temperature"].sel(level=850).values
    total = weights = spread = absolute = 0.0
    for t, j, i in zip(*np.nonzero(mask), strict=True):
        w = max(0.0, np.cos(np.deg2rad(float(ds["latitude"][j]))))
        members = predicted[:, t, j, i].astype("float64")
        total += w * (members.mean() - truth[t, j, i]) ** 2
        absolute += w * abs(members.mean() - truth[t, j, i])
        spread += w * members.var(ddof=1)
        weights += w
    found = scores["score"].sel(forecaster="model").isel(quantity=2)
    assert float(found.sel(metric="rmse")) == pytest.approx(np.sqrt(total / weights), rel=1e-5)
    assert float(found.sel(metric="mae")) == pytest.approx(absolute / weights, rel=1e-5)
    assert float(found.sel(metric="spread")) == pytest.approx(np.sqrt(spread / weights), rel=1e-5)
    ratio = np.sqrt(4 / 3) * np.sqrt(spread / total)
    assert float(found.sel(metric="spread_skill_ratio")) == pytest.approx(ratio, rel=1e-5)


def test_the_climatology_is_the_mean_of_other_data(scores):
    """Noise around 280 with deviation 10 against the mean of five others."""
    rmse = scores["score"].sel(forecaster="climatology", metric="rmse").isel(quantity=0)
    assert float(rmse) == pytest.approx(10 * np.sqrt(1 + 1 / 5), rel=0.15)


def test_ensemble_metrics_are_missing_for_baselines(scores):
    baseline = scores["score"].sel(forecaster="interpolation")
    assert bool(baseline.sel(metric=["crps", "spread"]).isnull().all())
    assert bool(scores["score"].sel(forecaster="model").notnull().all())


def test_metrics_against_a_library():
    rng = np.random.default_rng(0)
    members, target = rng.standard_normal((5, 40)), rng.standard_normal(40)
    weight = rng.random(40)
    rmse, mae, bias, crps, spread, ratio = _metrics(members, target, weight)
    expected = scoringrules.crps_ensemble(target, members.T, estimator="nrg")
    assert crps == pytest.approx((weight * expected).sum() / weight.sum(), rel=1e-6)
    assert bias == pytest.approx(np.average(members.mean(0) - target, weights=weight))
    assert mae <= rmse
    assert ratio == pytest.approx(np.sqrt(6 / 5) * spread / rmse)


def test_a_reliable_ensemble_has_ratio_one():
    """Members and truth from the same distribution (Fortin et al. 2014)."""
    rng = np.random.default_rng(1)
    draws = rng.standard_normal((6, 200_000))
    *_, ratio = _metrics(draws[:5], draws[5], np.ones(200_000))
    assert ratio == pytest.approx(1, abs=0.01)


def test_a_perfect_forecast():
    target = np.arange(4.0)
    assert _metrics(target, target, np.ones(4))[:3] == [0, 0, 0]
    assert np.isnan(_metrics(target[None], target, np.ones(4))[-1])  # one member has no spread


@pytest.mark.parametrize("chunks", [None, {"time": 2, "latitude": 7}])
def test_seeds_repeat_with_dask_or_without(scores, chunks):
    data, others = (small.dataset(seed=seed) for seed in (0, 1))
    if chunks is not None:
        data, others = data.chunk(chunks), others.chunk(chunks)
    again = xatmorep.evaluate(small.model(), data, climatology=others, rate=0.4, seed=2)
    xr.testing.assert_allclose(again, scores)


@pytest.mark.parametrize("present", [small.flipped, small.rolled])
def test_the_same_in_every_form_of_the_data(scores, present):
    other = xatmorep.evaluate(
        small.model(),
        present(small.dataset()),
        climatology=present(small.dataset(seed=1)),
        rate=0.4,
        seed=2,
    )
    kept = ["model", "climatology"]  # triangles of a regular grid are ambiguous
    np.testing.assert_allclose(
        other["score"].sel(forecaster=kept), scores["score"].sel(forecaster=kept), rtol=1e-4
    )


def test_ensemble_members_of_the_data_are_scored_together():
    ds = xr.concat([small.dataset(), small.dataset(seed=3)], "number", data_vars="all")
    ds["geopotential_at_surface"] = small.dataset()["geopotential_at_surface"]
    result = xatmorep.evaluate(small.model(), ds, rate=0.4)
    assert list(result["forecaster"]) == ["model", "interpolation"]
    assert bool(result["score"].sel(metric="rmse").notnull().all())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"baselines": ["persistance"]}, "baseline 'persistance' is unknown"),
        ({"baselines": ["climatology"]}, "baseline 'climatology' needs climatology="),
        ({"task": "forecast"}, "task 'forecast' can't be scored yet"),
    ],
)
def test_impossible_arguments_are_named(arguments, message):
    with pytest.raises(ConfigError) as error:
        xatmorep.evaluate(small.model(), small.dataset(), **arguments)
    assert message in str(error.value)


def test_a_climatology_of_elsewhere_is_refused():
    elsewhere = small.dataset(seed=1).isel(latitude=slice(0, 9))
    with pytest.raises(ConventionError, match="the climatology lacks grid points"):
        xatmorep.evaluate(small.model(), small.dataset(), climatology=elsewhere)


def test_scores_read_back_identical(scores, tmp_path):
    scores.to_netcdf(tmp_path / "scores.nc")
    xr.testing.assert_identical(xr.open_dataset(tmp_path / "scores.nc").load(), scores)
    scores.to_zarr(tmp_path / "scores.zarr", consolidated=False)
    xr.testing.assert_identical(
        xr.open_zarr(tmp_path / "scores.zarr", consolidated=False).load(), scores
    )
