"""One axis of a dataset, in canonical order and back in the order of the dataset."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from xatmorep.data.axes import AxisMatch, level_values, pressure_scale
from xatmorep.errors import ConventionError

__all__ = [
    "Axis",
    "Place",
    "Restored",
    "cast",
    "latitude_axis",
    "level_axis",
    "longitude_axis",
    "take",
    "time_axis",
]

# Relative deviation of a longitude step that counts as rounding of the coordinate: 0.33, 0.67, 1.
_STEP_TOLERANCE = 0.05
# Degrees within which two longitudes are the same place: 359.99999 is Greenwich.
_SAME_PLACE = 1e-3


@dataclass(frozen=True)
class Place:
    """Where a canonical dimension comes from.

    Attributes
    ----------
    dim : str or None
        Dimension of the variable; None if the variable lacks it and is repeated along it.
    size : int
        Size of the canonical dimension.
    order : ndarray or None
        Positions along `dim`, in canonical order; None if nothing moves.
    """

    dim: str | None
    size: int
    order: np.ndarray | None = None


@dataclass(frozen=True)
class Axis:
    """One axis of a dataset and its canonical order.

    Attributes
    ----------
    match : AxisMatch
        Where the dataset keeps it.
    stored : Variable
        The coordinate as it is in the dataset, always one-dimensional.
    index : Index
        Canonical values: dates, levels (hPa), degrees.
    order : ndarray or None
        Positions in the dataset of the canonical values; None if nothing moves.
    scale : float
        Factor from stored to canonical values (of levels in Pa).
    lowest : float
        Of a longitude: western edge of the range in which the dataset counts, in degrees.
    is_global : bool
        Of a longitude: whether it covers the circle.
    """

    match: AxisMatch
    stored: xr.Variable
    index: pd.Index
    order: np.ndarray | None = None
    scale: float = 1.0
    lowest: float = 0.0
    is_global: bool = False

    @property
    def dim(self) -> str:
        """Dimension that the restored coordinate runs along."""
        return self.match.name

    @property
    def place(self) -> Place:
        """Where the canonical dimension comes from."""
        return Place(self.match.dim, len(self.index), self.order)

    @property
    def descending(self) -> bool:
        """Whether the dataset counts down where the canonical order counts up, or reversed."""
        return self.order is not None and len(self.order) > 1 and _is_backward(self.order)

    def restore(self, values: pd.Index) -> Restored:
        """The coordinate of a result, as the dataset would have it.

        Parameters
        ----------
        values : Index
            Canonical values, in canonical order: of the dataset's own grid, of a part of it, or
            of another grid such as token centers.
        """
        positions = self.index.get_indexer(values)
        if bool(np.all(positions >= 0)):
            return self._restore_own(positions)
        # Rolling and flipping are both in one sort: by place, in the direction of the dataset.
        places, sorting = self._places(values)
        coordinate = xr.Variable(self.stored.dims, cast(places, self.stored.dtype))
        coordinate.attrs = dict(self.stored.attrs)
        return Restored(take(coordinate, self.dim, sorting), sorting, None)

    def shift(self, values: np.ndarray) -> np.ndarray:
        """Whole circles to be taken from each longitude to bring it into the dataset's range."""
        # The small number keeps a center that lies on the edge, but for noise, on this side.
        return np.asarray(360.0 * np.floor((values - self.lowest) / 360.0 + 1e-9))

    def _restore_own(self, positions: np.ndarray) -> Restored:
        places = positions if self.order is None else self.order[positions]
        sorting = np.argsort(places, kind="stable") if self.order is not None else None
        places = places if sorting is None else places[sorting]
        whole = np.array_equal(places, np.arange(self.stored.size))
        coordinate = self.stored if whole else self.stored[{self.dim: places}]
        return Restored(coordinate.copy(deep=False), sorting, places)

    def _places(self, values: pd.Index) -> tuple[Any, np.ndarray | None]:
        if self.match.axis == "time":
            return values.to_numpy(), None
        numbers = np.asarray(values, dtype="float64")
        if self.match.axis == "level":
            return numbers / self.scale, None
        if self.match.axis == "longitude":
            numbers = numbers - self.shift(numbers)
            sorting = np.argsort(-numbers if self.descending else numbers, kind="stable")
            return numbers, sorting
        return numbers, np.arange(len(numbers))[::-1] if self.descending else None


