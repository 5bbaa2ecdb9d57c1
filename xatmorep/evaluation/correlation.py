"""How alike anomalies are at two places and times: a model of their correlation.

Correlations depend on the angle between the places and on the time between them,

    rho(angle, lag) = sum over b and k of c[b, k] S_b(angle) T_k(lag),

with S_b sums of neighboring Legendre polynomials and T_k decaying functions of time, some of which
oscillate. All S_b and T_k are positive definite, so with weights c that aren't negative rho is as
well (Schoenberg 1942, doi:10.1215/S0012-7094-42-00908-6), and the best weights for correlations
that were measured are a convex problem without parameters to guess. Small scales may so decay
faster than large ones, and correlations may be negative, as those of waves are.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.interpolate import CubicSpline
from scipy.optimize import nnls

from xatmorep.evaluation.spectrum import is_circle

__all__ = ["Correlation", "Sample", "fit", "positions", "zonal_drift"]

NUGGET = 1e-3
"""Least share of the variance that no other point knows of; keeps equations well-posed."""

CAUTION = 2.0
"""How strongly correlations are held to come near one at short distances."""

TABLE = 4096
"""Entries of a table of correlations by distance."""


@dataclass(frozen=True)
class Correlation:
    """A fitted model.

    Attributes
    ----------
    edges : tuple of int
        Wave numbers at which the sums of Legendre polynomials begin, and the end of the last.
    scales : tuple of float
        Time scales in hours.
    weights : numpy.ndarray
        Weights (sum, function of time) of the products, not negative; they add up to one at most.
    drift : numpy.ndarray
        Speed (latitude) in radians per hour at which anomalies move to the east.
    """

    edges: tuple[int, ...]
    scales: tuple[float, ...]
    weights: np.ndarray
    drift: np.ndarray

    def __call__(self, angle: np.ndarray, lag: np.ndarray) -> np.ndarray:
        """Correlation of different points, at angles in radians and lags in hours."""
        space = _legendre_sums(np.cos(angle), self.edges)
        time = _time_functions(np.abs(lag), self.scales)
        return np.einsum("bk,b...,k...->...", self.weights, space, time)

    def table(self, lags: np.ndarray) -> np.ndarray:
        """Correlations (lag, chord) at chords from 0 to 2 in equal steps."""
        angle = 2 * np.arcsin(np.linspace(0, 1, TABLE))
        space = _legendre_sums(np.cos(angle), self.edges)
        return (_time_functions(np.abs(lags), self.scales).T @ self.weights.T) @ space

    @property
    def reach(self) -> tuple[float, float]:
        """Angle in radians and lag in hours at which the correlation has fallen to one half."""
        angle = np.linspace(0, np.pi, 2000)
        lag = np.linspace(0, 8 * max(self.scales), 2000)
        alike = self(np.zeros(1), np.zeros(1))[0] / 2
        return (
            _first_below(angle, self(angle, np.zeros(1)), alike),
            _first_below(lag, self(np.zeros(1), lag), alike),
        )


@dataclass(frozen=True)
class Sample:
    """Standardized anomalies at some points, in runs of consecutive frames.

    Attributes
    ----------
    runs : list of numpy.ndarray
        Anomalies (frame, latitude, longitude), NaN where missing.
    hours : list of numpy.ndarray
        Hours (frame) of each run, from any start.
    latitude, longitude : numpy.ndarray
        Degrees.
    """

    runs: list[np.ndarray]
    hours: list[np.ndarray]
    latitude: np.ndarray
    longitude: np.ndarray

    @property
    def grid_step(self) -> float:
        """Degrees of latitude between rows."""
        return float(np.abs(np.diff(self.latitude)).mean()) if len(self.latitude) > 1 else 1.0

    def lags(self) -> list[int]:
        """Numbers of frames between which correlations are measured."""
        longest = min(len(run) for run in self.runs) // 2
        return [k for k in (*range(9), 10, 12, 14, 16, 20, 24, 28, 32, 40) if k <= longest]

    def hours_of(self, lag: int) -> float:
        """Mean time between frames so many apart."""
        return float(np.mean(np.concatenate([h[lag:] - h[: len(h) - lag] for h in self.hours])))


def positions(latitude: np.ndarray, longitude: np.ndarray) -> np.ndarray:
    """Points of the unit sphere (..., 3), from radians.

    Examples
    --------
    >>> positions(np.array(0.0), np.array(np.pi / 2)).round(3) + 0.0
    array([0., 1., 0.])
    """
    flat = np.cos(latitude)
    east = (flat * np.cos(longitude), flat * np.sin(longitude))
    return np.stack([*east, np.broadcast_to(np.sin(latitude), east[0].shape)], axis=-1)


def zonal_drift(sample: Sample) -> np.ndarray:
    """Speed (latitude) in radians per hour at which anomalies move along their row.

    The one at which the anomalies, moved by it, are most like those up to a day later; then
    averaged over five rows.
    """
    day = [k for k in sample.lags() if k and sample.hours_of(k) <= 24.5] or sample.lags()[1:2]
    step = np.deg2rad(abs(np.diff(sample.longitude)).mean()) if len(sample.longitude) > 1 else 1.0
    speeds = np.deg2rad(np.arange(-60, 90.25, 0.5)) / 24
    total = np.zeros((len(sample.latitude), len(speeds)))
    for lag in day:
        shifts, alike = _alike_when_shifted(sample, lag)
        wanted = (speeds * sample.hours_of(lag) / step).clip(shifts[0], shifts[-1])
        total += CubicSpline(shifts, alike, axis=-1)(wanted)
    fastest = speeds[total.argmax(-1)] if day else np.zeros(len(sample.latitude))
    padded = np.pad(fastest, 2, mode="edge")
    return np.convolve(padded, np.full(5, 0.2), mode="valid")


def fit(sample: Sample, drift: np.ndarray, *, seed: int = 0) -> Correlation:
    """Fit the model to the correlations of a sample.

    Products of anomalies at random pairs of points, area-weighted and of many lags, are averaged
    by angle and lag; the weights are those of least squares among weights that aren't negative,
    where short distances count most.

    Parameters
    ----------
    sample : Sample
        Anomalies of variance one.
    drift : numpy.ndarray
        Speed (latitude) in radians per hour with which both points of a pair are moved to the
        middle of their times before the angle is measured; zeros for none.
    seed : int
        Seed of the pairs.
    """
    angle, lag, measured, pairs = _measured(sample, drift, seed)
    highest = int(np.clip(180 / sample.grid_step, 8, 180))
    edges = _edges(highest)
    step = max(sample.hours_of(1), 1e-6) if len(sample.lags()) > 1 else 1.0
    scales = tuple(step * 2.0 ** np.arange(-0.5, 6.5))
    space = _legendre_sums(np.cos(angle), edges)
    time = _time_functions(lag, scales)
    columns = (space[:, None] * time[None]).reshape(-1, len(angle)).T
    importance = np.sqrt(pairs / (pairs + 50)) / (0.1 + angle) / (1 + lag / 24)
    # The last column is what a point has for itself alone; fields on grids are smooth, so that
    # little of it is sought.
    system = np.zeros((len(angle) + 1, columns.shape[1] + 1))
    system[:-1, :-1] = columns * importance[:, None]
    system[0, -1], system[-1, -1] = importance[0], CAUTION
    weights = nnls(system, np.append(measured * importance, 0.0))[0][:-1]
    weights *= min(1, (1 - NUGGET) / max(weights.sum(), 1e-12))
    return Correlation(edges, scales, weights.reshape(len(space), len(time)), drift)


def _measured(
    sample: Sample, drift: np.ndarray, seed: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Angles, lags and correlations of bins, and how many pairs of full area each holds."""
    rows, columns, base = _points(sample, seed)
    latitude, longitude = np.deg2rad(sample.latitude[rows]), np.deg2rad(sample.longitude[columns])
    area = np.cos(latitude).clip(min=1e-6)
    speed = drift[rows]
    step = np.deg2rad(sample.grid_step)
    edges = np.concatenate([[0, 0.01 * step, 0.25 * step], *[_bins(step)]])
    found = []
    for lag in sample.lags():
        half = sample.hours_of(lag) / 2
        first = positions(latitude[base], longitude[base] + speed[base] * half)
        second = positions(latitude, longitude - speed * half)
        angle = np.arccos((first @ second.T).clip(-1, 1))
        product, number = np.zeros_like(angle), np.zeros_like(angle)
        for run in sample.runs:
            points = run[:, rows, columns].astype("float64")
            known = np.isfinite(points)
            points = np.where(known, points, 0.0)
            ahead = len(points) - lag
            product += points[:ahead, base].T @ points[lag:]
            number += known[:ahead, base].T.astype(float) @ known[lag:]
        weight = area * number
        frames = max(sum(len(run) - lag for run in sample.runs), 1)
        bins = np.digitize(angle, edges)
        total = np.bincount(bins.ravel(), weight.ravel(), len(edges) + 1)
        mean = np.bincount(bins.ravel(), (weight * angle).ravel(), len(edges) + 1)
        alike = np.bincount(bins.ravel(), (area * product).ravel(), len(edges) + 1)
        full = total > 0
        found.append(
            (
                mean[full] / total[full],
                np.full(full.sum(), 2 * half),
                alike[full] / total[full],
                total[full] / frames,
            )
        )
    angle, hours, alike, pairs = (np.concatenate(parts) for parts in zip(*found, strict=True))
    # The first bin of the first lag holds each point with itself: the variance.
    return angle, hours, alike / alike[0], pairs


