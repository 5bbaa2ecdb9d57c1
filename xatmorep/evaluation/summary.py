"""All parts together: scores with intervals, and their comparison with the baselines."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import xarray as xr

from xatmorep.evaluation import metrics as of
from xatmorep.evaluation.bootstrap import LEAST_BLOCKS, interval, resampled
from xatmorep.evaluation.spectrum import zonal_energy

__all__ = ["Bootstrap", "Tally", "result_of"]

BEST = "best"
"""Name of the best baseline, whichever it is."""

BOUNDS = np.array(["lower", "upper"], dtype=object)

ORDER = ("bound", "forecaster", "baseline", "source", "metric", "field", "level", "lead_time")
"""Dimensions of a result."""


@dataclass(frozen=True)
class Bootstrap:
    """How times are drawn anew.

    Attributes
    ----------
    counts : numpy.ndarray
        How often each time is drawn (resample, time); no resample where there are too few times.
    confidence : float
        How often an interval should hold what would be found on ever more times.
    n_blocks : float
        Number of blocks in all times.
    """

    counts: np.ndarray
    confidence: float
    n_blocks: float

    @classmethod
    def of(
        cls, n_times: int, block: int, n_resamples: int, confidence: float, seed: int
    ) -> Bootstrap:
        """Draw blocks, if there are enough of them for an interval."""
        if n_times < LEAST_BLOCKS * block:
            return cls(np.zeros((0, n_times)), confidence, n_times / block)
        return cls(resampled(n_times, block, n_resamples, seed), confidence, n_times / block)

    def bounds(self, values: np.ndarray) -> np.ndarray:
        """Lower and upper bound (2, ...) of values (resample, ...)."""
        if not len(values):
            return np.full((2, *values.shape[1:]), np.nan)
        return interval(values, self.confidence, self.n_blocks)


@dataclass
class Tally:
    """Means and weights of the maps of one field, part by part.

    Attributes
    ----------
    when : tuple of str
        Dimensions of time.
    means : list of xarray.DataArray
        ``(forecaster, mean, *when, level)``.
    weights : list of xarray.DataArray
        ``(*when, level)``.
    ranks : list of xarray.DataArray
        ``(*when, level, rank)``.
    spectra : list of xarray.DataArray
        ``(source, *when, level, wavenumber)``; none where maps don't go round the circle.
    """

    when: tuple[str, ...]
    means: list[xr.DataArray] = field(default_factory=list)
    weights: list[xr.DataArray] = field(default_factory=list)
    ranks: list[xr.DataArray] = field(default_factory=list)
    spectra: list[xr.DataArray] = field(default_factory=list)

    def add(
        self,
        truth: xr.DataArray,
        hidden: xr.DataArray,
        said: Mapping[str, of.Said],
        climatology: xr.DataArray | None,
        *,
        circle: bool,
    ) -> None:
        """Score one part, by all forecasters at the same points."""
        kept = (*self.when, "level")
        weight = of.weigh(truth, hidden, said)
        self.weights.append(weight.sum([dim for dim in weight.dims if dim not in kept]))
        self.means.append(
            _named(
                {n: of.map_means(s, truth, weight, kept, climatology) for n, s in said.items()},
                "forecaster",
            )
        )
        members = said["model"].members
        assert members is not None
        self.ranks.append(of.ranks(members, truth, weight, kept))
        if circle:
            self.spectra.append(_spectra(truth, hidden, said))

    def joined(self, name: str) -> xr.DataArray:
        """Parts one after the other in time."""
        return xr.concat(getattr(self, name), self.when[0], join="exact")


def _spectra(
    truth: xr.DataArray, hidden: xr.DataArray, said: Mapping[str, of.Said]
) -> xr.DataArray:
    """Energy of complete maps: what a forecaster says where it was asked, the data elsewhere."""
    truth = truth.astype("float64")
    members = said["model"].members
    assert members is not None
    # Averaging takes energy away, so that each member is a map of its own.
    maps = {"truth": truth, "model": members.where(hidden, truth)}
    for name, one in said.items():
        maps["model_mean" if name == "model" else name] = one.mean.where(hidden, truth)
    spectra = {name: zonal_energy(array) for name, array in maps.items()}
    alike = {"member", "sample"}
    return _named({n: s.mean(alike & {*s.dims}) for n, s in spectra.items()}, "source")


def result_of(
    tallies: Mapping[str, Tally],
    levels: Mapping[str, np.ndarray],
    anomaly_std: Mapping[str, np.ndarray | None],
    bootstrap: Bootstrap,
    n_members: Mapping[str, float],
) -> xr.Dataset:
    """Scores of all fields as one labelled Dataset.

    Parameters
    ----------
    tallies : mapping of str to Tally
        By canonical name of the field.
    levels : mapping of str to numpy.ndarray
        Levels of each field, NaN at the surface.
    anomaly_std : mapping of str to numpy.ndarray or None
        Standard deviation of anomalies (level).
    bootstrap : Bootstrap
        How times are drawn anew.
    n_members : mapping of str to float
        Size of the ensemble of each forecaster.
    """
    parts, drawn = [], []
    for name, tally in tallies.items():
        found, ratios = _field(tally, anomaly_std[name], bootstrap, n_members)
        found = found.assign_coords(level=levels[name].astype("float64"))
        parts.append(found.expand_dims(field=np.array([name], dtype=object)))
        drawn.append(ratios)
    every = np.unique(np.concatenate(list(levels.values())))
    every = np.concatenate([every[np.isnan(every)], every[~np.isnan(every)]])
    parts = [part.reindex(level=every) for part in parts]
    result = xr.concat(parts, "field", join="outer", data_vars="all", coords="minimal")
    if "baseline" in result.dims:
        result = result.assign(_mean_ratios(result["ratio"], drawn, bootstrap))
    return result.transpose(*ORDER, ..., missing_dims="ignore")


def _field(
    tally: Tally,
    anomaly_std: np.ndarray | None,
    bootstrap: Bootstrap,
    n_members: Mapping[str, float],
) -> tuple[xr.Dataset, np.ndarray]:
    """Scores of one field, and its ratios to the baselines in each resample."""
    first, *others = tally.when
    means, weight = tally.joined("means"), tally.joined("weights")
    kept = [*others, "level"]
    means = means.transpose(first, "mean", "forecaster", *kept)
    weight = weight.transpose(first, *kept)
    forecasters = means["forecaster"].values
    deviation = np.full(weight.sizes["level"], np.nan) if anomaly_std is None else anomaly_std
    size = np.array([n_members[name] for name in forecasters])
    size = size.reshape(-1, *[1] * len(kept))

    def scored(counts: np.ndarray) -> np.ndarray:
        """Scores (resample, metric, forecaster, *kept)."""
        drawn = _drawn(counts, means.values, weight.values)
        found = of.metrics(drawn.swapaxes(0, 1), deviation, size)
        return np.stack([np.broadcast_to(found[name], drawn[:, 0].shape) for name in of.METRICS], 1)

    everything = scored(np.ones((1, len(means))))
    resamples = scored(bootstrap.counts)
    dims = ("metric", "forecaster", *kept)
    coords: dict[str, Any] = {dim: means[dim].values for dim in (*others, "level")}
    coords |= {"metric": np.array(of.METRICS, dtype=object), "forecaster": forecasters}
    result = xr.Dataset(coords=coords | {"bound": BOUNDS})
    result["score"] = (dims, everything[0])
    result["score_interval"] = (("bound", *dims), bootstrap.bounds(resamples))
    ratios = np.zeros((0,))
    if len(forecasters) > 1:
        names = np.array([*forecasters[1:], BEST], dtype=object)
        result = result.assign_coords(baseline=names)
        best = _best(everything)
        ratios = _ratios(resamples, best)
        dims = ("metric", "baseline", *kept)
        result["ratio"] = (dims, _ratios(everything, best)[0])
        result["ratio_interval"] = (("bound", *dims), bootstrap.bounds(ratios))
    result["rank_histogram"] = _weighted(tally.joined("ranks"), weight, first)
    if tally.spectra:
        result["spectrum"] = tally.joined("spectra").mean(first)
    if anomaly_std is not None:
        result["anomaly_std"] = ("level", anomaly_std)
    return result, ratios


def _drawn(counts: np.ndarray, means: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Means (resample, mean, forecaster, ...) over times, each as often as it was drawn."""
    total = np.tensordot(counts, weight, 1)
    weight = weight[:, None, None]
    values = np.tensordot(counts, np.where(weight > 0, means, 0.0) * weight, 1)
    total = total[:, None, None]
    found: np.ndarray = np.where(total > 0, values / np.where(total > 0, total, 1.0), np.nan)
    return found


