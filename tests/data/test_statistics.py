"""Statistics of a field against a slow twin: plain numpy, two passes, explicit loops."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.data.test_normalization import CHOICES, field, fitted, noise
from xatmorep.data.normalization import Normalizer

EPS = float(np.finfo(np.float32).eps)


def months_of(array: xr.DataArray, period: str) -> tuple[list[int], list[int]]:
    """Month of each time, and the months that statistics are of."""
    times = array["time"].values.astype("datetime64[M]").astype(int) + 12 * 1970
    if period == "year_month":
        return times.tolist(), sorted(set(times.tolist()))
    return (times % 12 + 1).tolist(), list(range(1, 13))


def twin(
    array: xr.DataArray, mean: str, std: str, period: str, weighting: str = "area"
) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation (month, level, latitude, longitude) without any shortcut."""
    values = array.values.astype(np.float64).reshape(-1, *array.shape[-4:])
    months, numbers = months_of(array, period)
    weights = [
        max(np.cos(np.deg2rad(latitude)), 1e-4) if weighting == "area" else 1.0
        for latitude in array["latitude"].values
    ]
    n_number, n_time, n_level, n_lat, n_lon = values.shape

    def moment(level: int, month: int | None, place: Any, center: Any) -> tuple[float, float]:
        """Weighted mean, or mean square deviation from a center, of all values that count."""
        total = weight = 0.0
        for e in range(n_number):
            for t in range(n_time):
                if month is not None and months[t] != month:
                    continue
                for i in range(n_lat):
                    for j in range(n_lon):
                        x = values[e, t, level, i, j]
                        if np.isfinite(x) and place in (None, (i, j)):
                            weight += weights[i]
                            total += weights[i] * (x if center is None else (x - center[i, j]) ** 2)
        return total, weight

    def center_of(level: int, month: int | None, scope: str) -> np.ndarray:
        out = np.full((n_lat, n_lon), np.nan)
        for i in range(n_lat):
            for j in range(n_lon):
                total, weight = moment(level, month, (i, j) if scope == "local" else None, None)
                if weight:
                    out[i, j] = total / weight
        return out

    def spread_of(level: int, month: int | None, scope: str, center: np.ndarray) -> np.ndarray:
        out = np.full((n_lat, n_lon), np.nan)
        for i in range(n_lat):
            for j in range(n_lon):
                place = (i, j) if scope == "local" else None
                total, weight = moment(level, month, place, center)
                size = abs(center[i, j]) if scope == "local" else np.nanmax(np.abs(center))
                if weight and np.sqrt(total / weight) > max(EPS * size, 1e-30):
                    out[i, j] = np.sqrt(total / weight)
        return out

    def first(*candidates: np.ndarray) -> np.ndarray:
        out = candidates[0]
        for candidate in candidates[1:]:
            out = np.where(np.isnan(out), candidate, out)
        return out

    means = np.empty((len(numbers), n_level, n_lat, n_lon))
    stds = np.empty_like(means)
    for level in range(n_level):
        level_mean = first(center_of(level, None, "global"), np.zeros((n_lat, n_lon)))
        level_std = first(spread_of(level, None, "global", level_mean), np.ones((n_lat, n_lon)))
        whole_mean = first(center_of(level, None, mean), level_mean)
        whole_std = first(spread_of(level, None, std, whole_mean), level_std)
        for row, month in enumerate(numbers):
            when = None if period == "record" else month
            m, s = whole_mean, whole_std
            if when in months:
                m = first(center_of(level, when, mean), whole_mean)
                s = first(spread_of(level, when, std, m), whole_std)
            if std == "local":
                s = np.maximum(s, 1e-3 * level_std)
            means[row, level], stds[row, level] = m, s
    return means, stds


def full(statistics: xr.DataArray, array: xr.DataArray, period: str) -> np.ndarray:
    """Statistics spread out over (month, level, latitude, longitude)."""
    _, numbers = months_of(array, period)
    months = "month" if period == "record" else period
    if months in statistics.dims:
        assert statistics[months].values.tolist() == numbers
    shape = {months: len(numbers)}
    shape |= {dim: array.sizes[dim] for dim in ("level", "latitude", "longitude")}
    kept = [dim for dim in shape if dim in statistics.dims]
    assert list(statistics.dims) == kept
    index = tuple(slice(None) if dim in kept else None for dim in shape)
    return np.broadcast_to(statistics.values[index], tuple(shape.values()))