@dataclass(frozen=True)
class Restored:
    """A coordinate as the dataset would have it.

    Attributes
    ----------
    coordinate : Variable
        With the dataset's dimension, dtype and attributes.
    sorting : ndarray or None
        Order in which the result must be taken along the axis; None if nothing moves.
    places : ndarray or None
        Positions in the dataset, if every value is one of the dataset's own.
    """

    coordinate: xr.Variable
    sorting: np.ndarray | None
    places: np.ndarray | None


def take(variable: xr.Variable, dim: str, order: np.ndarray | None) -> xr.Variable:
    """Reorder a variable along a dimension, by slices where that is possible.

    Slices keep chunks as they are, which indexing by numbers does not. Flipping is one slice,
    rolling is two of them joined; only levels and the like are picked freely.
    """
    size = variable.sizes[dim]
    if order is None or np.array_equal(order, np.arange(size)):
        return variable
    steps = np.diff(order)
    for direction in (1, -1):
        breaks = np.flatnonzero(steps != direction) + 1
        if len(breaks) == 0 or (len(breaks) == 1 and len(order) == size):
            parts = [
                variable.isel({dim: _as_slice(part, direction)}) for part in np.split(order, breaks)
            ]
            return parts[0] if len(parts) == 1 else xr.Variable.concat(parts, dim)
    return variable.isel({dim: order})


def time_axis(ds: xr.Dataset, match: AxisMatch) -> Axis:
    """The time axis, which must be strictly increasing."""
    stored = _stored(ds, match)
    index = stored.to_index()
    if not (index.is_monotonic_increasing and index.is_unique):
        # Comparing neighbors finds NaT too: it compares as False.
        bad = int(np.argmin(np.asarray(index[1:] > index[:-1])))
        raise ConventionError(
            f"time {match.coord!r} is not strictly increasing: {index[bad + 1]} comes after "
            f"{index[bad]} at position {bad + 1}; sort it with ds.sortby({match.coord!r}) and "
            f"drop what repeats with ds.drop_duplicates({match.coord!r})"
        )
    return Axis(match, stored, index.rename("time"))


def level_axis(ds: xr.Dataset, match: AxisMatch, levels: Sequence[float]) -> Axis:
    """The levels that a field needs, which the dataset must have."""
    stored, available = _stored(ds, match), level_values(ds, match)
    order = np.array([np.argmin(np.abs(available - level)) for level in levels])
    scale = pressure_scale(stored, match.coord) if match.kind == "pressure" else 1.0
    return Axis(match, stored, pd.Index(np.array(levels, dtype="float64")), order, scale=scale)


def latitude_axis(ds: xr.Dataset, match: AxisMatch) -> Axis:
    """Latitude from north to south; any spacing, Gaussian ones too."""
    stored = _stored(ds, match)
    values = _degrees(stored, match)
    steps = np.diff(values)
    if steps.size and not (np.all(steps > 0) or np.all(steps < 0)):
        bad = int(np.argmax(np.sign(steps) != np.sign(steps[0]) if steps[0] else steps == 0))
        raise ConventionError(
            f"latitude {match.coord!r} is neither ascending nor descending: {values[bad + 1]:g} "
            f"comes after {values[bad]:g} at position {bad + 1}; sort it with "
            f"ds.sortby({match.coord!r})"
        )
    if np.abs(values).max() > 90 + _SAME_PLACE:
        raise ConventionError(
            f"latitude {match.coord!r} reaches from {values.min():g} to {values.max():g}, which "
            f"is no latitude in degrees"
        )
    if steps.size and steps[0] > 0:
        return Axis(match, stored, pd.Index(values[::-1]), np.arange(len(values))[::-1])
    return Axis(match, stored, pd.Index(values))


