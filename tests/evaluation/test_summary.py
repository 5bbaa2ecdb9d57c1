from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import xarray as xr
from scipy import stats

from xatmorep.evaluation.metrics import METRICS, Said
from xatmorep.evaluation.summary import Bootstrap, Tally, result_of

LEVELS = np.array([500.0, 850.0])


def _maps(seed: int, n_times: int, members: int = 0, scale: float = 1.0) -> xr.DataArray:
    rng = np.random.default_rng(seed)
    coords = {
        "time": np.arange(n_times),
        "level": LEVELS,
        "latitude": np.linspace(60, -60, 4),
        "longitude": 45.0 * np.arange(8),
    }
    dims = ("sample", "time", "level", "latitude", "longitude")
    shape = (1, n_times, 2, 4, 8)
    if members:
        dims, shape = ("member", *dims), (members, *shape)
    return xr.DataArray(scale * rng.standard_normal(shape), coords, dims)


def _tally(n_times: int = 20, parts: int = 1) -> Tally:
    truth, members = _maps(0, n_times), _maps(1, n_times, members=3, scale=0.5)
    hidden = _maps(2, n_times) > 0
    said = {
        "model": members,
        "worse": _maps(3, n_times, scale=2.0),
        "better": truth + _maps(4, n_times, scale=0.3),
    }
    tally = Tally(("time",))
    edges = np.linspace(0, n_times, parts + 1).astype(int)
    for start, stop in pairwise(edges):
        window = {"time": slice(start, stop)}
        tally.add(
            truth.isel(window),
            hidden.isel(window),
            {
                name: Said.ensemble(x.isel(window)) if name == "model" else Said(x.isel(window))
                for name, x in said.items()
            },
            None,
            circle=True,
        )
    return tally


def _result(tally: Tally, n_times: int = 20, **options) -> xr.Dataset:
    given = {"block": 2, "n_resamples": 40, "confidence": 0.9, "seed": 0} | options
    return result_of(
        {"field": tally},
        {"field": LEVELS},
        {"field": None},
        Bootstrap.of(n_times, **given),
        {"model": 3, "worse": 1, "better": 1},
    )


def test_parts_add_up():
    xr.testing.assert_allclose(_result(_tally(parts=4)), _result(_tally(parts=1)))


def test_the_best_baseline_is_the_one_with_the_lowest_score():
    result = _result(_tally())
    for metric in ("rmse", "mae"):
        ratio = result["ratio"].sel(metric=metric)
        np.testing.assert_allclose(ratio.sel(baseline="best"), ratio.sel(baseline="better"))
        assert bool((ratio.sel(baseline="worse") < ratio.sel(baseline="better")).all())


def test_intervals_against_a_loop_over_resamples():
    """Each resample is scored from its times, the same for model and baselines."""
    tally = _tally()
    bootstrap = Bootstrap.of(20, 2, 40, 0.9, 0)
    weight = tally.joined("weights").sel(level=850).values
    square = tally.joined("means").sel(mean="square", level=850)
    draws = {"rmse": [], "ratio": []}
    for counts in bootstrap.counts:
        times = np.repeat(np.arange(20), counts.astype(int))
        rmse = {
            name: np.sqrt(
                np.average(square.sel(forecaster=name).values[times], weights=weight[times])
            )
            for name in ("model", "better")
        }
        draws["rmse"].append(rmse["model"])
        draws["ratio"].append(rmse["model"] / rmse["better"])
    result = _result(tally).sel(metric="rmse", level=850, field="field")
    tail = stats.norm.cdf(stats.t.ppf(0.05, df=9) * np.sqrt(10 / 9))  # ten blocks
    found = result["score_interval"].sel(forecaster="model")
    np.testing.assert_allclose(found, np.quantile(draws["rmse"], [tail, 1 - tail]))
    found = result["ratio_interval"].sel(baseline="best")
    np.testing.assert_allclose(found, np.quantile(draws["ratio"], [tail, 1 - tail]))


def test_intervals_of_a_mean_over_fields_draw_the_same_times():
    result = result_of(
        {"a": _tally(), "b": _tally()},
        {"a": LEVELS, "b": LEVELS},
        {"a": None, "b": None},
        Bootstrap.of(20, 2, 40, 0.9, 0),
        {"model": 3, "worse": 1, "better": 1},
    )
    one = _result(_tally())
    np.testing.assert_allclose(result["mean_ratio"], one["mean_ratio"])
    np.testing.assert_allclose(result["mean_ratio_interval"], one["mean_ratio_interval"])


@pytest.mark.parametrize(("block", "there"), [(4, True), (5, False)])
def test_fewer_than_five_blocks_give_no_interval(block, there):
    result = _result(_tally(), block=block)
    known = result["score_interval"].sel(metric="rmse").notnull()
    assert bool(known.all()) == there
    assert bool(known.any()) == there


def test_fields_with_other_levels_lie_side_by_side():
    result = result_of(
        {"a": _tally(), "b": _tally()},
        {"a": LEVELS, "b": np.array([np.nan, 850.0])},
        {"a": None, "b": np.array([1.0, 2.0])},
        Bootstrap.of(20, 2, 10, 0.9, 0),
        {"model": 3, "worse": 1, "better": 1},
    )
    np.testing.assert_array_equal(result["level"], [np.nan, 500, 850])
    score = result["score"].sel(forecaster="model", metric="rmse")
    np.testing.assert_array_equal(score.notnull(), [[False, True, True], [True, False, True]])
    assert float(score.sel(field="a", level=500)) == float(score.sel(field="b")[0])
    np.testing.assert_array_equal(result["anomaly_std"].sel(field="b"), [1, np.nan, 2])
    assert result["metric"].values.tolist() == list(METRICS)
