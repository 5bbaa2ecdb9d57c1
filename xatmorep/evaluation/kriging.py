"""Optimal interpolation: simple kriging of anomalies from the visible points that lie nearest.

Points that are asked for are taken in blocks of neighbors, which share the visible points that
they are estimated from and so one system of equations.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from scipy.spatial import cKDTree

from xatmorep.evaluation.correlation import TABLE, Correlation, positions

__all__ = ["Geometry", "krige"]

NEIGHBORS = 192
"""Visible points that each block is estimated from."""

AT_ONCE = 4
"""Blocks whose equations are solved together; more would leave the processor's cache."""


@dataclass(frozen=True)
class Geometry:
    """Where values are, and how they are taken together.

    Attributes
    ----------
    latitude, longitude : numpy.ndarray
        Degrees.
    token : tuple of int
        Frames, rows and columns of the cells in which points are hidden.
    parts : tuple of int
        Into how many blocks a cell is cut along each of them.
    reach : int
        Frames before and after a block whose visible points count.
    neighbors : int
        Visible points that a block is estimated from.
    """

    latitude: np.ndarray
    longitude: np.ndarray
    token: tuple[int, int, int]
    parts: tuple[int, int, int]
    reach: int
    neighbors: int = NEIGHBORS

    @property
    def block(self) -> tuple[int, int, int]:
        """Largest size of a block."""
        t, a, o = (-(-n // k) for n, k in zip(self.token, self.parts, strict=True))
        return t, a, o

    def block_of(self, axis: int, place: np.ndarray) -> np.ndarray:
        """Number of the block along an axis at a place along it."""
        size, parts = self.token[axis], self.parts[axis]
        return place // size * parts + place % size // self.block[axis]


def krige(
    values: np.ndarray,
    visible: np.ndarray,
    hours: np.ndarray,
    wanted: slice,
    correlation: Correlation,
    geometry: Geometry,
) -> tuple[np.ndarray, np.ndarray]:
    """Estimate anomalies at all points that aren't visible.

    Parameters
    ----------
    values : numpy.ndarray
        Standardized anomalies (case, frame, latitude, longitude).
    visible : numpy.ndarray
        Points whose values may be used, bool, same shape.
    hours : numpy.ndarray
        Times (case, frame) in hours from any start.
    wanted : slice
        Frames that are estimated.
    correlation : Correlation
        How alike anomalies are.
    geometry : Geometry
        Grid, blocks and neighbors.

    Returns
    -------
    estimate, variance : numpy.ndarray
        Of the wanted frames; visible points keep their value and have no variance. Where nothing
        is visible the estimate is 0 and the variance 1.

    Examples
    --------
    >>> from xatmorep.evaluation.correlation import Correlation
    >>> weights = np.zeros((4, 5))
    >>> weights[3, 0] = 0.999
    >>> alike = Correlation((0, 1, 2, 3, 4), (24.0,), weights, np.zeros(1))
    >>> visible = np.array([[[[True, False]]]])
    >>> geometry = Geometry(np.zeros(1), np.array([0.0, 1.0]), (1, 1, 1), (1, 1, 1), 1)
    >>> estimate, _ = krige(np.array([[[[2.0, 0.0]]]]), visible, np.zeros((1, 1)), slice(0, 1),
    ...                     alike, geometry)
    >>> estimate.round(2)
    array([[[[2., 2.]]]])
    """
    estimate = np.where(visible, values, 0.0)[:, wanted].astype("float64")
    variance = np.where(visible, 0.0, 1.0)[:, wanted]
    grid = estimate.shape[2:]
    for cases in _alike(visible, hours):
        first = cases[0]
        known = np.where(visible[cases], values[cases], 0.0).reshape(len(cases), -1)
        results = [array[cases].reshape(len(cases), -1) for array in (estimate, variance)]
        offset = wanted.start * grid[0] * grid[1]
        solved = _weights(visible[first], hours[first], wanted, correlation, geometry)
        for targets, sources, weights, left in solved:
            # (case, block, target) from (case, block, source)
            found = np.matmul(known[:, sources][:, :, None, :], weights)[:, :, 0]
            results[0][:, targets - offset] = found
            results[1][:, targets - offset] = left
        for array, result in zip((estimate, variance), results, strict=True):
            array[cases] = result.reshape(len(cases), *array.shape[1:])
    return estimate, variance


def _alike(visible: np.ndarray, hours: np.ndarray) -> list[list[int]]:
    """Cases of which the same points are visible at the same times, which share all weights."""
    groups: dict[tuple[bytes, bytes], list[int]] = {}
    for case, (mask, times) in enumerate(zip(visible, hours, strict=True)):
        key = np.packbits(mask).tobytes(), (times - times[0]).round(6).tobytes()
        groups.setdefault(key, []).append(case)
    return list(groups.values())


Solved = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]
"""Targets (block, target) and sources (block, source) as positions in the flattened case, weights
(block, source, target) and variances (block, target)."""


def _weights(
    visible: np.ndarray,
    hours: np.ndarray,
    wanted: slice,
    correlation: Correlation,
    geometry: Geometry,
) -> Iterator[Solved]:
    """Kriging weights of all blocks of one case."""
    n_frames, n_rows, n_columns = visible.shape
    step = geometry.token[0]
    # Blocks lie on the lattice of the whole dataset, as the hidden cells do.
    for start in range(wanted.start - wanted.start % step, wanted.stop, step):
        frames = slice(max(start, wanted.start), min(start + step, wanted.stop))
        window = slice(max(0, start - geometry.reach), min(n_frames, start + step + geometry.reach))
        offset = window.start * n_rows * n_columns
        near = _Window(visible[window], hours[window], correlation, geometry)
        asked = np.zeros(near.visible.shape, dtype=bool)
        asked[frames.start - window.start : frames.stop - window.start] = ~visible[frames]
        blocks = _blocks(asked, start - window.start, geometry)
        for targets, sources, weights, left in near.solve(blocks):
            yield targets + offset, sources + offset, weights, left


class _Window:
    """Some frames of a case, with the points where they lie in the air that moves along."""

    def __init__(
        self, visible: np.ndarray, hours: np.ndarray, correlation: Correlation, geometry: Geometry
    ) -> None:
        self.visible, self.geometry = visible, geometry
        self.hours = hours - hours.mean()
        latitude, longitude = np.deg2rad(geometry.latitude), np.deg2rad(geometry.longitude)
        moved = longitude - correlation.drift[:, None] * self.hours[:, None, None]
        self.points = positions(np.broadcast_to(latitude[:, None], moved.shape), moved).reshape(
            -1, 3
        )
        self.frame = np.repeat(np.arange(len(hours)), visible[0].size)
        lags = np.abs(self.hours[:, None] - self.hours)
        unique, rows = np.unique(lags.round(3), return_inverse=True)
        # Rows of the table by the frames of two points, as offsets into the flattened table.
        self.offsets = (rows.reshape(lags.shape) * TABLE).astype(np.int32)
        table = correlation.table(unique)
        self.table = table.ravel()
        self.slope = np.diff(table, axis=1, append=table[:, -1:]).ravel()
        self.nugget = 1 - float(correlation.weights.sum())
        angle, lag = correlation.reach
        t, a, o = geometry.block
        # A block is as wide as it is: distances count beyond that.
        self.scale = angle + 0.5 * np.hypot(a * _step(latitude), o * _step(longitude) / 2)
        self.lag_scale = lag + 0.5 * t * _step(self.hours)

    def solve(self, blocks: np.ndarray) -> Iterator[Solved]:
        """Weights of blocks (block, point) of points that are asked for."""
        known = np.flatnonzero(self.visible)
        if not len(known) or not len(blocks):
            return
        n = min(self.geometry.neighbors, len(known))
        tree = cKDTree(self._scaled(self.points[known], self.hours[self.frame[known]]))
        middle = self.points[blocks].mean(1)
        middle /= np.linalg.norm(middle, axis=1, keepdims=True)
        times = self.hours[self.frame[blocks]].mean(1)
        _, found = tree.query(self._scaled(middle, times), k=n)
        sources = known[found.reshape(len(blocks), n)]
        for i in range(0, len(blocks), AT_ONCE):
            yield self._solve(blocks[i : i + AT_ONCE], sources[i : i + AT_ONCE])

    def _scaled(self, points: np.ndarray, hours: np.ndarray) -> np.ndarray:
        return np.concatenate([points / self.scale, hours[:, None] / self.lag_scale], axis=1)

    def _solve(self, targets: np.ndarray, sources: np.ndarray) -> Solved:
        among = self._correlations(sources, sources)
        diagonal = np.arange(sources.shape[1])
        among[:, diagonal, diagonal] = 1.0
        between = self._correlations(sources, targets)
        weights = np.linalg.solve(among, between)
        left = (1 - (weights * between).sum(1)).clip(min=0)
        return targets, sources, weights, left

    def _correlations(self, first: np.ndarray, second: np.ndarray) -> np.ndarray:
        """Correlations (block, first, second) by the table, in place to spare memory."""
        chord = self.points[first] @ self.points[second].swapaxes(1, 2)
        np.subtract(1, chord, out=chord)
        np.maximum(chord, 0, out=chord)
        np.sqrt(chord, out=chord)
        chord *= 2**0.5 / 2 * (TABLE - 1)
        index = chord.astype(np.int32)
        chord -= index
        index += self.offsets[self.frame[first][:, :, None], self.frame[second][:, None]]
        result = self.table.take(index)
        slope = self.slope.take(index)
        slope *= chord
        result += slope
        return result


def _blocks(asked: np.ndarray, first: int, geometry: Geometry) -> np.ndarray:
    """Positions (block, point) of points that are asked for; a block of fewer repeats some.

    `first` is the number of the frame at which cells begin.
    """
    flat = np.flatnonzero(asked)
    if not len(flat):
        return np.zeros((0, 0), dtype=int)
    frame, row, column = np.unravel_index(flat, asked.shape)
    places = (frame - first, row, column)
    labels = [geometry.block_of(axis, place) for axis, place in enumerate(places)]
    order = np.lexsort(labels)
    changes = np.any(np.diff(np.stack(labels)[:, order], axis=1) != 0, axis=0)
    starts = np.concatenate([[0], np.flatnonzero(changes) + 1])
    counts = np.diff(starts, append=len(flat))
    within = np.minimum(np.arange(counts.max()), counts[:, None] - 1)
    return np.asarray(flat[order[starts[:, None] + within]])


def _step(values: np.ndarray) -> float:
    return float(np.abs(np.diff(values)).mean()) if len(values) > 1 else 0.0
