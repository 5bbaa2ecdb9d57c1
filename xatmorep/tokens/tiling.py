"""Regular neighborhoods over a dataset, and the grid of tokens that they give."""

from __future__ import annotations

import datetime
import itertools
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import xarray as xr
import xbatcher

from xatmorep.errors import ConventionError
from xatmorep.tokens.info import center
from xatmorep.tokens.spec import InputSpec, Shape
from xatmorep.tokens.steps import AXES, Labels, check_grid

__all__ = ["AxisTiling", "Box", "Labels", "Tiling", "tiling_for", "token_coordinates"]


@dataclass(frozen=True)
class AxisTiling:
    """Neighborhoods along one dimension: evenly spaced, the last one shifted inward.

    Attributes
    ----------
    size : int
        Grid points along the dimension.
    box : int
        Grid points of a neighborhood along the dimension.
    starts : tuple of int
        First grid point of each neighborhood, strictly increasing.
    closed : bool
        Whether the first point follows the last one, as on a circle of latitude. Neighborhoods
        may then go on from the last point to the first; points are counted on beyond `size`.

    Examples
    --------
    >>> rows = AxisTiling.cut(size=10, box=4)
    >>> rows.starts
    (0, 4, 6)
    >>> rows.token_starts(2)
    array([0, 2, 4, 6, 8])
    >>> AxisTiling.cut(size=10, box=4, shared=2).starts
    (0, 2, 4, 6)
    """

    size: int
    box: int
    starts: tuple[int, ...]
    closed: bool = False

    @classmethod
    def cut(cls, size: int, box: int, shared: int = 0, *, closed: bool = False) -> AxisTiling:
        """Tile `size` points regularly, and what remains by one neighborhood shifted inward.

        Each neighborhood of `box` points has `shared` ones in common with the next. If the points
        are `closed` to a circle, neighborhoods go all the way round instead.

        Raises
        ------
        ConventionError
            If there are fewer points than a neighborhood has.
        """
        if size < box:
            raise ConventionError(f"{size} points are fewer than the {box} of one neighborhood")
        if closed:
            return cls(size, box, tuple(range(0, size, box - shared)), closed=True)
        # One dimension at a time and only indices: in this mode xbatcher neither loads, nor
        # stacks, nor renames anything. It leaves out what does not fill a box, and we add it.
        regular = xbatcher.BatchGenerator(
            xr.DataArray(np.arange(size), dims="point"),
            input_dims={"point": box},
            input_overlap={"point": shared},
            concat_input_dims=False,
            preload_batch=False,
        )
        starts = [int(batch[0]) for batch in regular]
        if starts[-1] + box < size:
            starts.append(size - box)
        return cls(size=size, box=box, starts=tuple(starts))

    def moved(self, n: int) -> AxisTiling:
        """The same neighborhoods, counting grid points from `n` before the first one.

        Examples
        --------
        >>> AxisTiling.cut(size=10, box=4).moved(3).starts
        (3, 7, 9)
        """
        return AxisTiling(self.size + n, self.box, tuple(start + n for start in self.starts))

    def reaching(self, points: slice) -> AxisTiling:
        """Those neighborhoods that reach into a range of grid points.

        Their `weights` at these points are the same as among all neighborhoods.

        Examples
        --------
        >>> AxisTiling.cut(size=10, box=4, shared=2).reaching(slice(4, 6)).starts
        (2, 4)
        """
        starts = [s for s in self.starts if points.start - self.box < s < points.stop]
        return AxisTiling(starts[-1] + self.box, self.box, tuple(starts))

    def __len__(self) -> int:
        """Count the neighborhoods along the dimension."""
        return len(self.starts)

    def points(self, i: int) -> slice:
        """Grid points of neighborhood `i`."""
        return slice(self.starts[i], self.starts[i] + self.box)

    def weights(self, i: int) -> npt.NDArray[np.float64]:
        """Weight of neighborhood `i` at each of its points when neighborhoods are blended.

        Where a neighborhood overlaps the one before, its weight rises as ``sin^2``, and where it
        overlaps the next it falls as ``cos^2``. Weights of neighborhoods that share no more than
        half of their points sum to one, and where only one covers a point its weight is exactly
        one; else they are to be divided by their sum.

        Returns
        -------
        (box,) float64 array
            Weights in (0, 1].

        Examples
        --------
        >>> rows = AxisTiling.cut(size=7, box=5)
        >>> rows.weights(0).round(3), rows.weights(1).round(3)
        (array([1.   , 1.   , 0.933, 0.5  , 0.067]), array([0.067, 0.5  , 0.933, 1.   , 1.   ]))
        """
        weights = np.ones(self.box)
        before, after = self._overlap(i), self._overlap(i + 1)
        weights[:before] *= _ramp(before)
        weights[self.box - after :] *= 1 - _ramp(after)
        return weights

    def kept_tokens(self, i: int, token: int) -> slice:
        """Tokens of neighborhood `i` that cover something which earlier ones do not.

        Parameters
        ----------
        i : int
            Number of the neighborhood.
        token : int
            Grid points of a token along the dimension.

        Returns
        -------
        slice
            Of the tokens inside the neighborhood.

        Examples
        --------
        >>> AxisTiling.cut(size=10, box=6).kept_tokens(1, token=3)  # 4..6 is new in 6 only
        slice(0, 2, None)
        >>> AxisTiling.cut(size=10, box=6).kept_tokens(1, token=2)
        slice(1, 3, None)
        """
        return slice(self._overlap(i) // token, self.box // token)

    def token_places(self, i: int, token: int) -> slice:
        """Where the kept tokens of neighborhood `i` stand among all kept tokens."""
        kept = [self.kept_tokens(j, token) for j in range(i + 1)]
        stop = sum(tokens.stop - tokens.start for tokens in kept)
        return slice(stop - kept[i].stop + kept[i].start, stop)

    def token_starts(self, token: int) -> npt.NDArray[np.int64]:
        """First grid point of each kept token, strictly increasing."""
        return np.concatenate(
            [
                start + token * np.arange(self.box // token)[self.kept_tokens(i, token)]
                for i, start in enumerate(self.starts)
            ]
        )

    def _overlap(self, i: int) -> int:
        """Points that neighborhood `i` shares with the one before."""
        if self.closed and i in (0, len(self.starts)):
            return self.starts[-1] + self.box - self.size
        if not 0 < i < len(self.starts):
            return 0
        return self.starts[i - 1] + self.box - self.starts[i]


@dataclass(frozen=True)
class Box:
    """One neighborhood of a tiling: its number along each dimension and its grid points.

    Attributes
    ----------
    time, latitude, longitude : int
        Number of the neighborhood along each dimension.
    slices : dict of str to slice
        Its grid points, for ``.isel(box.slices)``.
    """

    time: int
    latitude: int
    longitude: int
    slices: Mapping[str, slice]


@dataclass(frozen=True)
class Tiling:
    """Neighborhoods over a dataset: every point is in at least one of them.

    Examples
    --------
    >>> tiling = Tiling(AxisTiling.cut(3, 2), AxisTiling.cut(4, 4), AxisTiling.cut(8, 4))
    >>> [(box.time, box.longitude) for box in tiling.boxes()]
    [(0, 0), (0, 1), (1, 0), (1, 1)]
    >>> tiling.boxes()[-1].slices
    {'time': slice(1, 3, None), 'latitude': slice(0, 4, None), 'longitude': slice(4, 8, None)}
    >>> tiling.token_grid((1, 2, 2))
    (3, 2, 4)
    """

    time: AxisTiling
    latitude: AxisTiling
    longitude: AxisTiling

    def boxes(self, time: int | None = None) -> list[Box]:
        """All neighborhoods, or those of one number in time; longitude fastest, then latitude."""
        times = range(len(self.time)) if time is None else [time]
        return [
            Box(
                time=i,
                latitude=j,
                longitude=k,
                slices={
                    "time": self.time.points(i),
                    "latitude": self.latitude.points(j),
                    "longitude": self.longitude.points(k),
                },
            )
            for i, j, k in itertools.product(
                times, range(len(self.latitude)), range(len(self.longitude))
            )
        ]

    def weights(self, box: Box) -> npt.NDArray[np.float64]:
        """Weight of each point of one neighborhood, (time, latitude, longitude)."""
        time = self.time.weights(box.time)[:, None, None]
        latitude = self.latitude.weights(box.latitude)[:, None]
        return time * latitude * self.longitude.weights(box.longitude)

    def token_grid(self, token_shape: Shape) -> Shape:
        """Count the kept tokens in (time, latitude, longitude) over the whole dataset."""
        t, a, o = token_shape
        return (
            self.time.token_starts(t).size,
            self.latitude.token_starts(a).size,
            self.longitude.token_starts(o).size,
        )


def tiling_for(
    labels: Labels,
    spec: InputSpec,
    *,
    axes: Mapping[str, str] | None = None,
    in_time: bool = True,
    overlap: float = 0.0,
    is_global: bool = False,
) -> Tiling:
    """Regular tiling of a dataset by the model's neighborhoods.

    Parameters
    ----------
    labels : DataArray, Dataset or mapping
        Gives the coordinates ``time``, ``latitude`` (from north to south) and ``longitude``
        (ascending); values are not read.
    spec : InputSpec
        What the model reads.
    axes : dict of str to str, optional
        Names of the three dimensions in the user's dataset, for error messages.
    in_time : bool
        Whether times are tiled and checked, too; if not there is one neighborhood in time, which
        the caller places.
    overlap : float
        Share of a neighborhood that the next one has in common with it along each dimension,
        rounded down to whole tokens of all fields.
    is_global : bool
        Whether longitude covers the whole circle: neighborhoods that overlap then go round it, if
        it is a whole number of tokens.

    Returns
    -------
    Tiling
        Neighborhoods from the first time, the northernmost row and the western edge (Greenwich
        on a global grid); the last along each dimension is shifted inward where it would stick
        out.

    Raises
    ------
    ConventionError
        If the grid is too small or has other steps than the model's; see `check_grid`.

    Examples
    --------
    >>> import xarray as xr
    >>> from xatmorep.tokens.spec import FieldSpec, InputSpec, NeighborhoodSpec
    >>> spec = InputSpec(
    ...     neighborhood=NeighborhoodSpec(shape=(1, 4, 6), time_step=6, grid_step=(1, 1)),
    ...     fields=(FieldSpec(name="2m_temperature", units="K", token_shape=(1, 2, 3)),),
    ... )
    >>> grid = xr.Dataset(
    ...     coords={
    ...         "time": [np.datetime64("2021-01-01", "s")],
    ...         "latitude": 60.0 - np.arange(9),
    ...         "longitude": 1.0 * np.arange(12),
    ...     }
    ... )
    >>> tiling = tiling_for(grid, spec)
    >>> tiling.latitude.starts, tiling.longitude.starts
    ((0, 4, 5), (0, 6))
    >>> tiling_for(grid, spec, overlap=0.5).longitude.starts
    (0, 3, 6)
    >>> tiling_for(grid, spec, overlap=0.5, is_global=True).longitude.starts
    (0, 3, 6, 9)
    """
    check_grid(labels, spec, axes=axes, in_time=in_time)
    boxes = dict(zip(AXES, spec.neighborhood.shape, strict=True))
    sizes = {axis: labels[axis].size for axis in AXES}
    if not in_time:
        sizes["time"] = boxes["time"]
    units = [math.lcm(*sizes) for sizes in zip(*(f.token_shape for f in spec.fields), strict=True)]
    tiles = {}
    for axis, unit in zip(AXES, units, strict=True):
        # A share such as 0.58 of 50 tokens is just less than 29 of them in floating point.
        shared = math.floor(overlap * (boxes[axis] // unit) + 1e-9) * unit
        closed = axis == "longitude" and is_global and shared > 0 and sizes[axis] % unit == 0
        tiles[axis] = AxisTiling.cut(sizes[axis], boxes[axis], shared, closed=closed)
    return Tiling(**tiles)


def token_coordinates(
    tiling: Tiling, spec: InputSpec, name: str, labels: Labels
) -> dict[str, xr.DataArray]:
    """Coordinates of the kept tokens of one field over a whole dataset.

    Parameters
    ----------
    tiling : Tiling
        Tiling of the dataset.
    spec : InputSpec
        What the model reads.
    name : str
        Canonical name of the field.
    labels : DataArray, Dataset or mapping
        The coordinates that were tiled.

    Returns
    -------
    dict of str to DataArray
        ``time``, ``level``, ``latitude``, ``longitude``: token centers, as coordinates of the
        dimensions of the same names. The time is the middle between the first and the last frame,
        in the dtype and calendar of the data; longitude goes on beyond 360 as in `labels`; level
        is 0 for a surface field.

        ``time_bounds``, ``latitude_bounds``, ``longitude_bounds``, each with a second dimension
        ``bounds`` of lower and upper edge: coordinates of a Dataset (a DataArray can't hold them,
        for it has no dimension ``bounds``). A grid point stands for the cell around it, so tokens
        reach half a grid step (the data's) beyond their first and last points, in latitude not
        beyond the poles. A frame stands for the time around it in the same way, so tokens reach
        half a time step (the model's) beyond their first and last frames: the bounds of a token
        of one frame are one time step apart.

    Examples
    --------
    >>> import xarray as xr
    >>> from xatmorep.tokens.spec import FieldSpec, InputSpec, NeighborhoodSpec
    >>> spec = InputSpec(
    ...     neighborhood=NeighborhoodSpec(shape=(1, 4, 6), time_step=6, grid_step=(1, 1)),
    ...     fields=(FieldSpec(name="2m_temperature", units="K", token_shape=(1, 2, 3)),),
    ... )
    >>> grid = xr.Dataset(
    ...     coords={
    ...         "time": [np.datetime64("2021-01-01T12", "s")],
    ...         "latitude": 90.0 - np.arange(5),
    ...         "longitude": 1.0 * np.arange(6),
    ...     }
    ... )
    >>> coordinates = token_coordinates(tiling_for(grid, spec), spec, "2m_temperature", grid)
    >>> coordinates["latitude"].values
    array([89.5, 87.5, 86.5])
    >>> coordinates["latitude_bounds"].values.tolist()
    [[88.5, 90.0], [86.5, 88.5], [85.5, 87.5]]
    >>> coordinates["time_bounds"].values.astype("datetime64[h]")
    array([['2021-01-01T09', '2021-01-01T15']], dtype='datetime64[h]')
    """
    field, box = spec.field(name), spec.neighborhood
    level = np.array(field.levels or (0.0,))
    coordinates = {"level": xr.DataArray(level, dims="level", coords={"level": level})}
    halves: tuple[Any, ...] = (
        _half_time_step(box.time_step, labels["time"].values),
        *(
            _half_step(labels[axis].values, step)
            for axis, step in zip(AXES[1:], box.grid_step, strict=True)
        ),
    )
    tilings = (tiling.time, tiling.latitude, tiling.longitude)
    for axis, tiles, size, half in zip(AXES, tilings, field.token_shape, halves, strict=True):
        starts = tiles.token_starts(size)
        points = labels[axis].values
        first, last = points[starts], points[starts + size - 1]
        middle = center(first, last)
        lower, upper = np.minimum(first, last) - half, np.maximum(first, last) + half
        if axis == "latitude":
            lower, upper = np.maximum(lower, -90), np.minimum(upper, 90)
        coords = {axis: middle}
        coordinates[axis] = xr.DataArray(middle, dims=axis, coords=coords)
        coordinates[f"{axis}_bounds"] = xr.DataArray(
            np.stack([lower, upper], axis=-1), dims=(axis, "bounds"), coords=coords
        )
    return coordinates


def _ramp(n: int) -> npt.NDArray[np.float64]:
    """Smooth rise from 0 to 1 at the middles of `n` points."""
    ramp: npt.NDArray[np.float64] = np.sin(np.pi / 2 * (np.arange(n) + 0.5) / n) ** 2
    return ramp


def _half_step(points: npt.NDArray[Any], default: float) -> float:
    """Half of the mean step between points; of `default` if there is only one."""
    return float(np.abs(np.diff(points)).mean() if points.size > 1 else default) / 2


def _half_time_step(hours: float, times: npt.NDArray[Any]) -> np.timedelta64 | datetime.timedelta:
    half = datetime.timedelta(seconds=round(hours * 1800))
    if times.dtype.kind != "M":
        return half
    return np.timedelta64(half).astype(f"timedelta64[{np.datetime_data(times.dtype)[0]}]")
