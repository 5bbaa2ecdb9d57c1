"""Token info: the few numbers that tell a model when and where a token is."""

from __future__ import annotations

from typing import Any, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt
import pandas as pd
import xarray as xr

from xatmorep.tokens.spec import InputSpec

__all__ = ["TOKEN_INFO", "TimeParts", "Times", "center", "time_parts", "token_info"]

TOKEN_INFO = (
    "year",
    "day_of_year",
    "hour",
    "level",
    "latitude",
    "longitude",
    "resolution",
)
"""Names of the last axis of the token info, in order."""

Times: TypeAlias = "npt.NDArray[Any] | xr.DataArray | pd.Index[Any]"
"""Times as datetime64 of any unit, or cftime objects of any calendar."""


class TimeParts(NamedTuple):
    """Times as numbers, each in the shape of the times.

    Attributes
    ----------
    year : int array
        Year of the calendar.
    day_of_year : int array
        Day of the year, 1 on the first of January.
    hour : float array
        Hour of the day, with its fraction, in [0, 24).
    """

    year: npt.NDArray[np.int64]
    day_of_year: npt.NDArray[np.int64]
    hour: npt.NDArray[np.float64]


def time_parts(times: Times) -> TimeParts:
    """Year, day of the year and hour of each time, in the calendar of the times.

    Parameters
    ----------
    times : array, DataArray or index of datetime64 or cftime, any shape
        Times.

    Returns
    -------
    TimeParts
        Arrays in the shape of `times`.

    Examples
    --------
    >>> import numpy as np
    >>> time_parts(np.array(["2020-12-31T18:30"], dtype="datetime64[m]"))
    TimeParts(year=array([2020]), day_of_year=array([366]), hour=array([18.5]))
    """
    # .dt reads every unit of datetime64 and every calendar; integer casts would not.
    parts = xr.DataArray(np.asarray(times)).dt
    hour = parts.hour.values + parts.minute.values / 60 + parts.second.values / 3600
    return TimeParts(
        parts.year.values.astype(np.int64), parts.dayofyear.values.astype(np.int64), hour
    )


def center(first: npt.NDArray[Any], last: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Middle between two coordinates: numbers, datetime64 or cftime, in the same dtype.

    Examples
    --------
    >>> import numpy as np
    >>> frames = np.array(["2020-12-31T18", "2021-01-01T00"], dtype="datetime64[s]")
    >>> center(frames[:1], frames[1:])
    array(['2020-12-31T21:00:00'], dtype='datetime64[s]')
    """
    middle: npt.NDArray[Any] = first + (last - first) / 2
    return middle


def token_info(
    spec: InputSpec,
    name: str,
    times: Times,
    latitude: npt.NDArray[np.float64],
    longitude: npt.NDArray[np.float64],
) -> npt.NDArray[np.float32]:
    """Token info of one field or context in one neighborhood, or in many at once.

    Parameters
    ----------
    spec : InputSpec
        What the model reads.
    name : str
        Canonical name of the field, or name of the context.
    times : (..., time) array of datetime64 or cftime
        Times of the frames of the neighborhood, or of those that the box of the context covers.
    latitude : (..., latitude) array
        Its rows, degrees north.
    longitude : (..., longitude) array
        Its columns, degrees east, ascending (beyond 360 where they wrap).

    Returns
    -------
    (..., L, T, A, O, 7) float32 array
        One row of `TOKEN_INFO` for each token: year, day of the year (1 on the first of January)
        and hour of the token's time; level (0 at the surface); latitude and longitude (in
        [0, 360)) of its place, in degrees; the model's grid step in latitude, in degrees, or that
        of the context. Time and place are those of the token's center, or what
        ``spec.token_reference`` says; a place beyond a pole is at the pole.

    Examples
    --------
    >>> import numpy as np
    >>> from xatmorep.tokens.spec import FieldSpec, InputSpec, NeighborhoodSpec
    >>> spec = InputSpec(
    ...     neighborhood=NeighborhoodSpec(shape=(2, 4, 6), time_step=6, grid_step=(1, 1)),
    ...     fields=(FieldSpec(name="2m_temperature", units="K", token_shape=(2, 2, 3)),),
    ... )
    >>> times = np.array(["2020-12-31T18", "2021-01-01T00"], dtype="datetime64[h]")
    >>> info = token_info(spec, "2m_temperature", times, 90.0 - np.arange(4), np.arange(357.0, 363))
    >>> info.shape
    (1, 1, 2, 2, 7)
    >>> info[0, 0, 0, 1].tolist()
    [2020.0, 366.0, 21.0, 0.0, 89.5, 1.0, 1.0]
    """
    field = spec.field(name)
    t, a, o = spec.token_extent(name)
    times, latitude, longitude = np.asarray(times), np.asarray(latitude), np.asarray(longitude)
    if spec.token_reference == "center":
        when = time_parts(_token_centers(times, t))
        north, east = _token_centers(latitude, a), _token_centers(longitude, o)
    else:
        when = time_parts(times[..., t - 1 :: t])
        north, east = latitude[..., a // 2 :: a], longitude[..., o // 2 :: o]
    if spec.token_reference == "atmorep-2023":
        when = when._replace(day_of_year=_days_of_2023(times, t))
    # A place just below 360 can round up to it in single precision: that is Greenwich again.
    east = (east % 360).astype(np.float32) % 360
    levels = np.array(field.levels or (0.0,))
    info = np.empty(
        (*north.shape[:-1], len(levels), when.hour.shape[-1], north.shape[-1], east.shape[-1], 7),
        dtype=np.float32,
    )
    for place, part in enumerate(when):
        info[..., place] = part[..., None, :, None, None]
    info[..., 3] = levels[:, None, None, None]
    info[..., 4] = north.clip(-90, 90)[..., None, None, :, None]
    info[..., 5] = east[..., None, None, None, :]
    info[..., 6] = spec.neighborhood.grid_step[0] * spec.coarsening(name)[1]
    return info


def _days_of_2023(times: npt.NDArray[Any], size: int) -> npt.NDArray[np.int64]:
    """Days of the last frames of tokens; 365 before 1 January is 1 January, in any year.

    AtmoRep of 2023 counted all days from the beginning of the year of the last frame, and added
    365 to those that were negative.
    """
    frames = xr.DataArray(times[..., size - 1 :: size]).dt
    before = frames.year.values < xr.DataArray(times[..., -1:]).dt.year.values
    days: npt.NDArray[np.int64] = frames.dayofyear.values.astype(np.int64)
    return np.where(before, days + 365 - frames.days_in_year.values, days)


def _token_centers(points: npt.NDArray[Any], size: int) -> npt.NDArray[Any]:
    """Centers of consecutive tokens of `size` points: (..., N*size) to (..., N)."""
    return center(points[..., ::size], points[..., size - 1 :: size])
