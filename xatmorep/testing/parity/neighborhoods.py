"""Which grid points the original code takes around a position, and tokens cut from them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
import xarray as xr

from xatmorep.errors import ConventionError
from xatmorep.model.embedding import raw_info
from xatmorep.tokens.batch import TokenBatch
from xatmorep.tokens.spec import InputSpec, Shape

__all__ = ["Neighborhoods", "around_2023", "around_2024", "published_info"]

Indices = npt.NDArray[np.int64]
Position = tuple[int, int, int, int, float, float]
"""Year, month, day, hour, degrees north, degrees east."""

# Share of a grid step within which a bound counts as lying on a grid point: rounding, no more.
_ON_A_POINT = 1e-3


@dataclass(frozen=True)
class Neighborhoods:
    """Places of neighborhoods on a grid, as indices of its frames, rows and columns.

    Attributes
    ----------
    frames : (batch, time) int64 array
    rows : (batch, latitude) int64 array
        From north to south.
    columns : (batch, longitude) int64 array
        From west to east; after the last column of the grid comes the first one.
    """

    frames: Indices
    rows: Indices
    columns: Indices

    def cut(self, spec: InputSpec, fields: Mapping[str, xr.DataArray]) -> TokenBatch:
        """Tokens of all neighborhoods.

        Parameters
        ----------
        spec : InputSpec
            What is read.
        fields : mapping of str to DataArray
            (time, level, latitude, longitude) of each field, on one global grid in canonical form.

        Raises
        ------
        ConventionError
            If a neighborhood has other sizes than those of the specification.
        """
        labels = next(iter(fields.values()))
        places = (
            self.frames[:, :, None, None],
            slice(None),
            self.rows[:, None, :, None],
            self.columns[:, None, None, :],
        )
        turns = np.cumsum(np.diff(self.columns, axis=1, prepend=self.columns[:, :1]) < 0, axis=1)
        return TokenBatch.cut(
            spec,
            # numpy puts what is indexed by arrays first and the level last.
            {name: np.moveaxis(field.values[places], -1, 1) for name, field in fields.items()},
            times=labels["time"].values[self.frames],
            latitude=labels["latitude"].values[self.rows],
            longitude=labels["longitude"].values[self.columns] + 360 * turns,
        )


def around_2024(
    labels: xr.DataArray, n_size: Sequence[float], positions: Sequence[Position]
) -> Neighborhoods:
    """Grid points within some hours and degrees of positions.

    Frames are the last ``n_size[0]`` ones up to the date of the first position, for all of them.
    Of two rows at the same distance from a position, and of two columns, the northern and the
    western one are taken.

    Parameters
    ----------
    labels : DataArray
        With the coordinates of an hourly, regular, global grid in canonical form.
    n_size : (hours, degrees, degrees)
        Size of a neighborhood in (time, latitude, longitude).
    positions : sequence of (year, month, day, hour, degrees north, degrees east)
        Last frame and center of each neighborhood.

    Raises
    ------
    ConventionError
        If the data don't have the hours that are asked for, or neighborhoods differ in size.
    """
    year, month, day, hour = map(int, positions[0][:4])
    date = np.datetime64(f"{year:04d}-{month:02d}-{day:02d}T{hour:02d}", "s")
    found = np.flatnonzero(labels["time"].values == date)
    hours = int(n_size[0])
    if not found.size or found[0] + 1 < hours:
        raise ConventionError(
            f"the data don't have the {hours} hours up to {date}: they reach from "
            f"{labels['time'].values[0]} to {labels['time'].values[-1]}"
        )
    frames = found[0] + 1 - hours + np.arange(hours)
    latitude, longitude = labels["latitude"].values, labels["longitude"].values
    return Neighborhoods(
        frames=np.tile(frames, (len(positions), 1)),
        rows=_stacked(
            _within(position[4] - latitude, n_size[1], abs(latitude[1] - latitude[0]))
            for position in positions
        ),
        columns=_stacked(
            _within(
                # The way to the east from a center; below -180 it is shorter to the west.
                (longitude - position[5] + 180) % 360 - 180,
                n_size[2],
                longitude[1] - longitude[0],
            )
            for position in positions
        ),
    )


def around_2023(
    grid: tuple[int, int], box: Shape, positions: Sequence[tuple[int, float, float]]
) -> Neighborhoods:
    """A number of grid points around positions, the center being the first one after the middle.

    Parameters
    ----------
    grid : (int, int)
        Rows, from pole to pole, and columns of the grid.
    box : (int, int, int)
        Grid points of a neighborhood in (time, latitude, longitude).
    positions : sequence of (frame, colatitude, longitude)
        Number of the last frame, and center in degrees.

    Examples
    --------
    >>> places = around_2023((19, 36), (2, 3, 4), [(5, 90.0, 0.0)])
    >>> places.frames.tolist(), places.rows.tolist(), places.columns.tolist()
    ([[4, 5]], [[7, 8, 9]], [[34, 35, 0, 1]])
    """
    (n_rows, n_columns), (nt, na, no) = grid, box
    rows = [round(colatitude / 180 * (n_rows - 1)) for _, colatitude, _ in positions]
    columns = [round(longitude / 360 * n_columns) for _, _, longitude in positions]
    return Neighborhoods(
        frames=_runs([frame - nt + 1 for frame, _, _ in positions], nt),
        rows=_runs([row - math.ceil(na / 2) for row in rows], na),
        columns=_runs([column - math.ceil(no / 2) for column in columns], no) % n_columns,
    )


def published_info(batch: TokenBatch, name: str) -> npt.NDArray[np.float32]:
    """AtmoRep's eight numbers of each token of a field, (batch, level, T * A * O, 8)."""
    day_fraction = batch.spec.token_reference == "atmorep-2023"
    info = raw_info(torch.from_numpy(batch.info[name]), day_fraction=day_fraction)
    return np.asarray(info.flatten(2, 4).numpy())


def _runs(first: list[int], size: int) -> Indices:
    return np.array(first)[:, None] + np.arange(size)


def _within(offset: npt.NDArray[np.float64], size: float, step: float) -> Indices:
    """Indices of the points between the two edges, in ascending order of their offset in degrees.

    Half a step more on the near side keeps the count when the center is on a grid point.
    """
    slack = _ON_A_POINT * step
    inside = (offset > -size / 2 - step / 2 + slack) & (offset < size / 2 - slack)
    order: Indices = np.argsort(offset, kind="stable")
    return order[inside[order]]


def _stacked(rows: Iterable[Indices]) -> Indices:
    found = list(rows)
    if len({len(row) for row in found}) > 1:
        raise ConventionError(
            f"the neighborhoods have {sorted({len(row) for row in found})} grid points along one "
            "dimension: their centers must be grid points, and none may reach beyond a pole"
        )
    return np.stack(found)