def longitude_axis(ds: xr.Dataset, match: AxisMatch) -> Axis:
    """Longitude ascending: from Greenwich on a global grid, from the western edge of a region.

    The widest gap on the circle is the edge of a region; if it is one step wide there is none.
    """
    stored = _stored(ds, match)
    degrees = _degrees(stored, match)
    if len(degrees) == 1:
        return Axis(match, stored, pd.Index(degrees % 360.0), lowest=float(degrees[0]))
    same = min(_SAME_PLACE, 0.1 * float(np.median(np.abs(np.diff(degrees)))))
    circle = degrees % 360.0
    circle[circle > 360.0 - same] = 0.0
    order = np.argsort(circle, kind="stable")
    gaps = np.diff(circle[order], append=circle[order[0]] + 360.0)
    _refuse_repeated(match.coord, degrees, order, gaps <= same)
    edge = int(np.argmax(gaps))
    step = float(np.median(np.delete(gaps, edge)))
    is_global = abs(gaps[edge] - step) <= _STEP_TOLERANCE * step
    start = 0 if is_global else (edge + 1) % len(order)
    order, gaps = np.roll(order, -start), np.roll(gaps, -start)
    values = circle[order]
    values[len(order) - start :] += 360.0
    _refuse_irregular(match.coord, degrees, order, gaps[:-1], step)
    _refuse_unsorted(match.coord, degrees, order)
    return Axis(
        match,
        stored,
        pd.Index(values),
        order,
        lowest=float(degrees.min()) - step / 2,
        is_global=bool(is_global),
    )


def _stored(ds: xr.Dataset, match: AxisMatch) -> xr.Variable:
    variable = ds.variables[match.coord]
    if variable.ndim == 0:
        variable = variable.set_dims({match.coord: 1})
    return variable if match.dim == match.coord else variable.to_base_variable()


def _degrees(stored: xr.Variable, match: AxisMatch) -> np.ndarray:
    units = str(stored.attrs.get("units", "degrees"))
    if not units.lower().startswith("deg"):
        raise ConventionError(
            f"{match.axis} {match.coord!r} has units {units!r}, not degrees: convert it and set "
            f".attrs['units']"
        )
    values = np.array(stored.values, dtype="float64")
    if not np.all(np.isfinite(values)) or not values.size:
        raise ConventionError(f"{match.axis} {match.coord!r} is empty or has missing values")
    return values


def _refuse_repeated(
    name: str, degrees: np.ndarray, order: np.ndarray, repeated: np.ndarray
) -> None:
    if not repeated.any():
        return
    bad = int(np.argmax(repeated))
    first, second = sorted((order[bad], order[(bad + 1) % len(order)]))
    if abs(degrees[first] - degrees[second]) > 180.0:
        raise ConventionError(
            f"longitude {name!r} holds one meridian twice, as {degrees[first]:g} and "
            f"{degrees[second]:g} (a duplicated cyclic point): drop it with "
            f"ds.drop_isel({{{name!r}: [{second}]}})"
        )
    raise ConventionError(
        f"longitude {name!r} repeats {degrees[second]:g} at positions {first} and {second}: drop "
        f"one with ds.drop_duplicates({name!r})"
    )


def _refuse_irregular(
    name: str, degrees: np.ndarray, order: np.ndarray, steps: np.ndarray, step: float
) -> None:
    irregular = np.abs(steps - step) > _STEP_TOLERANCE * step
    if irregular.any():
        bad = int(np.argmax(irregular))
        raise ConventionError(
            f"longitude {name!r} is irregular: from {degrees[order[bad]]:g} to "
            f"{degrees[order[bad + 1]]:g} it steps by {steps[bad]:g} degrees instead of {step:g}; "
            f"interpolate to a regular longitude, for example with ds.interp"
        )


def _refuse_unsorted(name: str, degrees: np.ndarray, order: np.ndarray) -> None:
    """Any start and either direction will do; anything else is refused."""
    ranks = np.empty_like(order)
    ranks[order] = np.arange(len(order))
    steps = np.diff(ranks) % len(order)
    if not (np.all(steps == 1) or np.all(steps == len(order) - 1)):
        bad = int(np.argmax(steps != steps[0]))
        raise ConventionError(
            f"longitude {name!r} is not in order: {degrees[bad + 1]:g} comes after "
            f"{degrees[bad]:g} at position {bad + 1}; sort it with ds.sortby({name!r})"
        )


def _is_backward(order: np.ndarray) -> bool:
    """Whether a rotation of 0, 1, 2 ... counts down; of two numbers, whether they do."""
    if len(order) == 2:
        return bool(order[0] > order[1])
    return bool((order[1] - order[0]) % len(order) != 1)


def _as_slice(run: np.ndarray, direction: int) -> slice:
    stop = int(run[-1]) + direction
    return slice(int(run[0]), None if stop < 0 else stop, direction)


def cast(values: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """Values in a dtype if that can hold them: centers between whole degrees stay float."""
    whole = dtype.kind not in "iu" or np.array_equal(values, np.round(values))
    return values.astype(dtype) if whole and dtype.kind != "O" else values
