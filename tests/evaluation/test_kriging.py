from __future__ import annotations

import numpy as np
import pytest

from xatmorep.evaluation.correlation import Correlation, positions
from xatmorep.evaluation.kriging import Geometry, krige

LATITUDE = np.array([50.0, 40.0, 30.0, 20.0])
LONGITUDE = np.arange(6) * 10.0
HOURS = np.array([0.0, 6.0, 12.0, 19.0, 24.0, 30.0])


def _correlation(drift: float = 0.0) -> Correlation:
    """Waves of two ranges, which are forgotten differently fast."""
    weights = np.zeros((4, 5))
    weights[1, 2], weights[2, 0], weights[3, 3] = 0.3, 0.4, 0.25
    return Correlation((0, 1, 5, 12, 25), (18.0,), weights, np.full(4, drift))


def _geometry(**changes) -> Geometry:
    return Geometry(LATITUDE, LONGITUDE, (2, 2, 3), (1, 1, 1), 6, **changes)


def _case(seed: int = 0, rate: float = 0.4) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return rng.standard_normal((1, 6, 4, 6)), rng.random((1, 6, 4, 6)) > rate


def _dense(values, visible, correlation, hours=HOURS):
    """Simple kriging of everything from everything, one system of equations."""
    grid = np.meshgrid(hours, np.deg2rad(LATITUDE), np.deg2rad(LONGITUDE), indexing="ij")
    time, latitude, longitude = (axis.ravel() for axis in grid)
    speed = np.broadcast_to(correlation.drift[None, :, None], values.shape[1:]).ravel()
    # The air moves: places are those where it would be at one common time.
    points = positions(latitude, longitude - speed * (time - hours.mean()))
    angle = np.arccos((points @ points.T).clip(-1, 1))
    alike = correlation(angle, time[:, None] - time)
    np.fill_diagonal(alike, 1.0)
    known = visible.ravel()
    weights = np.linalg.solve(alike[np.ix_(known, known)], alike[known])
    estimate = weights.T @ values.ravel()[known]
    variance = 1 - (weights * alike[known]).sum(0)
    return estimate.reshape(values.shape), variance.reshape(values.shape)


@pytest.mark.parametrize("seed", range(3))
def test_with_all_neighbors_it_is_the_dense_solution(seed):
    values, visible = _case(seed)
    correlation = _correlation()
    found, variance = krige(
        values, visible, HOURS[None], slice(0, 6), correlation, _geometry(neighbors=10_000)
    )
    estimate, left = _dense(values, visible, correlation)
    np.testing.assert_allclose(found, estimate, atol=1e-5)
    np.testing.assert_allclose(variance, left, atol=1e-5)


def test_air_that_moves_is_the_dense_solution_where_it_would_be():
    """All frames in one window, so that the common time is the same."""
    values, visible = _case(1)
    correlation = _correlation(drift=np.deg2rad(15) / 24)
    geometry = Geometry(LATITUDE, LONGITUDE, (6, 4, 6), (1, 1, 1), 6, 10_000)
    found, _ = krige(values, visible, HOURS[None], slice(0, 6), correlation, geometry)
    np.testing.assert_allclose(found, _dense(values, visible, correlation)[0], atol=1e-4)
    still, _ = krige(values, visible, HOURS[None], slice(0, 6), _correlation(), geometry)
    assert abs(found - still).max() > 0.1


def test_few_neighbors_come_near_the_dense_solution():
    values, visible = _case(4, rate=0.2)
    correlation = _correlation()
    estimate, _ = _dense(values, visible, correlation)
    errors = []
    for neighbors in (4, 16, 64):
        found, _ = krige(
            values,
            visible,
            HOURS[None],
            slice(0, 6),
            correlation,
            Geometry(LATITUDE, LONGITUDE, (1, 1, 1), (1, 1, 1), 6, neighbors),
        )
        errors.append(np.sqrt(((found - estimate) ** 2).mean()))
    assert errors[0] > errors[1] > errors[2]
    assert errors[2] < 0.1


def test_visible_points_keep_their_value():
    values, visible = _case(5)
    found, variance = krige(values, visible, HOURS[None], slice(1, 5), _correlation(), _geometry())
    seen = visible[:, 1:5]
    np.testing.assert_array_equal(found[seen], values[:, 1:5][seen])
    assert (variance[seen] == 0).all()
    assert (variance[~seen] > 0).all()
    assert (variance <= 1).all()


