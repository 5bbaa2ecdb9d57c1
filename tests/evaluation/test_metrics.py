from __future__ import annotations

import math

import numpy as np
import pytest
import scoringrules
import xarray as xr

from xatmorep.errors import ConventionError, MissingExtraError
from xatmorep.evaluation.metrics import (
    MEANS,
    METRICS,
    Said,
    map_means,
    metrics,
    ranks,
    weigh,
)

KEPT = ("time", "level")


def _maps(seed: int, members: int = 0, nan: bool = False) -> xr.DataArray:
    rng = np.random.default_rng(seed)
    shape = (1, 4, 2, 5, 6)
    coords = {
        "time": np.arange(4),
        "level": [500.0, 850.0],
        "latitude": np.linspace(80, -80, 5),
        "longitude": np.arange(6) * 60.0,
    }
    dims = ("sample", "time", "level", "latitude", "longitude")
    if members:
        shape, dims = (members, *shape), ("member", *dims)
    values = rng.standard_normal(shape)
    if nan:
        values[rng.random(shape) < 0.2] = np.nan
    return xr.DataArray(values, coords, dims)


@pytest.fixture
def truth() -> xr.DataArray:
    return _maps(0, nan=True)


@pytest.fixture
def hidden(truth) -> xr.DataArray:
    cells = np.random.default_rng(9).random(truth.shape) < 0.6
    cells[:, 3, 1] = False  # one map of which nothing is scored
    return truth.copy(data=cells)


def _points(truth, hidden, said, time, level):
    """Values of all scored points of a map, and their weights: a loop."""
    rows = []
    for j, latitude in enumerate(truth["latitude"].values):
        for i in range(truth.sizes["longitude"]):
            place = {"sample": 0, "time": time, "level": level, "latitude": j, "longitude": i}
            value = float(truth.isel(place))
            if bool(hidden.isel(place)) and not math.isnan(value):
                members = np.atleast_1d(
                    (said.members if said.members is not None else said.mean).isel(place).values
                )
                rows.append((math.cos(math.radians(latitude)), value, members))
    return rows


def test_means_of_an_ensemble_against_loops(truth, hidden):
    said, usual = Said.ensemble(_maps(1, members=5)), _maps(2)
    weight = weigh(truth, hidden, {"model": said})
    found = map_means(said, truth, weight, KEPT, usual)
    assert found.dims == ("mean", *KEPT)
    assert tuple(found["mean"].values) == MEANS
    for time in range(4):
        for level in range(2):
            rows = _points(truth, hidden, said, time, level)
            here = found.isel(time=time, level=level)
            if (time, level) == (3, 1):
                assert not rows
                assert bool(here.isnull().all())
                continue
            total = sum(w for w, _, _ in rows)
            twin = dict.fromkeys(MEANS, 0.0)
            for w, value, members in rows:
                error = members.mean() - value
                first = np.abs(members - value).mean()
                pairs = np.abs(members[:, None] - members).sum()
                twin["square"] += w / total * error**2
                twin["absolute"] += w / total * abs(error)
                twin["error"] += w / total * error
                twin["crps"] += w / total * (first - pairs / (2 * 25))
                twin["crps_fair"] += w / total * (first - pairs / (2 * 20))
                twin["variance"] += w / total * members.var(ddof=1)
            for name in MEANS[:6]:
                assert float(here.sel(mean=name)) == pytest.approx(twin[name], rel=1e-12), name
            assert float(weight.isel(time=time, level=level).sum()) == pytest.approx(total)


def test_anomaly_products_against_numpy(truth, hidden):
    said, usual = Said(_maps(1)), _maps(2)
    weight = weigh(truth, hidden, {"model": said})
    found = map_means(said, truth, weight, KEPT, usual).isel(time=1, level=0)
    w = weight.isel(time=1, level=0).values
    ahead = (said.mean - usual).isel(time=1, level=0).values
    behind = (truth - usual).isel(time=1, level=0).fillna(0).values
    for name, product in {
        "forecast_anomaly_square": ahead**2,
        "truth_anomaly_square": behind**2,
        "anomaly_product": ahead * behind,
    }.items():
        assert float(found.sel(mean=name)) == pytest.approx((w * product).sum() / w.sum())


def test_crps_against_another_library(truth, hidden):
    said = Said.ensemble(_maps(1, members=6))
    weight = weigh(truth, hidden, {"model": said})
    found = map_means(said, truth, weight, KEPT)
    members = said.members.transpose(..., "member").values
    for name, estimator in (("crps", "nrg"), ("crps_fair", "fair")):
        points = scoringrules.crps_ensemble(truth.fillna(0).values, members, estimator=estimator)
        twin = truth.copy(data=points).weighted(weight).mean(["sample", "latitude", "longitude"])
        np.testing.assert_allclose(found.sel(mean=name), twin)


def test_a_normal_distribution_is_a_large_ensemble_of_it(truth, hidden):
    rng = np.random.default_rng(3)
    mean, std = _maps(1), abs(_maps(2)) + 0.1
    draws = xr.concat([mean + std * rng.standard_normal(mean.shape) for _ in range(3000)], "member")
    normal, ensemble = Said(mean, std=std), Said.ensemble(draws)
    weight = weigh(truth, hidden, {"normal": normal})
    found, twin = (map_means(said, truth, weight, KEPT) for said in (normal, ensemble))
    for name in ("crps", "crps_fair", "variance"):
        np.testing.assert_allclose(found.sel(mean=name), twin.sel(mean=name), rtol=0.03)
    assert normal.n_members == np.inf


