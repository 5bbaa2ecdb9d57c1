"""Energy of a field by zonal wavenumber."""

from __future__ import annotations

import numpy as np
import xarray as xr

__all__ = ["is_circle", "zonal_energy"]


def is_circle(longitude: np.ndarray) -> bool:
    """Whether longitudes in equal steps go round the circle.

    Examples
    --------
    >>> is_circle(np.arange(0.0, 360.0, 15.0)), is_circle(np.arange(0.0, 180.0, 15.0))
    (True, False)
    """
    n = len(longitude)
    if n < 4:
        return False
    step = (longitude[-1] - longitude[0]) / (n - 1)
    return bool(np.isclose(abs(step) * n, 360, atol=abs(step) / 2))


def zonal_energy(maps: xr.DataArray) -> xr.DataArray:
    r"""Energy of each zonal wavenumber, averaged over the rows of maps by their area.

    .. math:: E_k = \frac{a_k}{N^2} \Bigl|\sum_n x_n e^{-2 \pi i k n / N}\Bigr|^2

    with a_k = 2, or 1 where k = N / 2: by Parseval's theorem they add up to the variance along the
    row. The zonal mean (k = 0) is left out.

    Parameters
    ----------
    maps : xarray.DataArray
        Maps (..., latitude, longitude) that go round the circle. Rows in which a value is missing
        don't count.

    Returns
    -------
    xarray.DataArray
        ``(..., wavenumber)``, in the squared units of the maps; NaN where no row counts.

    Examples
    --------
    >>> longitude = np.arange(0, 360, 30.0)
    >>> wave = xr.DataArray(3 * np.cos(np.deg2rad(2 * longitude))[None],
    ...                     {"latitude": [0.0], "longitude": longitude})
    >>> zonal_energy(wave).values.round(6) + 0.0
    array([0. , 4.5, 0. , 0. , 0. , 0. ])
    """
    maps = maps.transpose(..., "latitude", "longitude")
    n = maps.sizes["longitude"]
    known = maps.notnull().all("longitude")
    values = np.asarray(maps.where(known, 0.0).values, dtype="float64")
    energy = 2 * np.abs(np.fft.rfft(values, axis=-1)[..., 1:] / n) ** 2
    if n % 2 == 0:
        energy[..., -1] /= 2
    dims = (*maps.dims[:-1], "wavenumber")
    coords = {name: coord for name, coord in maps.coords.items() if "longitude" not in coord.dims}
    coords["wavenumber"] = np.arange(1, energy.shape[-1] + 1)
    rows = xr.DataArray(energy, coords, dims)
    area = xr.apply_ufunc(np.cos, np.deg2rad(maps["latitude"])).clip(min=0)
    return rows.weighted(area.where(known, 0.0)).mean("latitude")
