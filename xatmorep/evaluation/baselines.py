"""Simple predictions that a model has to beat: what is hidden, from what is visible."""

from __future__ import annotations

import numpy as np
import xarray as xr
from scipy.interpolate import LinearNDInterpolator, NearestNDInterpolator
from scipy.ndimage import binary_dilation

__all__ = ["interpolate"]


def interpolate(
    values: xr.DataArray, hidden: xr.DataArray, latitude: str, longitude: str
) -> xr.DataArray:
    """Interpolate hidden points linearly from the visible points of the same map.

    The visible points are joined to triangles (Delaunay) in the plane of latitude and longitude,
    which goes on across the edge of a global map; beyond the outermost points, as at a hidden
    pole, the nearest visible point counts.

    Parameters
    ----------
    values : xarray.DataArray
        Maps (..., latitude, longitude).
    hidden : xarray.DataArray
        Points to interpolate, bool, same dimensions.
    latitude, longitude : str
        Names of the horizontal dimensions.

    Returns
    -------
    xarray.DataArray
        Interpolated values at the hidden points, NaN elsewhere; dimensions of `values`.

    Examples
    --------
    >>> coords = {"lat": [2.0, 1.0, 0.0], "lon": [0.0, 1.0, 2.0, 3.0]}
    >>> values = xr.DataArray(np.arange(12.0).reshape(3, 4), coords)
    >>> hidden = xr.zeros_like(values, bool)
    >>> hidden[1, 1] = True
    >>> interpolate(values, hidden, "lat", "lon").sel(lat=1, lon=1).item()
    5.0
    """
    step = float(abs(values[longitude][1] - values[longitude][0]))
    is_global = bool(np.isclose(step * values.sizes[longitude], 360, atol=step / 2))
    return xr.apply_ufunc(
        _interpolate,
        values,
        hidden,
        values[latitude],
        values[longitude],
        kwargs={"is_global": is_global},
        input_core_dims=[[latitude, longitude]] * 2 + [[latitude], [longitude]],
        output_core_dims=[[latitude, longitude]],
        vectorize=True,
    ).transpose(*values.dims)


def _interpolate(
    values: np.ndarray,
    hidden: np.ndarray,
    latitude: np.ndarray,
    longitude: np.ndarray,
    is_global: bool,
) -> np.ndarray:
    """One map."""
    result = np.full(values.shape, np.nan)
    gaps = hidden | ~np.isfinite(values)
    if not hidden.any() or gaps.all():
        return result
    # No triangle over a gap has a corner farther from it than the points at its rim: the rim alone
    # gives the same triangles there, many times faster.
    wide = np.pad(gaps, ((1, 1), (0, 0)))
    wide = np.pad(wide, ((0, 0), (1, 1)), mode="wrap" if is_global else "constant")
    rim = ~gaps & binary_dilation(wide, np.ones((3, 3)))[1:-1, 1:-1]
    rows, columns = np.meshgrid(latitude, longitude, indexing="ij")
    points = np.stack([rows[rim], columns[rim]], axis=1).astype("float64")
    known = values[rim]
    if is_global:
        # A third of the circle again on both sides: no triangle of a usual hole is wider.
        west, east = points[:, 1] > longitude.max() - 120, points[:, 1] < longitude.min() + 120
        points = np.concatenate([points, points[west] - [0.0, 360.0], points[east] + [0.0, 360.0]])
        known = np.concatenate([known, known[west], known[east]])
    wanted = np.stack([rows[hidden], columns[hidden]], axis=1)
    estimate = np.full(len(wanted), np.nan)
    spanned = len(points) > 3 and np.linalg.matrix_rank(points - points[0]) == 2
    if spanned:  # points on one line make no triangle
        estimate = LinearNDInterpolator(points, known)(wanted)
    outside = np.isnan(estimate)
    if outside.any():
        estimate[outside] = NearestNDInterpolator(points, known)(wanted[outside])
    result[hidden] = estimate
    return result
