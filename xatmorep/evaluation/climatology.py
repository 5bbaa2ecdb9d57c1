"""What is usual at a place, at a time of year and day, and how far the weather strays from it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import dask
import numpy as np
import xarray as xr

from xatmorep.data.conventions import canonical_view
from xatmorep.errors import ConventionError
from xatmorep.tasks.engine import Application

__all__ = ["Climatology", "Record", "elapsed"]

MOST_BYTES = 2**26
"""Data that are read at once."""

DAYS = 20
"""Days that a month, and each hour of the day in it, must have to get a mean of its own."""

GROUPINGS = (("month", "hour"), ("month",), ("hour",), ())
"""What means are taken by, the finest first."""


def elapsed(times: np.ndarray) -> np.ndarray:
    """Hours (..., time) since the first of times (..., time), datetime64 or cftime.

    Examples
    --------
    >>> elapsed(np.array(["2021-01-01T00", "2021-01-01T06"], "M8[s]"))
    array([0., 6.])
    """
    since = times - times[..., :1]
    if since.dtype.kind == "m":
        return np.asarray(since / np.timedelta64(1, "h"), dtype="float64")
    hours = [step.total_seconds() / 3600 for step in since.ravel()]
    return np.array(hours, dtype="float64").reshape(since.shape)


@dataclass(frozen=True)
class Record:
    """Data that the climatology is taken from, on the grid and in the units of those scored.

    Attributes
    ----------
    application : Application
        The model on the data that are scored.
    fields : dict of str to xarray.DataArray
        Predicted fields (*extra, time, level, latitude, longitude); nothing is read yet.
    """

    application: Application
    fields: dict[str, xr.DataArray]

    @classmethod
    def of(
        cls, ds: xr.Dataset, application: Application, variables: Mapping[str, str] | None
    ) -> Record:
        """Find the predicted fields in a dataset.

        Raises
        ------
        ConventionError
            If it lacks a field or level, or grid points of the data that are scored.
        """
        config = application.model.config
        needs = [config.inputs.field(name) for name in config.predicted]
        try:
            view = canonical_view(ds, needs, fields=variables, deferred=True)
        except ConventionError as error:
            raise ConventionError(f"the data of the climatology can't be used: {error}") from error
        fields = {}
        for name, field in view.fields.items():
            target = application.view.fields[name]
            try:
                grid = {axis: target[axis].values for axis in ("latitude", "longitude")}
                fields[name] = field.sel(grid)
            except KeyError as error:
                raise ConventionError(
                    f"the climatology lacks grid points of the data that are scored: {error}"
                ) from error
        return cls(application, fields)

    @property
    def times(self) -> np.ndarray:
        """Times of the data."""
        return np.asarray(next(iter(self.fields.values()))["time"].values)

    def read(self, frames: slice, *names: str) -> dict[str, np.ndarray]:
        """Frames (sample, time, level, latitude, longitude) of fields; of all if none is named."""
        wanted = {name: self.fields[name].isel(time=frames) for name in names or self.fields}
        (loaded,) = dask.compute(wanted)
        return {
            name: self.application.view.restore_units(name, field.load()).values.reshape(
                -1, *field.shape[-4:]
            )
            for name, field in loaded.items()
        }

    def parts(self) -> Iterator[tuple[slice, dict[str, np.ndarray]]]:
        """All frames, some at a time."""
        n_frames = len(self.times)
        values = sum(field.size for field in self.fields.values()) // max(n_frames, 1)
        step = max(1, MOST_BYTES // (4 * max(values, 1)))
        for start in range(0, n_frames, step):
            frames = slice(start, min(start + step, n_frames))
            yield frames, self.read(frames)


@dataclass(frozen=True)
class Climatology:
    """Means over time at each grid point, and the deviations from them.

    Attributes
    ----------
    by : tuple of str
        What means are taken by: ``"month"`` and ``"hour"``, one of them, or nothing.
    period : tuple of str
        First and last time of the data.
    cells : dict of tuple to int
        Numbers of the means, by month and hour.
    means : dict of str to numpy.ndarray
        For each field (cell, level, latitude, longitude).
    deviation : dict of str to numpy.ndarray
        Standard deviation of anomalies at each point (level, latitude, longitude); where the
        record is short, drawn to the mean of its row.
    anomaly_std : dict of str to numpy.ndarray
        Root of the area-weighted mean square of all anomalies (level).
    """

    by: tuple[str, ...]
    period: tuple[str, str]
    cells: dict[tuple[int, ...], int]
    means: dict[str, np.ndarray]
    deviation: dict[str, np.ndarray]
    anomaly_std: dict[str, np.ndarray]

    @classmethod
    def fit(cls, record: Record, times: np.ndarray) -> Climatology:
        """Take means by month and hour of the day where the record has enough days for it.

        Parameters
        ----------
        record : Record
            The data.
        times : numpy.ndarray
            Times at which the climatology will be asked for: a month or hour of theirs that the
            record lacks, or of which it has fewer than 20 days, makes the means coarser.
        """
        by = _grouping(record.times, times)
        keys = _keys(record.times, by)
        cells = {key: number for number, key in enumerate(sorted(set(keys)))}
        numbers = np.array([cells[key] for key in keys])
        sums = {name: _Sums(len(cells)) for name in record.fields}
        for frames, arrays in record.parts():
            for name, values in arrays.items():
                sums[name].add(values, numbers[frames])
        latitude = next(iter(record.fields.values()))["latitude"].values
        days = len(set(_days(record.times)))
        variances = {name: found.variance() for name, found in sums.items()}
        return cls(
            by,
            (str(record.times[0]), str(record.times[-1])),
            cells,
            {name: found.means() for name, found in sums.items()},
            {name: _steady(variance, days) for name, variance in variances.items()},
            {name: _area_root(variance, latitude) for name, variance in variances.items()},
        )

    def at(self, field: str, times: np.ndarray) -> np.ndarray:
        """Means (*times, level, latitude, longitude) at times of any shape."""
        numbers = [self.cells[key] for key in _keys(times.ravel(), self.by)]
        means = self.means[field]
        return means[numbers].reshape(*times.shape, *means.shape[1:])

    @property
    def words(self) -> str:
        """What means are taken by, in words."""
        names = {"month": "month", "hour": "hour of the day"}
        return f"mean by {' and '.join(names[key] for key in self.by)}" if self.by else "mean"


class _Sums:
    """Sums of one field that give means of cells, and the variance around them, in one pass."""

    def __init__(self, n_cells: int) -> None:
        self.n_cells = n_cells
        self.shift: np.ndarray | None = None

    def add(self, values: np.ndarray, cells: np.ndarray) -> None:
        """Add values (sample, time, level, latitude, longitude) of the cells (time)."""
        values = values.astype("float64")
        if self.shift is None:
            # Squares of deviations from about the mean lose no digits.
            known = np.isfinite(values).sum((0, 1))
            self.shift = np.where(known > 0, np.nansum(values, (0, 1)) / np.maximum(known, 1), 0.0)
            shape = (self.n_cells, *values.shape[2:])
            self.total, self.count = np.zeros(shape), np.zeros(shape)
            self.squares = np.zeros(values.shape[2:])
        known = np.isfinite(values)
        values = np.where(known, values - self.shift, 0.0)
        np.add.at(self.total, cells, values.sum(0))
        np.add.at(self.count, cells, known.sum(0))
        self.squares += (values**2).sum((0, 1))

    def means(self) -> np.ndarray:
        """Means (cell, level, latitude, longitude); NaN where there is no value."""
        return self.shift + np.where(self.count > 0, self.total / np.maximum(self.count, 1), np.nan)

    def variance(self) -> np.ndarray:
        """Mean squared deviation from these means (level, latitude, longitude)."""
        around = self.squares - (self.total**2 / np.maximum(self.count, 1)).sum(0)
        number = self.count.sum(0)
        return np.where(number > 0, around.clip(min=0) / np.maximum(number, 1), np.nan)


def _grouping(known: np.ndarray, wanted: np.ndarray) -> tuple[str, ...]:
    """The finest grouping of which the record has enough days for every wanted time."""
    days = _days(known)
    for by in GROUPINGS:
        counts: dict[tuple[int, ...], set[int]] = {}
        for key, day in zip(_keys(known, by), days, strict=True):
            counts.setdefault(key, set()).add(day)
        if all(len(counts.get(key, ())) >= DAYS for key in set(_keys(wanted, by))):
            return by
    return ()


def _keys(times: np.ndarray, by: tuple[str, ...]) -> list[tuple[int, ...]]:
    """Month and hour of each time, or what of them counts."""
    parts: Any = xr.DataArray(times, dims="time").dt
    columns = [getattr(parts, name).values.tolist() for name in by]
    return list(zip(*columns, strict=True)) if by else [()] * len(times)


def _days(times: np.ndarray) -> list[int]:
    parts: Any = xr.DataArray(times, dims="time").dt
    return (parts.year.values * 1000 + parts.dayofyear.values).tolist()


def _steady(variance: np.ndarray, days: int) -> np.ndarray:
    """Standard deviation of each point, drawn to that of its row where there are few days."""
    known = np.isfinite(variance)
    total = np.where(known, variance, 0).sum(-1, keepdims=True)
    rows = total / known.sum(-1, keepdims=True).clip(1)
    # Weather of days two apart is nearly another; ten such are worth as much as the whole row.
    share = days / (days + 20)
    drawn = share * np.where(known, variance, rows) + (1 - share) * rows
    floor = 1e-6 * drawn.mean((-1, -2), keepdims=True)
    return np.sqrt(np.maximum(drawn, np.where(floor > 0, floor, 1.0)))


def _area_root(variance: np.ndarray, latitude: np.ndarray) -> np.ndarray:
    known = np.isfinite(variance)
    area = np.cos(np.deg2rad(latitude)).clip(min=0)[:, None] * known
    mean = (np.where(known, variance, 0) * area).sum((-1, -2)) / area.sum((-1, -2)).clip(1e-300)
    return np.sqrt(mean)
