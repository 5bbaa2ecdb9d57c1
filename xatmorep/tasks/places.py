"""Where a place that the caller names by coordinates lies on the canonical grid."""

from __future__ import annotations

from typing import Any

import cftime
import numpy as np
import pandas as pd
import xarray as xr

from xatmorep.data.conventions import CanonicalView
from xatmorep.errors import ConfigError

__all__ = ["nearest", "nearest_level"]


def nearest(view: CanonicalView, axis: str, value: Any) -> int:
    """Position on the canonical grid that is nearest to a time, latitude or longitude.

    Parameters
    ----------
    view : CanonicalView
        The dataset.
    axis : {"time", "latitude", "longitude"}
        Which of them.
    value : str, datetime64, cftime.datetime or float
        Coordinate as the dataset or its user would write it; longitudes on the circle.

    Raises
    ------
    ConfigError
        If it lies more than a step outside of the data, or is no coordinate.
    """
    index = view.grid[axis].index
    try:
        values, wanted = _comparable(index, axis, value)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"{axis} {value!r} of the query is no {axis} of these data") from error
    distance = abs(values - wanted)
    if axis == "longitude":
        distance = np.minimum(distance % 360, -distance % 360)
    step = np.abs(np.diff(values)).max() if len(values) > 1 else np.inf
    found = int(distance.argmin())
    if not distance[found] <= step:
        raise ConfigError(
            f"{axis} {value} of the query lies outside of the data, which reach from {index[0]} "
            f"to {index[-1]}"
        )
    return found


def _comparable(index: pd.Index, axis: str, value: Any) -> tuple[np.ndarray, float]:
    """Coordinates and the wanted one as numbers; times as hours since the first."""
    if axis != "time":
        return np.asarray(index, dtype="float64"), float(value)
    if isinstance(index, xr.CFTimeIndex):
        if not isinstance(value, cftime.datetime):
            # Not by way of pandas, which knows no 30th of February.
            (value,) = xr.date_range(
                str(value), periods=1, calendar=index.calendar, use_cftime=True
            )
        hours = np.array([(time - index[0]).total_seconds() / 3600 for time in index])
        return hours, (value - index[0]).total_seconds() / 3600
    hour = np.timedelta64(1, "h")
    start = index.values[0]
    return (index.values - start) / hour, float((np.datetime64(pd.Timestamp(value)) - start) / hour)


def nearest_level(view: CanonicalView, field: str, value: float) -> int:
    """Position of a level, given in the units of the dataset, among those of a field.

    Raises
    ------
    ConfigError
        If the field has no such level.
    """
    axis = view.levels[field]
    known = np.asarray(axis.index, dtype="float64") / axis.scale
    found = int(abs(known - value).argmin())
    if not np.isclose(known[found], value, rtol=1e-4):
        raise ConfigError(
            f"{field} has no level {value:g} but {', '.join(f'{x:g}' for x in known)}"
        )
    return found
