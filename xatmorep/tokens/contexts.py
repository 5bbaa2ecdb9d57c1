"""Contexts: a field once more, coarsely over a larger box around the neighborhood."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from xatmorep.tokens.spec import ContextSpec, InputSpec, Shape
from xatmorep.tokens.steps import times_before

__all__ = ["Canvas", "Context", "Corner", "coarse"]

# A pole has no area, but where it is all that is there it has to count.
POLE_WEIGHT = 1e-4

Corner = tuple[int, int, int]
"""Sample, row and column of the first point of a neighborhood."""


@dataclass(frozen=True)
class Context:
    """One context of some neighborhoods: coarse values, and the grid points they stand for.

    Attributes
    ----------
    values : (batch, level, time, latitude, longitude) float32 array
        On the coarse points of the box; NaN where the data have none.
    times : (batch, time) array of datetime64 or cftime
    latitude, longitude : (batch, latitude) and (batch, longitude) float64 arrays
        Labels of the grid points of the data that the box covers, from north to south and from
        west to east; where the data end, they go on in the steps of the model (latitudes also
        beyond a pole).
    statics : dict of str to (batch, latitude, longitude) float32 array
        Constant fields on the coarse points.
    """

    values: npt.NDArray[np.float32]
    times: npt.NDArray[Any]
    latitude: npt.NDArray[np.float64]
    longitude: npt.NDArray[np.float64]
    statics: Mapping[str, npt.NDArray[np.float32]]


@dataclass(frozen=True)
class Canvas:
    """The grid from which contexts of neighborhoods with the same times are cut.

    Attributes
    ----------
    spec : InputSpec
        What the model reads.
    times : (time,) array of datetime64 or cftime
        Times up to the last frame of the neighborhoods.
    latitude, longitude : arrays
        Rows from north to south, columns ascending.
    is_global : bool
        Whether longitude covers the whole circle.

    Examples
    --------
    >>> spec = InputSpec.model_validate({
    ...     "neighborhood": {"shape": (1, 2, 2), "time_step": 6, "grid_step": (1, 1)},
    ...     "fields": [{"name": "u", "units": "m s-1", "token_shape": (1, 2, 2)}],
    ...     "contexts": [{"name": "u_before", "field": "u", "coarsen": (1, 2, 2),
    ...                   "shape": (2, 1, 2), "token_shape": (2, 1, 1)}],
    ... })
    >>> time = np.array(["2021-01-01"], dtype="datetime64[s]")
    >>> canvas = Canvas(spec, time, np.array([1.0, 0.0]), 1.0 * np.arange(4), is_global=False)
    >>> context = canvas.cut({"u": np.ones((1, 1, 1, 2, 4))}, {}, [(0, 0, 0)])["u_before"]
    >>> context.values  # one frame is there, and one column of the first block
    array([[[[[nan, nan]],
    <BLANKLINE>
             [[ 1.,  1.]]]]], dtype=float32)
    >>> context.longitude
    array([[-1.,  0.,  1.,  2.]])
    """

    spec: InputSpec
    times: npt.NDArray[Any]
    latitude: npt.NDArray[np.float64]
    longitude: npt.NDArray[np.float64]
    is_global: bool

    def cut(
        self,
        arrays: Mapping[str, npt.NDArray[Any]],
        statics: Mapping[str, npt.NDArray[Any]],
        corners: Sequence[Corner],
    ) -> dict[str, Context]:
        """Contexts of some neighborhoods.

        Parameters
        ----------
        arrays : dict of str to (sample, level, time, latitude, longitude) array
            Values of each source, of the last of `times`; as many frames as there are of those
            that its contexts read.
        statics : dict of str to (latitude, longitude) array
            Constant fields.
        corners : sequence of (sample, row, column)
            Where each neighborhood begins; columns may go on beyond the last one of a globe.

        Returns
        -------
        dict of str to Context
            By name of the context, in float32.
        """
        return {
            context.name: self._cut(context, arrays[context.field], statics, corners)
            for context in self.spec.contexts
        }

    def _cut(
        self,
        context: ContextSpec,
        array: npt.NDArray[Any],
        statics: Mapping[str, npt.NDArray[Any]],
        corners: Sequence[Corner],
    ) -> Context:
        known = self.spec.field(context.field).levels
        levels = [known.index(level) for level in context.levels or known] or [0]
        frames = np.arange(-context.extent[0], 0) + array.shape[2]
        values, latitudes, longitudes = [], [], []
        constant: dict[str, list[npt.NDArray[np.float32]]] = {name: [] for name in statics}
        for sample, row, column in corners:
            rows, columns = self._positions(context, row, column)
            latitude = _labels(self.latitude, rows, -self.spec.neighborhood.grid_step[0])
            # Places first: only these are copied out of the whole grid.
            around = _take(self._around(array[sample], rows, columns), frames, axis=1)[levels]
            values.append(coarse(around, latitude, context.coarsen))
            for name, static in statics.items():
                block = (1, *context.coarsen[1:])
                there = self._around(static[None], rows, columns)
                constant[name].append(coarse(there, latitude, block)[0])
            latitudes.append(latitude)
            longitudes.append(self._meridians(columns))
        return Context(
            np.stack(values),
            np.stack([self._frames(context.extent[0])] * len(corners)),
            np.stack(latitudes),
            np.stack(longitudes),
            {name: np.stack(parts) for name, parts in constant.items()},
        )

    def _positions(
        self, context: ContextSpec, row: int, column: int
    ) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """Rows and columns of the box; those that the data don't have are negative or too large."""
        _, south, east = self.spec.first_point(context.name)
        _, n_rows, n_columns = context.extent
        return row + south + np.arange(n_rows), column + east + np.arange(n_columns)

    def _around(
        self, array: npt.NDArray[Any], rows: npt.NDArray[np.int64], columns: npt.NDArray[np.int64]
    ) -> npt.NDArray[Any]:
        if self.is_global:
            columns = columns % len(self.longitude)
        return _take(_take(array, rows, axis=-2), columns, axis=-1)

    def _meridians(self, columns: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
        if not self.is_global:
            return _labels(self.longitude, columns, self.spec.neighborhood.grid_step[1])
        turns, places = np.divmod(columns, len(self.longitude))
        east: npt.NDArray[np.float64] = self.longitude[places] + 360.0 * turns
        return east

    def _frames(self, n: int) -> npt.NDArray[Any]:
        """The last n times, with those before the first one in the model's time step."""
        missing = max(0, n - len(self.times))
        earlier = times_before(self.times[0], self.spec, missing)
        return np.concatenate([earlier, self.times[len(self.times) + missing - n :]])


def coarse(
    values: npt.NDArray[Any], latitude: npt.NDArray[np.float64], block: Shape
) -> npt.NDArray[np.float32]:
    """Means over blocks of points, weighted by area; what isn't finite doesn't count.

    Parameters
    ----------
    values : (..., T*t, A*a, O*o) array
        Values on the grid.
    latitude : (A*a,) array
        Degrees north of the rows; the weight of a row is its cosine, at least 1e-4.
    block : (t, a, o)
        Points of a block in (time, latitude, longitude).

    Returns
    -------
    (..., T, A, O) float32 array
        NaN where a block has no finite point.

    Examples
    --------
    >>> coarse(np.array([[[4.0, np.nan], [1.0, 1.0]]]), np.array([60.0, 0.0]), (1, 2, 2))
    array([[[1.6]]], dtype=float32)
    """
    weight = np.cos(np.deg2rad(latitude)).clip(min=POLE_WEIGHT)[:, None]
    finite = np.isfinite(values)
    total = _sums(np.where(finite, values, 0.0), weight, block)
    share = _sums(finite, weight, block)
    mean = np.full(total.shape, np.nan, dtype=np.float32)
    np.divide(total, share, out=mean, where=share > 0, casting="same_kind")
    return mean


def _sums(
    values: npt.NDArray[Any], weight: npt.NDArray[np.float64], block: Shape
) -> npt.NDArray[np.float64]:
    """Weighted sums over blocks, in float64."""
    for axis in (-1, -2, -3):
        size = block[axis]
        # Slices that are added: numpy sums short axes slowly.
        parts = np.moveaxis(values if axis != -2 else values * weight, axis, 0)
        total = parts[::size].astype(np.float64)
        for i in range(1, size):
            total += parts[i::size]
        values = np.moveaxis(total, 0, axis)
    return values


def _take(array: npt.NDArray[Any], positions: npt.NDArray[np.int64], axis: int) -> npt.NDArray[Any]:
    """Entries along an axis; NaN at positions that the array doesn't have."""
    size = array.shape[axis]
    taken = array.take(positions.clip(0, size - 1), axis)
    outside = (positions < 0) | (positions >= size)
    if outside.any():
        np.moveaxis(taken, axis, 0)[outside] = np.nan
    return taken


def _labels(
    points: npt.NDArray[np.float64], positions: npt.NDArray[np.int64], step: float
) -> npt.NDArray[np.float64]:
    """Coordinates at positions; where the data end they go on in even steps."""
    inside = positions.clip(0, len(points) - 1)
    labels: npt.NDArray[np.float64] = points[inside] + step * (positions - inside)
    return labels
