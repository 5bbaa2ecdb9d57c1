"""Where a place that the caller names by coordinates lies on the canonical grid."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import cftime
import numpy as np
import pandas as pd
import xarray as xr

from xatmorep.data.conventions import CanonicalView
from xatmorep.errors import ConfigError

__all__ = ["exact_times", "nearest", "nearest_level"]


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
    wanted = _time(index, value)
    if isinstance(index, xr.CFTimeIndex):
        hours = np.array([(time - index[0]).total_seconds() / 3600 for time in index])
        return hours, (wanted - index[0]).total_seconds() / 3600
    hour = np.timedelta64(1, "h")
    start = index.values[0]
    return (index.values - start) / hour, float((np.datetime64(wanted) - start) / hour)


def _time(index: pd.Index, value: Any) -> Any:
    """A time in the kind and calendar of an index."""
    if not isinstance(index, xr.CFTimeIndex):
        return pd.Timestamp(value)
    if isinstance(value, cftime.datetime):
        return value
    # Not by way of pandas, which knows no 30th of February.
    (time,) = xr.date_range(str(value), periods=1, calendar=index.calendar, use_cftime=True)
    return time


def exact_times(view: CanonicalView, values: Any) -> list[int]:
    """Positions of one or several times, each of which must be one of the dataset's.

    Parameters
    ----------
    view : CanonicalView
        The dataset.
    values : str, datetime64, cftime.datetime, DataArray, Index or iterable of them
        Times as the dataset or its user would write them.

    Raises
    ------
    ConfigError
        If one isn't a time of the dataset, or stands there twice, or there is none.
    """
    index = view.grid["time"].index
    positions: list[int] = []
    for value in _several(values):
        try:
            position: Any = index.get_loc(_time(index, value))
        except (KeyError, TypeError, ValueError) as error:
            raise ConfigError(
                f"{value} is no time of these data, which have {len(index)} from {index[0]} to "
                f"{index[-1]}"
            ) from error
        if position in positions:
            raise ConfigError(f"the time {value} is given twice")
        positions.append(position)
    if not positions:
        raise ConfigError("no time is given")
    return positions


def _several(values: Any) -> list[Any]:
    """One value or several as a list."""
    if isinstance(values, xr.DataArray | np.ndarray):
        return list(np.ravel(values))
    if isinstance(values, str) or not isinstance(values, Iterable):
        return [values]
    return list(values)


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