def _best(scores: np.ndarray) -> np.ndarray:
    """Number of the best baseline (metric, *kept) among scores (1, metric, forecaster, *kept)."""
    others = np.where(np.isnan(scores[0, :, 1:]), np.inf, scores[0, :, 1:])
    return np.asarray(others.argmin(1))


def _ratios(scores: np.ndarray, best: np.ndarray) -> np.ndarray:
    """Score of the model over that of each baseline and of the best one; NaN for some metrics."""
    others = scores[:, :, 1:]
    chosen = np.take_along_axis(others, best[None, :, None], axis=2)
    others = np.concatenate([others, chosen], axis=2)
    positive = others > 0
    ratios = np.where(positive, scores[:, :, :1] / np.where(positive, others, 1.0), np.nan)
    comparable = np.isin(of.METRICS, of.LOWER_IS_BETTER)
    ratios[:, ~comparable] = np.nan
    return np.asarray(ratios)


def _mean_ratios(
    ratio: xr.DataArray, drawn: Sequence[np.ndarray], bootstrap: Bootstrap
) -> dict[str, xr.DataArray]:
    """Mean of the ratios over all fields and levels, with its interval."""
    # Each (resample, metric, baseline, [lead_time], level).
    resamples = np.concatenate(drawn, axis=-1).mean(-1)
    mean = ratio.mean(("field", "level")).transpose("metric", "baseline", ...)
    bounds = mean.expand_dims(bound=BOUNDS).copy(data=bootstrap.bounds(resamples))
    return {"mean_ratio": mean, "mean_ratio_interval": bounds}


def _weighted(array: xr.DataArray, weight: xr.DataArray, dim: str) -> xr.DataArray:
    return array.fillna(0.0).weighted(weight).mean(dim)


def _named(arrays: Mapping[str, xr.DataArray], dim: str) -> xr.DataArray:
    names = xr.DataArray(np.array(list(arrays), dtype=object), dims=dim, name=dim)
    return xr.concat(list(arrays.values()), names, coords="minimal", compat="override")
