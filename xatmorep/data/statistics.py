"""Mean and standard deviation of one canonical field, in one pass over data of any size."""

from __future__ import annotations

from typing import Literal

import numpy as np
import xarray as xr

from xatmorep.data.months import MONTHS, month_numbers

__all__ = ["SPACE", "Period", "Scope", "Weights", "statistics", "weighted_sums"]

Scope = Literal["global", "local"]
"""Statistics of a whole level, or of each grid point."""

Period = Literal["record", "month", "year_month"]
"""Statistics of all times, of each month of the year, or of each calendar month."""

Weights = Literal["area", "none"]
"""Whether values count by the area that they stand for, or all alike."""

SPACE = ("latitude", "longitude")
"""The horizontal dimensions."""

# The cosine gives the poles no area at all, and rounding could make it negative; this is less
# than their cap on any grid, and still lets a field that is known only there have statistics.
_POLE_WEIGHT = 1e-4
# Values are float32: what varies less than their spacing is constant up to rounding.
_RESOLUTION = float(np.finfo(np.float32).eps)
# Below this no physical quantity varies; dividing by less could leave the range of float32.
_SMALLEST_STD = 1e-30
# A point that hardly ever varies (ice edge, desert rain) would turn its rare events into values
# of thousands of standard deviations, which no network is ready for.
_LOCAL_FLOOR = 1e-3


def weighted_sums(
    array: xr.DataArray, *, by_point: bool, period: Period, weights: Weights = "area"
) -> xr.Dataset:
    """Sum what all statistics of a field follow from; lazy if the field is.

    Parameters
    ----------
    array : xarray.DataArray
        Canonical field (..., time, level, latitude, longitude). What isn't finite is ignored.
    by_point : bool
        Keep the sums of grid points apart.
    period : {"record", "month", "year_month"}
        Keep the sums of the months that occur apart, unless it is the record.
    weights : {"area", "none"}
        What a value counts: the cosine of its latitude (at least 1e-4), or one.

    Returns
    -------
    xarray.Dataset
        ``count``, ``first`` and ``second`` (float64): sums of w, w d and w d**2, where w is the
        weight and d the deviation from ``shift``, the mean of each level in the first frame.
        Unlike the values themselves, d loses next to nothing to rounding when its squares are
        summed, and no second pass is needed. Months are a dimension named like `period`.

    Examples
    --------
    >>> import numpy as np, xarray as xr
    >>> field = xr.DataArray(
    ...     np.array([2.0, 6.0]).reshape(2, 1, 1, 1),
    ...     dims=("time", "level", "latitude", "longitude"),
    ...     coords={"level": [0.0], "latitude": [0.0], "longitude": [0.0]},
    ... )
    >>> sums = weighted_sums(field, by_point=False, period="record")
    >>> {name: float(sums[name].item()) for name in ("shift", "count", "first", "second")}
    {'shift': 2.0, 'count': 2.0, 'first': 4.0, 'second': 16.0}
    """
    values = array.astype(np.float64)
    values = values.where(np.isfinite(values))
    cosine = np.cos(np.deg2rad(array["latitude"].astype(np.float64)))
    weight = cosine.clip(min=_POLE_WEIGHT) if weights == "area" else 1.0
    shift = values.isel(time=0, drop=True)
    shift = shift.mean([dim for dim in shift.dims if dim != "level"]).fillna(0.0)
    deviation = values - shift
    powers = xr.Dataset(
        {
            "count": weight * values.notnull(),
            "first": weight * deviation,
            "second": weight * deviation**2,
        }
    )
    kept = {"level", *SPACE} if by_point else {"level"}
    over = [dim for dim in array.dims if dim not in kept]
    if period == "record":
        return powers.sum(over).assign(shift=shift)
    month = month_numbers(array["time"], period)
    present = np.unique(month)
    parts = [powers.isel(time=np.flatnonzero(month == number)).sum(over) for number in present]
    return xr.concat(parts, xr.Variable(period, present)).assign(shift=shift)


def statistics(sums: xr.Dataset, mean: Scope, std: Scope) -> tuple[xr.DataArray, xr.DataArray]:
    """Mean and standard deviation from computed sums, with something finite everywhere.

    What stands in for a month or a place without values or variation is said in
    `xatmorep.data.normalization.Normalizer.fit`.

    Parameters
    ----------
    sums : xarray.Dataset
        From `weighted_sums`, by point if `mean` or `std` is local.
    mean, std : {"global", "local"}
        Scope of the mean and of the standard deviation.

    Returns
    -------
    tuple of xarray.DataArray
        Mean and standard deviation (float32), dimensions out of (month or year_month, level,
        latitude, longitude): all months 1 to 12, but only those calendar months that occur.

    Examples
    --------
    >>> import xarray as xr
    >>> sums = xr.Dataset({"shift": 2.0, "count": 2.0, "first": 4.0, "second": 16.0})
    >>> [float(part) for part in statistics(sums, "global", "global")]
    [4.0, 2.0]
    """
    if "month" in sums.dims:
        sums = sums.reindex(month=np.arange(1, 13), fill_value=0.0)
    months = [dim for dim in MONTHS if dim in sums.dims]
    whole = sums.drop_vars("shift").sum(months).assign(shift=sums["shift"])
    level_center = _center(whole, "global").fillna(0.0)
    level_std = _spread(whole, level_center, "global").fillna(1.0)
    whole_center = _center(whole, mean).fillna(level_center)
    whole_std = _spread(whole, whole_center, std).fillna(level_std)
    center = _center(sums, mean).fillna(whole_center)
    spread = _spread(sums, center, std).fillna(whole_std)
    if std == "local":
        spread = spread.clip(min=_LOCAL_FLOOR * level_std)
    order = (*MONTHS, "level", *SPACE)
    return (
        (center + sums["shift"]).transpose(*order, missing_dims="ignore").astype(np.float32),
        spread.transpose(*order, missing_dims="ignore").astype(np.float32),
    )


def _pool(sums: xr.DataArray, scope: Scope) -> xr.DataArray:
    return sums.sum([dim for dim in SPACE if dim in sums.dims]) if scope == "global" else sums


def _center(sums: xr.Dataset, scope: Scope) -> xr.DataArray:
    """Mean deviation from `shift`; NaN without data."""
    count = _pool(sums["count"], scope)
    return _pool(sums["first"], scope) / count.where(count > 0)


def _spread(sums: xr.Dataset, center: xr.DataArray, scope: Scope) -> xr.DataArray:
    """Root mean square of the deviation from `center`; NaN if there is none to speak of."""
    squares = sums["second"] - 2 * center * sums["first"] + center**2 * sums["count"]
    count = _pool(sums["count"], scope)
    spread = (_pool(squares, scope).clip(min=0.0) / count.where(count > 0)) ** 0.5
    size = abs(center).clip(min=abs(center + sums["shift"]))
    if scope == "global":
        size = size.max([dim for dim in SPACE if dim in size.dims])
    return spread.where(spread > (_RESOLUTION * size).clip(min=_SMALLEST_STD))