def _bins(step: float) -> np.ndarray:
    """Edges of angles, half a grid step apart at first and wider far away."""
    near = np.arange(0.5 * step, min(12 * step, np.pi), 0.5 * step)
    return np.concatenate([near, np.linspace(near[-1], np.pi + 1e-9, 40)[1:]])


def _points(sample: Sample, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rows and columns of points, and which of them are the first ones of pairs.

    All points of a coarse grid are second ones; of a fine one random points and neighbors of the
    first.
    """
    rng = np.random.default_rng(seed)
    n_rows, n_columns = len(sample.latitude), len(sample.longitude)
    area = np.cos(np.deg2rad(sample.latitude)).clip(min=1e-6)
    chosen = rng.choice(n_rows, 250, p=area / area.sum()), rng.integers(n_columns, size=250)
    if n_rows * n_columns <= 4096:
        grid = np.arange(n_rows * n_columns)
        rows, columns = grid // n_columns, grid % n_columns
        return rows, columns, np.unique(chosen[0] * n_columns + chosen[1])
    near = np.array([(0, 0), (0, 1), (1, 0), (1, 1), (0, 2), (2, 0), (0, 4), (4, 0)])
    far = rng.choice(n_rows, 1500, p=area / area.sum()), rng.integers(n_columns, size=1500)
    rows, columns = (
        np.concatenate([(chosen[i][:, None] + near[:, i]).ravel(), far[i]]) for i in (0, 1)
    )
    rows, last = rows.clip(max=n_rows - 1), n_columns - 1
    columns = columns % n_columns if is_circle(sample.longitude) else columns.clip(max=last)
    flat, first = np.unique(rows * n_columns + columns, return_index=True)
    base = np.flatnonzero(np.isin(flat, chosen[0] * n_columns + chosen[1]))
    return rows[first], columns[first], base


def _alike_when_shifted(sample: Sample, lag: int) -> tuple[np.ndarray, np.ndarray]:
    """Mean product (latitude, shift) of anomalies and later ones some columns to the east."""
    n = len(sample.longitude)
    most = max(1, n // 2 - 1)
    shifts = np.arange(-most, most + 1)
    size = n if is_circle(sample.longitude) else 2 * n
    total, number = (np.zeros((len(sample.latitude), len(shifts))) for _ in range(2))
    for run in sample.runs:
        known = np.isfinite(run)
        parts = [np.fft.rfft(x, size) for x in (np.where(known, run, 0.0), known.astype(float))]
        for part, sums in zip(parts, (total, number), strict=True):
            cross = (np.conj(part[: len(run) - lag]) * part[lag:]).sum(0)
            sums += np.fft.irfft(cross, size)[:, shifts]
    return shifts, total / np.maximum(number, 1)


def _edges(highest: int) -> tuple[int, ...]:
    """Wave numbers that are summed together: single ones first, then ever more."""
    edges = [0]
    while edges[-1] <= highest:
        edges.append(edges[-1] + max(1, edges[-1] // 7))
    return (*edges[:-1], highest + 1)


def _legendre_sums(cosine: np.ndarray, edges: tuple[int, ...]) -> np.ndarray:
    """Sums (sum, ...) of (2n + 1) P_n over wave numbers from edge to edge, one at angle zero."""
    before, current = np.zeros_like(cosine), np.ones_like(cosine)
    sums = np.zeros((len(edges) - 1, *cosine.shape))
    band = 0
    for n in range(edges[-1]):
        band += n >= edges[band + 1]
        sums[band] += (2 * n + 1) * current
        before, current = current, ((2 * n + 1) * cosine * current - n * before) / (n + 1)
    terms = np.diff(np.array(edges) ** 2)  # 2n + 1, summed
    return sums / terms.reshape(-1, *[1] * cosine.ndim)


def _time_functions(lag: np.ndarray, scales: tuple[float, ...]) -> np.ndarray:
    """Positive definite functions (function, ...) of time, one at lag zero."""
    functions = []
    for scale in scales:
        rough, smooth = np.exp(-lag / scale), np.exp(-0.5 * (lag / scale) ** 2)
        functions += [rough, (1 + lag / scale) * rough, smooth]
        # Waves with periods of about three and six times the scale.
        functions += [smooth * np.cos(2 * lag / scale), smooth * np.cos(lag / scale)]
    return np.array(functions)


def _first_below(x: np.ndarray, y: np.ndarray, level: float) -> float:
    below = np.flatnonzero(y < level)
    return float(x[below[0]]) if below.size else float(x[-1])
