from __future__ import annotations

import numpy as np
import pytest
import xarray as xr

from xatmorep.evaluation.spectrum import is_circle, zonal_energy


def _maps(values: np.ndarray) -> xr.DataArray:
    n_rows, n_columns = values.shape[-2:]
    coords = {
        "latitude": np.linspace(60, -60, n_rows),
        "longitude": 360 / n_columns * np.arange(n_columns),
    }
    dims = ("time", "latitude", "longitude")[-values.ndim :]
    return xr.DataArray(values, coords, dims)


def test_against_sums_of_sines_and_cosines():
    """Energies by projection, one wave after the other."""
    values = np.random.default_rng(0).standard_normal((2, 3, 8))
    found = zonal_energy(_maps(values))
    longitude = 2 * np.pi * np.arange(8) / 8
    area = np.cos(np.deg2rad([60, 0, -60]))
    for k in range(1, 5):
        cosine, sine = np.cos(k * longitude), np.sin(k * longitude)
        a, b = values @ cosine / 8, values @ sine / 8
        rows = (a**2 + b**2) * (1 if k == 4 else 2)
        np.testing.assert_allclose(found.sel(wavenumber=k), rows @ area / area.sum())


@pytest.mark.parametrize("n", [8, 9])
def test_energies_add_up_to_the_variance(n):
    values = np.random.default_rng(1).standard_normal((1, n))
    assert float(zonal_energy(_maps(values)).sum()) == pytest.approx(values.var())


def test_rows_with_missing_values_dont_count():
    values = np.random.default_rng(2).standard_normal((3, 8))
    gaps = values.copy()
    gaps[1, 4] = np.nan
    whole = _maps(values).isel(latitude=[0, 2])
    np.testing.assert_allclose(zonal_energy(_maps(gaps)), zonal_energy(whole))
    assert bool(zonal_energy(_maps(np.full((3, 8), np.nan))).isnull().all())


def test_what_is_a_circle():
    assert is_circle(np.arange(-180.0, 180.0, 5.625))
    assert is_circle(359.0 - np.arange(360.0))
    assert not is_circle(np.arange(0.0, 330.0, 15.0))
    assert not is_circle(np.array([0.0]))
