"""Values and coordinates on the grid as the original code writes them, and as they should be."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import xarray as xr

from xatmorep.data.months import month_numbers
from xatmorep.data.normalization import Normalizer
from xatmorep.testing.parity.recorded import Arrays
from xatmorep.testing.parity.store import RecordedBatch, RecordedField
from xatmorep.tokens.tokenize import untokenize

__all__ = [
    "denormalized",
    "forecast_coordinates",
    "in_written_months",
    "placed",
    "token_coordinates",
]

Array = npt.NDArray[Any]

# Sources are written with months of the statistics counted from January of this year, wherever
# the table of statistics begins.
WRITTEN_FROM = 2021


def denormalized(
    batch: RecordedBatch,
    field: RecordedField,
    tokens: Array,
    *,
    statistics: Normalizer | None = None,
    entry: int | None = None,
) -> Array:
    """Put tokens on the grid, in the units of the data.

    Parameters
    ----------
    batch : RecordedBatch
        Gives places and times.
    field : RecordedField
        Which field it is.
    tokens : (B, ..., L, T, A, O, t, a, o) array
        Normalized values.
    statistics : Normalizer, optional
        Instead of those of the batch.
    entry : int, optional
        Batch entry at whose place the statistics are taken for all entries; by default each has
        those of its own place.

    Returns
    -------
    (B, ..., L, time, latitude, longitude) array
    """
    found = []
    for i, grid in enumerate(untokenize(tokens)):
        where = i if entry is None else entry
        labelled = xr.DataArray(
            grid,
            {
                "level": np.array(field.levels or (0.0,)),
                "time": batch.tokens.times[i],
                "latitude": batch.tokens.latitude[where],
                "longitude": batch.tokens.longitude[where],
            },
            (*["member"][: grid.ndim - 4], "level", "time", "latitude", "longitude"),
        )
        found.append((statistics or batch.statistics).invert(field.name, labelled).values)
    return np.stack(found)


def placed(batch: RecordedBatch, field: RecordedField, values: Array, rows: Array) -> Array:
    """Put predicted tokens where they belong, with NaN elsewhere.

    Parameters
    ----------
    batch : RecordedBatch
        Gives the number of neighborhoods.
    field : RecordedField
        Which field it is.
    values : (N, ..., t * a * o) array
        Predicted values.
    rows : (N,) int array
        Positions among (batch entry, level, token).

    Returns
    -------
    (B, ..., L, T, A, O, t, a, o) array
    """
    grid = (len(batch.tokens), max(1, len(field.levels)), *field.tokens)
    full = np.full((np.prod(grid), *values.shape[1:]), np.nan, values.dtype)
    full[rows] = values
    full = full.reshape(*grid, *values.shape[1:-1], *field.token_shape)
    return np.moveaxis(full, range(5, 3 + values.ndim), range(1, values.ndim - 1))


def in_written_months(batch: RecordedBatch) -> Normalizer:
    """Statistics that the original takes, by mistake, for the months of the data.

    Months are numbered from January `WRITTEN_FROM` on, and negative numbers count from the end of
    the table.
    """
    months = np.unique(
        np.concatenate([month_numbers(v["time"], "year_month") for v in batch.view.values()])
    )

    def taken(statistics: xr.DataArray) -> xr.DataArray:
        table = statistics.isel(year_month=(months - 12 * WRITTEN_FROM))
        return table.assign_coords(year_month=months)

    return Normalizer(
        mean={name: taken(mean) for name, mean in batch.statistics.mean.items()},
        std={name: taken(std) for name, std in batch.statistics.std.items()},
    )


def forecast_coordinates(batch: RecordedBatch, hours: int) -> Arrays:
    """Coordinates of each neighborhood, and those of the last `hours` that are forecast."""
    found: Arrays = {}
    for i in range(len(batch.tokens)):
        where = f"forecast.coords.batch{i}"
        when = _hours(batch.tokens.times[i])
        found[f"{where}.hours_since_1970"] = when
        found[f"{where}.target_hours_since_1970"] = when[len(when) - hours :]
        found[f"{where}.lat_degrees_north"] = batch.tokens.latitude[i].astype(np.float32)
        found[f"{where}.lon"] = (batch.tokens.longitude[i] % 360).astype(np.float32)
    return found


def token_coordinates(
    batch: RecordedBatch, field: RecordedField, entry: int, tokens: Array
) -> Arrays:
    """Coordinates of some tokens of one neighborhood, as the original writes them.

    Longitudes are sorted, also where those of the values run across Greenwich.

    Parameters
    ----------
    batch : RecordedBatch
        Gives places and times.
    field : RecordedField
        Which field it is.
    entry : int
        Number of the neighborhood.
    tokens : (n,) int array
        Numbers of tokens in (time, latitude, longitude) order.

    Returns
    -------
    dict of str to array
        ``hours_since_1970`` (n, t) float64, ``lat_degrees_north`` (n, a) and ``lon`` (n, o)
        float32.
    """
    times, rows, columns = np.unravel_index(tokens, field.tokens)
    t, a, o = field.token_shape
    labels = batch.tokens
    return {
        "hours_since_1970": _hours(labels.times[entry]).reshape(-1, t)[times],
        "lat_degrees_north": labels.latitude[entry].reshape(-1, a)[rows].astype(np.float32),
        "lon": np.sort(labels.longitude[entry].reshape(-1, o)[columns] % 360).astype(np.float32),
    }


def _hours(times: Array) -> npt.NDArray[np.float64]:
    return (times - np.datetime64("1970-01-01", "s")) / np.timedelta64(1, "h")
