"""Simple predictions that a model has to beat: what is hidden, from what is visible."""

from __future__ import annotations

import numpy as np
import xarray as xr
from scipy.interpolate import LinearNDInterpolator, NearestNDInterpolator
from scipy.ndimage import binary_dilation

from xatmorep.evaluation.spectrum import is_circle

__all__ = ["interpolate", "interpolate_in_time", "persist"]


def persist(
    values: np.ndarray, visible: np.ndarray, hours: np.ndarray, wanted: slice, reach: int
) -> np.ndarray:
    """Take the last visible value of the same point, else the nearest visible one after it.

    Parameters
    ----------
    values : numpy.ndarray
        Data (case, frame, ...).
    visible : numpy.ndarray
        Points whose values may be used, bool, same shape.
    hours : numpy.ndarray
        Times (case, frame); not needed here.
    wanted : slice
        Frames that are asked for.
    reach : int
        How many frames before and after are looked at.

    Returns
    -------
    numpy.ndarray
        Values of the wanted frames; NaN where nothing is visible within reach.

    Examples
    --------
    >>> values = np.array([[[1.0], [2.0], [3.0]]])
    >>> visible = np.array([[[True], [False], [True]]])
    >>> persist(values, visible, np.zeros((1, 3)), slice(0, 3), reach=2).ravel()
    array([1., 1., 3.])
    """
    before, after = _nearest_visible(visible, wanted, reach)
    return _taken(values, np.where(before >= 0, before, after))


def interpolate_in_time(
    values: np.ndarray, visible: np.ndarray, hours: np.ndarray, wanted: slice, reach: int
) -> np.ndarray:
    """Interpolate linearly between the visible values of the same point before and after.

    Where it is visible on one side only, that value counts. Parameters and result as of `persist`.

    Examples
    --------
    >>> values = np.array([[[1.0], [0.0], [4.0]]])
    >>> visible = np.array([[[True], [False], [True]]])
    >>> hours = np.array([[0.0, 2.0, 3.0]])
    >>> interpolate_in_time(values, visible, hours, slice(1, 2), reach=2).ravel()
    array([3.])
    """
    before, after = _nearest_visible(visible, wanted, reach)
    first, second = np.where(before >= 0, before, after), np.where(after >= 0, after, before)
    low, high = _taken(values, first), _taken(values, second)
    times = hours.reshape(*hours.shape, *[1] * (values.ndim - 2))
    start, stop = (_taken(times, places) for places in (first, second))
    share = (times[:, wanted] - start) / np.where(stop > start, stop - start, 1.0)
    return low + share * (high - low)


def _nearest_visible(
    visible: np.ndarray, wanted: slice, reach: int
) -> tuple[np.ndarray, np.ndarray]:
    """Numbers of the visible frames next before (or at) and after (or at) each; -1 if none."""
    n_frames = visible.shape[1]
    frames = np.arange(n_frames).reshape(1, -1, *[1] * (visible.ndim - 2))
    before = np.maximum.accumulate(np.where(visible, frames, -1), axis=1)
    after = np.where(visible, frames, n_frames)
    after = np.minimum.accumulate(after[:, ::-1], axis=1)[:, ::-1]
    before = np.where(frames - before > reach, -1, before)
    after = np.where((after == n_frames) | (after - frames > reach), -1, after)
    return before[:, wanted], after[:, wanted]


def _taken(values: np.ndarray, places: np.ndarray) -> np.ndarray:
    """Values at numbers of frames, NaN at -1."""
    spread = np.broadcast_to(values, (*values.shape[:2], *places.shape[2:]))
    taken = np.take_along_axis(spread, places.clip(min=0), axis=1)
    return np.where(places >= 0, taken, np.nan)


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
        Maps (..., latitude, longitude). Maps along a dimension that `hidden` lacks are interpolated
        together, from the points where none is missing.
    hidden : xarray.DataArray
        Points to interpolate, bool, same dimensions or fewer.
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
    together = [str(dim) for dim in values.dims if dim not in hidden.dims]
    return xr.apply_ufunc(
        _interpolate,
        values,
        hidden,
        values[latitude],
        values[longitude],
        kwargs={"is_global": is_circle(values[longitude].values)},
        input_core_dims=[
            [latitude, longitude, *together],
            [latitude, longitude],
            [latitude],
            [longitude],
        ],
        output_core_dims=[[latitude, longitude, *together]],
        vectorize=True,
    ).transpose(*values.dims)


def _interpolate(
    values: np.ndarray,
    hidden: np.ndarray,
    latitude: np.ndarray,
    longitude: np.ndarray,
    is_global: bool,
) -> np.ndarray:
    """Maps (latitude, longitude, ...) of which the same points (latitude, longitude) are hidden."""
    result = np.full(values.shape, np.nan)
    gaps = hidden | ~np.isfinite(values).all(tuple(range(2, values.ndim)))
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
    estimate = np.full((len(wanted), *values.shape[2:]), np.nan)
    spanned = len(points) > 3 and np.linalg.matrix_rank(points - points[0]) == 2
    if spanned:  # points on one line make no triangle
        estimate = LinearNDInterpolator(points, known)(wanted)
    outside = np.isnan(estimate).any(tuple(range(1, estimate.ndim)))
    if outside.any():
        estimate[outside] = NearestNDInterpolator(points, known)(wanted[outside])
    result[hidden] = estimate
    return result
