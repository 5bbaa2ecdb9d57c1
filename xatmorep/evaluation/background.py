"""What baselines know before they see any visible point: the climatology, and correlations."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from xatmorep.evaluation.climatology import Climatology, Record, elapsed
from xatmorep.evaluation.correlation import Correlation, Sample, fit, zonal_drift

__all__ = ["KRIGING", "Background"]

KRIGING = {"kriging": False, "drifting_kriging": True}
"""Baselines that need correlations, and whether anomalies move in theirs."""

RUN = 80
"""Consecutive frames in which correlations are measured."""

MOST_FRAMES = 720

MOST_BYTES = 2**28


@dataclass(frozen=True)
class Background:
    """What is known of each field.

    Attributes
    ----------
    climatology : Climatology or None
        None if no data were given for it.
    correlations : dict
        By name of the baseline and of the field, one for each level.
    """

    climatology: Climatology | None = None
    correlations: Mapping[tuple[str, str], list[Correlation]] = field(default_factory=dict)

    @classmethod
    def of(
        cls,
        record: Record | None,
        times: np.ndarray,
        baselines: Sequence[str],
        step: Callable[[str], None],
    ) -> Background:
        """Learn from a record what the baselines need.

        Parameters
        ----------
        record : Record or None
            The data, if there are any.
        times : numpy.ndarray
            All times at which the climatology will be asked for.
        baselines : sequence of str
            Names of the baselines.
        step : callable
            Called with a few words before each step.
        """
        if record is None:
            return cls()
        step("climatology")
        climatology = Climatology.fit(record, times)
        wanted = [name for name in KRIGING if name in baselines]
        correlations: dict[tuple[str, str], list[Correlation]] = {}
        for name in record.fields if wanted else ():
            step(f"correlations of {name}")
            for level in _samples(record, climatology, name):
                still = np.zeros(len(level.latitude))
                for baseline in wanted:
                    drift = zonal_drift(level) if KRIGING[baseline] else still
                    correlations.setdefault((baseline, name), []).append(fit(level, drift))
        return cls(climatology, correlations)


def _samples(record: Record, climatology: Climatology, name: str) -> list[Sample]:
    """Standardized anomalies of a field in runs over the whole record, for each level."""
    target = record.fields[name]
    n_levels, *grid = target.shape[-3:]
    most = int(np.clip(MOST_BYTES // (4 * n_levels * grid[0] * grid[1]), 40, MOST_FRAMES))
    runs, hours = [], []
    for frames in _runs(record.times, most):
        times = record.times[frames]
        values = record.read(frames, name)[name][0]
        anomalies = (values - climatology.at(name, times)) / climatology.deviation[name]
        runs.append(anomalies.astype("float32"))
        hours.append(elapsed(times))
    place = target["latitude"].values, target["longitude"].values
    return [Sample([run[:, i] for run in runs], hours, *place) for i in range(n_levels)]


def _runs(times: np.ndarray, most: int) -> list[slice]:
    """Runs of frames without a gap, spread over the record."""
    steps = np.diff(elapsed(times))
    gaps = np.flatnonzero(steps > 1.5 * np.median(steps)) + 1 if len(steps) else steps.astype(int)
    edges = [0, *gaps.tolist(), len(times)]
    pieces = [
        slice(start, min(start + RUN, stop))
        for first, stop in itertools.pairwise(edges)
        for start in range(first, stop, RUN)
    ]
    # Short remainders have few lags, which all runs must have.
    longest = max(piece.stop - piece.start for piece in pieces)
    whole = [piece for piece in pieces if 2 * (piece.stop - piece.start) >= longest]
    kept = max(1, most // longest)
    chosen = np.unique(np.linspace(0, len(whole) - 1, min(kept, len(whole))).round().astype(int))
    return [whole[i] for i in chosen]