def test_one_value_has_its_absolute_error_as_crps(truth, hidden):
    said = Said(_maps(1))
    found = map_means(said, truth, weigh(truth, hidden, {"one": said}), KEPT)
    np.testing.assert_array_equal(found.sel(mean="crps"), found.sel(mean="absolute"))
    assert bool(found.sel(mean=["crps_fair", "variance"]).isnull().all())


def test_an_ensemble_of_one_has_no_spread(truth, hidden):
    said = Said.ensemble(_maps(1, members=1))
    found = map_means(said, truth, weigh(truth, hidden, {"one": said}), KEPT)
    np.testing.assert_allclose(found.sel(mean="crps"), found.sel(mean="absolute"))
    assert bool(found.sel(mean=["crps_fair", "variance"]).isnull().all())


def test_all_forecasters_have_the_same_points(truth, hidden):
    """Where one has nothing to say nobody is scored."""
    full, gaps = Said(_maps(1)), Said(_maps(2, nan=True))
    weight = weigh(truth, hidden, {"full": full, "gaps": gaps})
    scored = hidden & truth.notnull() & gaps.mean.notnull()
    assert bool(((weight > 0) == scored).all())


@pytest.mark.parametrize("dim", ["time", "level", "latitude", "longitude"])
def test_other_coordinates_are_refused(truth, hidden, dim):
    moved = _maps(1).assign_coords({dim: _maps(1)[dim] + 1})
    with pytest.raises(ConventionError, match=f"other coordinates.*{dim}"):
        weigh(truth, hidden, {"model": Said(moved)})
    weight = weigh(truth, hidden, {"model": Said(_maps(1))})
    for said, usual in (
        (Said(moved), None),
        (Said(_maps(1)), moved),
        (Said(_maps(1), moved), None),
    ):
        with pytest.raises(ConventionError, match="other coordinates"):
            map_means(said, truth, weight, KEPT, usual)


def test_ranks_count_members_below_and_share_ties():
    truth = xr.DataArray(
        [[0.5, 2.0, 9.0]],
        {"latitude": [0.0], "longitude": [0.0, 1.0, 2.0]},
        ("latitude", "longitude"),
    ).expand_dims(time=[0])
    members = xr.concat([truth * 0 + value for value in (1.0, 2.0, 3.0)], "member")
    found = ranks(members, truth, xr.ones_like(truth), ("time",))
    # 0.5 lies below all; 2 equals one, so it has the ranks 2 and 3; 9 lies above all.
    np.testing.assert_allclose(found.isel(time=0), [1 / 3, 1 / 6, 1 / 6, 1 / 3])


def test_ranks_are_weighted_and_skip_what_has_no_weight(truth, hidden):
    members = _maps(1, members=4)
    weight = weigh(truth, hidden, {"model": Said.ensemble(members)})
    found = ranks(members, truth, weight, KEPT)
    counts = np.zeros(5)
    for j in range(5):
        for i in range(6):
            w = float(weight.isel(sample=0, time=0, level=1, latitude=j, longitude=i))
            value = truth.isel(sample=0, time=0, level=1, latitude=j, longitude=i)
            column = members.isel(sample=0, time=0, level=1, latitude=j, longitude=i)
            counts[int((column < value).sum())] += w
    np.testing.assert_allclose(found.isel(time=0, level=1), counts / counts.sum())


def test_ranks_of_exchangeable_members_are_flat():
    rng = np.random.default_rng(0)
    draws = rng.standard_normal((6, 40_000))
    coords = {"latitude": [0.0], "longitude": np.arange(40_000.0)}
    truth, *members = (
        xr.DataArray(draw[None], coords, ("latitude", "longitude")).expand_dims(time=[0])
        for draw in draws
    )
    found = ranks(xr.concat(members, "member"), truth, xr.ones_like(truth), ("time",))
    np.testing.assert_allclose(found.isel(time=0), 1 / 6, atol=0.01)


def test_a_reliable_ensemble_has_ratio_one():
    """Members and truth from the same distribution (Fortin et al. 2014)."""
    draws = np.random.default_rng(1).standard_normal((6, 200_000))
    means = np.zeros(len(MEANS))
    means[MEANS.index("square")] = ((draws[:5].mean(0) - draws[5]) ** 2).mean()
    means[MEANS.index("variance")] = draws[:5].var(0, ddof=1).mean()
    found = metrics(means, np.array(1.0), np.array(5))
    assert found["spread_skill_ratio"] == pytest.approx(1, abs=0.01)


def test_anomaly_correlation_in_its_limits():
    anomaly = np.random.default_rng(2).standard_normal(1000)
    for factor, expected in ((3.0, 1.0), (-0.5, -1.0), (0.0, np.nan)):
        means = np.zeros(len(MEANS))
        means[-3:] = (
            (factor * anomaly) @ (factor * anomaly),
            anomaly @ anomaly,
            factor * (anomaly @ anomaly),
        )
        found = metrics(means, np.array(1.0), np.array(1))["acc"]
        np.testing.assert_allclose(found, expected)


def test_a_perfect_forecast():
    found = metrics(np.zeros(len(MEANS)), np.array(2.0), np.array(4))
    assert [float(found[name]) for name in ("rmse", "normalized_rmse", "mae", "crps")] == [0] * 4
    assert np.isnan(found["spread_skill_ratio"])
    assert set(found) == set(METRICS)


def test_the_extra_is_named(truth, hidden, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "scores.functions", None)
    with pytest.raises(MissingExtraError, match=r"xatmorep\[metrics\]"):
        weigh(truth, hidden, {"model": Said(_maps(1))})