@settings(max_examples=40)
@given(
    choices=st.sampled_from(CHOICES),
    seed=st.integers(0, 9999),
    offset=st.sampled_from([0.0, -3.0, 1e5]),
    shape=st.tuples(*(st.integers(1, most) for most in (2, 3, 2, 3, 2))),
    holes=st.sampled_from([0.0, 0.3, 0.8]),
    step=st.sampled_from([20, 200]),
    weights=st.sampled_from(["area", "none"]),
)
def test_statistics_equal_the_slow_twin(
    choices: tuple[Any, Any, Any],
    seed: int,
    offset: float,
    shape: tuple[int, ...],
    holes: float,
    step: int,
    weights: Any,
) -> None:
    values = noise(*shape, seed=seed, offset=offset)
    values[np.random.default_rng(seed + 1).random(shape) < holes] = np.nan
    days = step * np.arange(shape[1])
    array = field(values, time=np.datetime64("2001-01-05", "s") + days * np.timedelta64(24, "h"))
    mean, std, period = choices
    normalizer = Normalizer.fit({"x": array}, mean=mean, std=std, period=period, weights=weights)
    means, stds = twin(array, *choices, weights)
    np.testing.assert_allclose(
        full(normalizer.mean["x"], array, period), means, rtol=1e-5, atol=1e-4
    )
    np.testing.assert_allclose(full(normalizer.std["x"], array, period), stds, rtol=1e-5)


@settings(max_examples=40)
@given(
    choices=st.sampled_from(CHOICES),
    seed=st.integers(0, 9999),
    offset=st.sampled_from([0.0, 280.0, 1e5]),
)
def test_normalized_data_have_zero_mean_and_unit_square(
    choices: tuple[str, str, str], seed: int, offset: float
) -> None:
    mean, std, period = choices
    array = field(noise(3, 6, 2, 4, 3, seed=seed, offset=offset))
    normalizer = fitted(array, *choices)
    normalized = normalizer.apply("x", array).astype(np.float64)
    # The mean is stored in float32: what it is off by counts in standard deviations.
    bound = 4 * EPS * (1 + float(abs(array).max() / normalizer.std["x"].min()))
    weights = np.cos(np.deg2rad(array["latitude"])).clip(1e-4)
    groups = normalized.groupby("time.month") if period != "record" else [(0, normalized)]
    for _, part in groups:
        for scope, power, expected in ((mean, part, 0.0), (std, part**2, 1.0)):
            if power is part and (mean, std) == ("global", "local"):
                continue  # mean zero before the division by a different number at each point
            dims = ["number", "time"] + (["latitude", "longitude"] if scope == "global" else [])
            np.testing.assert_allclose(power.weighted(weights).mean(dims), expected, atol=bound)


def test_infinite_values_are_ignored() -> None:
    values = noise(4, 1, 3, 4)
    values[2, 0, 1, 1] = np.nan
    with_nan = fitted(field(values), "local", "local", "record")
    values[2, 0, 1, 1] = np.inf
    assert fitted(field(values), "local", "local", "record").to_bytes() == with_nan.to_bytes()


@pytest.mark.parametrize("value", [0.0, 300.0, 101325.0, 0.1, 1e-40, -1e30])
@pytest.mark.parametrize("choices", CHOICES)
def test_constant_field(choices: tuple[str, str, str], value: float) -> None:
    array = field(np.full((3, 2, 3, 4), value))
    normalizer = fitted(array, *choices)
    assert (normalizer.std["x"] == 1).all()
    np.testing.assert_allclose(normalizer.apply("x", array), 0.0, atol=abs(value) * EPS)


def test_places_without_values_or_variation() -> None:
    values = noise(5, 1, 3, 4)
    values[:, 0, 0, 0] = np.nan
    values[:, 0, 1, 1] = 280.0
    values[:, 0, 2, 2] = 280.0 + 1e-3 * np.arange(5)
    array = field(values)
    normalizer = fitted(array, "local", "local", "record")
    level = fitted(array)
    mean, std = normalizer.mean["x"][0], normalizer.std["x"][0]
    assert mean[0, 0] == level.mean["x"]
    assert std[0, 0] == level.std["x"]
    assert mean[1, 1] == 280.0
    assert std[1, 1] == level.std["x"]
    np.testing.assert_allclose(std[2, 2], 1e-3 * level.std["x"].item(), rtol=1e-6)


def test_empty_level_and_empty_first_frame() -> None:
    values = noise(4, 2, 3, 4)
    values[:, 0] = np.nan
    values[0] = np.nan
    for choices in CHOICES:
        normalizer = fitted(field(values), *choices)
        assert (normalizer.mean["x"].sel(level=1) == 0).all()
        assert (normalizer.std["x"].sel(level=1) == 1).all()
        assert (abs(normalizer.mean["x"].sel(level=2) - 280) < 60).all()


def test_one_time_step_borrows_the_variation_of_its_level() -> None:
    array = field(noise(1, 2, 3, 4))
    level = fitted(array)
    for std in ("global", "local"):
        normalizer = fitted(array, "local", std, "month")
        np.testing.assert_array_equal(normalizer.mean["x"].sel(month=1), array[0])
        assert (normalizer.std["x"] == level.std["x"]).all()


def test_large_offset_costs_no_digits() -> None:
    # Geopotential high up: the spread is a millionth of the value, 16 units of float32.
    values = np.float32(2.0**22) + np.array([-4.0, 4.0] * 50).reshape(100, 1, 1, 1)
    normalizer = fitted(field(values))
    assert normalizer.std["x"].item() == 4.0