def test_a_point_beside_a_visible_one_is_like_it():
    """Exact in the limit: the estimate comes to the value as the distance goes to zero."""
    weights = np.zeros((2, 5))
    weights[1, 2] = 0.999
    correlation = Correlation((0, 3, 6), (24.0,), weights, np.zeros(1))
    visible = np.array([[[[True, False]]]])
    values = np.array([[[[2.0, 0.0]]]])
    estimates = []
    for degrees in (1e-3, 2.0, 10.0):
        geometry = Geometry(np.zeros(1), np.array([0.0, degrees]), (1, 1, 1), (1, 1, 1), 1)
        found, _ = krige(values, visible, np.zeros((1, 1)), slice(0, 1), correlation, geometry)
        estimates.append(found[0, 0, 0, 1])
    assert estimates[0] == pytest.approx(2 * 0.999, rel=1e-4)
    assert 2 > estimates[0] > estimates[1] > estimates[2] > 0


def test_far_from_all_visible_points_it_is_the_climatology():
    """Estimate 0 and variance 1: nothing is known there."""
    weights = np.zeros((1, 5))
    weights[0, 2] = 0.999
    correlation = Correlation((0, 60), (6.0,), weights, np.zeros(4))
    values = np.full((1, 6, 4, 6), 3.0)
    visible = np.zeros(values.shape, dtype=bool)
    visible[:, 0, :, :2] = True
    found, variance = krige(values, visible, HOURS[None], slice(5, 6), correlation, _geometry())
    np.testing.assert_allclose(found, 0, atol=1e-4)
    np.testing.assert_allclose(variance, 1, atol=1e-4)


def test_nothing_visible_is_the_climatology():
    values, visible = _case()
    found, variance = krige(
        values, visible & False, HOURS[None], slice(0, 6), _correlation(), _geometry()
    )
    assert (found == 0).all()
    assert (variance == 1).all()


def test_what_is_beyond_reach_is_not_used():
    values, visible = _case()
    visible[:] = False
    visible[:, 0] = True
    geometry = Geometry(LATITUDE, LONGITUDE, (1, 2, 3), (1, 1, 1), 2)
    found, _ = krige(values, visible, HOURS[None], slice(1, 4), _correlation(), geometry)
    assert (found[:, :2] != 0).any(axis=(0, 2, 3)).all()
    assert (found[:, 2] == 0).all()


def test_missing_values_are_not_touched():
    values, visible = _case(2)
    values[~visible] = np.nan
    found, _ = krige(values, visible, HOURS[None], slice(0, 6), _correlation(), _geometry())
    assert np.isfinite(found).all()


def test_cases_with_the_same_holes_share_weights_and_others_do_not():
    first, visible = _case(0)
    second, other = _case(1)
    values = np.concatenate([first, second, first])
    masks = np.concatenate([visible, visible, other])
    hours = np.concatenate([HOURS[None], HOURS[None] + 1000, HOURS[None]])
    found, variance = krige(values, masks, hours, slice(0, 6), _correlation(), _geometry())
    for i in range(3):
        alone = krige(
            values[i : i + 1],
            masks[i : i + 1],
            hours[i : i + 1],
            slice(0, 6),
            _correlation(),
            _geometry(),
        )
        np.testing.assert_allclose(found[i], alone[0][0], atol=1e-9)
        np.testing.assert_allclose(variance[i], alone[1][0], atol=1e-9)


def test_errors_are_as_large_as_the_variance_says():
    """Fields drawn from the very correlations that are used."""
    correlation = _correlation()
    grid = np.meshgrid(HOURS, np.deg2rad(LATITUDE), np.deg2rad(LONGITUDE), indexing="ij")
    time, latitude, longitude = (axis.ravel() for axis in grid)
    points = positions(latitude, longitude)
    alike = correlation(np.arccos((points @ points.T).clip(-1, 1)), time[:, None] - time)
    np.fill_diagonal(alike, 1.0)
    root = np.linalg.cholesky(alike)
    rng = np.random.default_rng(7)
    values = (root @ rng.standard_normal((len(time), 400))).T.reshape(400, 6, 4, 6)
    visible = np.broadcast_to(_case(3)[1], values.shape)
    hours = np.broadcast_to(HOURS, (400, 6))
    found, variance = krige(values, visible, hours, slice(0, 6), correlation, _geometry())
    error = ((found - values)[~visible] ** 2).mean()
    assert error == pytest.approx(variance[~visible].mean(), rel=0.05)
    assert error < 0.9  # better than the climatology


def test_large_tokens_are_cut_into_blocks():
    geometry = Geometry(LATITUDE, LONGITUDE, (1, 15, 15), (1, 2, 2), 1)
    assert geometry.block == (1, 8, 8)
    rows = geometry.block_of(1, np.arange(31))
    assert rows.tolist() == [0] * 8 + [1] * 7 + [2] * 8 + [3] * 7 + [4]
