from __future__ import annotations

import numpy as np
import pytest
import xarray as xr
from scipy.interpolate import LinearNDInterpolator

from xatmorep.evaluation.baselines import interpolate, interpolate_in_time, persist


def _grid(function, rows: int = 12, columns: int = 24) -> xr.DataArray:
    latitude = 82.5 - 15 * np.arange(rows)
    longitude = 360 / columns * np.arange(columns)
    values = function(latitude[:, None], longitude[None]) + np.zeros((rows, columns))
    return xr.DataArray(values, {"latitude": latitude, "longitude": longitude})


def _hide(values: xr.DataArray, seed: int, rate: float = 0.4) -> xr.DataArray:
    cells = np.random.default_rng(seed).random((6, 8)) < rate
    return xr.zeros_like(values, bool).copy(data=cells.repeat(2, 0).repeat(3, 1))


@pytest.mark.parametrize("seed", range(3))
def test_planes_are_exact(seed):
    """Inside of a region any linear field comes back, whatever is hidden."""
    values = _grid(lambda lat, lon: 2 * lat + 3 * lon).isel(longitude=slice(0, 12))
    hidden = _hide(_grid(lambda lat, lon: lat), seed).isel(longitude=slice(0, 12))
    hidden[[0, -1]] = False  # the rim stays visible, so that nothing is beyond it
    hidden[:, [0, -1]] = False
    result = interpolate(values, hidden, "latitude", "longitude")
    np.testing.assert_allclose(result.where(hidden, values), values, atol=1e-9)
    assert bool((result.notnull() == hidden).all())


def test_the_rim_gives_the_triangles_of_all_points():
    """The same as with every visible point, where triangles aren't ambiguous."""
    rng = np.random.default_rng(0)
    values = _grid(lambda lat, lon: np.sin(np.deg2rad(lon)) * lat)
    jitter = rng.uniform(-2, 2, 12)  # uneven rows: no four points on a circle
    values = values.assign_coords(latitude=values["latitude"] + jitter)
    hidden = _hide(values, 1).isel(longitude=slice(0, 9))
    values = values.isel(longitude=slice(0, 9))
    hidden[[0, -1]] = False
    hidden[:, [0, -1]] = False
    result = interpolate(values, hidden, "latitude", "longitude").values[hidden.values]
    rows, columns = np.meshgrid(values["latitude"], values["longitude"], indexing="ij")
    seen = ~hidden.values
    twin = LinearNDInterpolator(np.stack([rows[seen], columns[seen]], 1), values.values[seen])
    expected = twin(np.stack([rows[~seen], columns[~seen]], 1))
    same = np.isclose(result, expected, atol=1e-9)
    assert same.mean() > 0.8


def test_longitude_goes_on_across_the_edge_of_a_global_map():
    values = _grid(lambda lat, lon: np.cos(np.deg2rad(lon)))
    hidden = xr.zeros_like(values, bool)
    hidden[4:8, [0, 1, -1]] = True
    result = interpolate(values, hidden, "latitude", "longitude")
    rolled = interpolate(
        values.roll(longitude=12, roll_coords=False),
        hidden.roll(longitude=12, roll_coords=False),
        "latitude",
        "longitude",
    ).roll(longitude=-12, roll_coords=False)
    np.testing.assert_allclose(result, rolled, atol=1e-9)
    expected = np.cos(np.deg2rad(30))  # constant between columns 22 and 2, which are 30 degrees off
    assert float(result[5, 0]) == pytest.approx(expected, abs=0.04)


def test_beyond_the_outermost_points_the_nearest_counts():
    values = _grid(lambda lat, lon: lat)
    hidden = xr.zeros_like(values, bool)
    hidden[:2] = True
    result = interpolate(values, hidden, "latitude", "longitude")
    np.testing.assert_allclose(result[:2], float(values[2, 0]))


def test_missing_values_are_not_used():
    values = _grid(lambda lat, lon: lat)
    values[5, 5] = np.nan
    hidden = xr.zeros_like(values, bool)
    hidden[5, 6] = True
    result = interpolate(values, hidden, "latitude", "longitude")
    assert float(result[5, 6]) == pytest.approx(float(values["latitude"][5]))


def test_nothing_visible_gives_nothing():
    values = _grid(lambda lat, lon: lat)
    hidden = xr.ones_like(values, bool)
    assert bool(interpolate(values, hidden, "latitude", "longitude").isnull().all())


def test_every_time_and_member_is_a_map_of_its_own():
    values = xr.concat([_grid(lambda lat, lon: lat), _grid(lambda lat, lon: -lat)], "time")
    hidden = xr.concat([_hide(values[0], 3), _hide(values[0], 4)], "time")
    result = interpolate(values, hidden, "latitude", "longitude")
    assert result.dims == values.dims
    for i in range(2):
        xr.testing.assert_equal(
            result[i], interpolate(values[i], hidden[i], "latitude", "longitude")
        )


def test_points_on_one_line_take_the_nearest():
    values = _grid(lambda lat, lon: lon).isel(longitude=slice(0, 3))
    hidden = xr.ones_like(values, bool)
    hidden[5] = False  # only one row is visible: no triangle
    result = interpolate(values, hidden, "latitude", "longitude")
    np.testing.assert_allclose(result[4], values[5])


def test_maps_along_other_dimensions_are_interpolated_together():
    first, second = _grid(lambda lat, lon: lat), _grid(lambda lat, lon: np.sin(np.deg2rad(lon)))
    hidden = _hide(first, 5)
    both = interpolate(xr.concat([first, second], "of"), hidden, "latitude", "longitude")
    for i, values in enumerate((first, second)):
        np.testing.assert_array_equal(
            both.isel(of=i), interpolate(values, hidden, "latitude", "longitude")
        )


# ---- in time


def _series(seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    hours = np.cumsum(rng.uniform(1, 9, (2, 12)), axis=1)
    return rng.standard_normal((2, 12, 3)), rng.random((2, 12, 3)) < 0.4, hours


@pytest.mark.parametrize("reach", [2, 5, 20])
@pytest.mark.parametrize("seed", range(3))
def test_in_time_against_loops(seed, reach):
    values, visible, hours = _series(seed)
    wanted = slice(3, 10)
    persisted = persist(values, visible, hours, wanted, reach)
    between = interpolate_in_time(values, visible, hours, wanted, reach)
    for case, point in np.ndindex(2, 3):
        for frame in range(3, 10):
            seen = [f for f in range(12) if visible[case, f, point] and abs(f - frame) <= reach]
            before = max((f for f in seen if f <= frame), default=None)
            after = min((f for f in seen if f >= frame), default=None)
            got = persisted[case, frame - 3, point], between[case, frame - 3, point]
            if not seen:
                assert np.isnan(got).all()
                continue
            low = values[case, after if before is None else before, point]
            high = values[case, before if after is None else after, point]
            start = hours[case, after if before is None else before]
            stop = hours[case, before if after is None else after]
            share = (hours[case, frame] - start) / (stop - start) if stop > start else 0
            assert got[0] == low
            assert got[1] == pytest.approx(low + share * (high - low))


def test_a_straight_line_in_time_is_exact():
    hours = np.array([[0.0, 7.0, 15.0, 22.0, 30.0]])
    values = 2 * hours[..., None] + 1
    visible = np.array([True, False, False, True, True]).reshape(1, 5, 1)
    found = interpolate_in_time(values, visible, hours, slice(0, 5), 5)
    np.testing.assert_allclose(found, values)
