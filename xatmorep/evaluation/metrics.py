"""Scores: means over points by metric libraries, and what is made of them.

Scores of points are averaged over a map first. These means and the weight of each map are all that
is needed of a time, so that datasets of any length are scored, and times drawn anew for intervals,
without their maps.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import xarray as xr

from xatmorep.errors import ConventionError, require

__all__ = ["LOWER_IS_BETTER", "MEANS", "METRICS", "Said", "map_means", "metrics", "ranks", "weigh"]

METRICS = (
    *("rmse", "normalized_rmse", "mae", "bias", "acc"),
    *("crps", "crps_fair", "spread", "spread_skill_ratio"),
)
LOWER_IS_BETTER = ("rmse", "normalized_rmse", "mae", "crps", "crps_fair")

MEANS = (
    *("square", "absolute", "error", "crps", "crps_fair", "variance"),
    *("forecast_anomaly_square", "truth_anomaly_square", "anomaly_product"),
)
"""Quantities of points that are averaged over maps."""


@dataclass(frozen=True)
class Said:
    """What a forecaster says: an ensemble, a normal distribution, or one value.

    Attributes
    ----------
    mean : xarray.DataArray
        Expected value.
    members : xarray.DataArray, optional
        Ensemble, with the further dimension ``member``.
    std : xarray.DataArray, optional
        Standard deviation of a normal distribution.
    """

    mean: xr.DataArray
    members: xr.DataArray | None = None
    std: xr.DataArray | None = None

    @classmethod
    def ensemble(cls, members: xr.DataArray) -> Said:
        """The members, in double precision, and their mean."""
        members = members.astype("float64")
        return cls(members.mean("member"), members)

    @property
    def n_members(self) -> float:
        """Size of the ensemble; one for a single value, infinite for a distribution."""
        if self.std is not None:
            return float("inf")
        return 1 if self.members is None else self.members.sizes["member"]


def weigh(truth: xr.DataArray, hidden: xr.DataArray, forecasts: Mapping[str, Said]) -> xr.DataArray:
    """Area of the points that are scored: hidden ones at which no forecaster has nothing to say.

    Parameters
    ----------
    truth, hidden : xarray.DataArray
        Data and which of them are scored, with a dimension ``latitude`` in degrees.
    forecasts : mapping of str to Said
        What the forecasters say.

    Returns
    -------
    xarray.DataArray
        Cosine of the latitude, or 0; dimensions of the truth.

    Raises
    ------
    ConventionError
        If coordinates differ.
    """
    means = [said.mean for said in forecasts.values()]
    _same_labels(truth, hidden, *means)
    functions = require("scores.functions", extra="metrics")
    where = hidden & truth.notnull()
    for mean in means:
        where &= mean.notnull()
    area = functions.create_latitude_weights(truth["latitude"]).clip(min=0)
    return area.where(where, 0.0).transpose(*truth.dims)


def map_means(
    said: Said,
    truth: xr.DataArray,
    weight: xr.DataArray,
    kept: Sequence[str],
    climatology: xr.DataArray | None = None,
) -> xr.DataArray:
    """Weighted means over the points of each map.

    Parameters
    ----------
    said : Said
        What a forecaster says.
    truth, weight : xarray.DataArray
        Data, and the weight of each point.
    kept : sequence of str
        Dimensions of the result, such as time and level; all others are averaged over.
    climatology : xarray.DataArray, optional
        What anomalies are deviations from.

    Returns
    -------
    xarray.DataArray
        ``(mean, *kept)``, float64: the means of `MEANS`. NaN where a map has no weight, or the
        forecaster doesn't give what is needed.

    Raises
    ------
    ConventionError
        If coordinates differ.
    """
    parts = (said.mean, said.members, said.std, climatology)
    _same_labels(truth, weight, *(part for part in parts if part is not None))
    empty = xr.full_like(weight.isel({dim: 0 for dim in weight.dims if dim not in kept}), np.nan)
    empty = empty.drop_vars([name for name in empty.coords if name not in kept])
    if not (weight > 0).any():
        return _stacked(dict.fromkeys(MEANS, empty), kept)
    continuous = require("scores.continuous", extra="metrics")
    # What has no weight must not be missing either.
    truth = truth.astype("float64").where(weight > 0, 0.0)
    mean = said.mean.astype("float64").where(weight > 0, 0.0)
    options = {"preserve_dims": list(kept), "weights": weight}
    found = {
        "square": continuous.mse(mean, truth, **options),
        "absolute": continuous.mae(mean, truth, **options),
        "error": continuous.additive_bias(mean, truth, **options),
        **_of_distribution(said, truth, weight, kept),
    }
    if climatology is not None:
        # No library has an anomaly correlation with weights.
        ahead, behind = ((x - climatology).where(weight > 0, 0.0) for x in (mean, truth))
        pairs = {
            "forecast_anomaly_square": ahead * ahead,
            "truth_anomaly_square": behind * behind,
            "anomaly_product": ahead * behind,
        }
        found |= {name: _mean(array, weight, kept) for name, array in pairs.items()}
    found.setdefault("crps", found["absolute"])
    return _stacked({name: found.get(name, empty) for name in MEANS}, kept)


def _of_distribution(
    said: Said, truth: xr.DataArray, weight: xr.DataArray, kept: Sequence[str]
) -> dict[str, xr.DataArray]:
    """Means that need more than one value."""
    if said.std is not None:
        rules = require("scoringrules", extra="metrics")
        mean, std = said.mean.where(weight > 0, 0.0), said.std.where(weight > 0, 1.0)
        tiny = np.finfo("float64").tiny
        points = rules.crps_normal(truth.values, mean.values, std.values.clip(min=tiny))
        crps = _mean(truth.copy(data=points), weight, kept)
        return {"crps": crps, "crps_fair": crps, "variance": _mean(std**2, weight, kept)}
    if said.members is None:
        return {}
    probability = require("scores.probability", extra="metrics")
    members = said.members.astype("float64").where(weight > 0, 0.0)
    options = {"preserve_dims": list(kept), "weights": weight}
    found = {"crps": probability.crps_for_ensemble(members, truth, "member", **options)}
    if said.n_members > 1:
        found["crps_fair"] = probability.crps_for_ensemble(
            members, truth, "member", method="fair", **options
        )
        found["variance"] = _mean(members.var("member", ddof=1), weight, kept)
    return found


def ranks(
    members: xr.DataArray, truth: xr.DataArray, weight: xr.DataArray, kept: Sequence[str]
) -> xr.DataArray:
    """How often the truth has each rank among the members, by weight.

    Where it equals some of them it counts for all their ranks in equal shares, so that nothing has
    to be drawn.

    Returns
    -------
    xarray.DataArray
        ``(*kept, rank)`` with ranks 1 (below all members) to M + 1, which add up to one.
    """
    probability = require("scores.probability", extra="metrics")
    members, truth = (x.astype("float64").where(weight > 0, 0.0) for x in (members, truth))
    if not (weight > 0).any():
        weight = xr.ones_like(weight)
        truth = xr.full_like(truth, np.nan)
    found: xr.DataArray = probability.rank_histogram(
        members, truth, "member", preserve_dims=list(kept), weights=weight
    )
    return found.transpose(*kept, "rank")


def metrics(
    means: np.ndarray, anomaly_std: np.ndarray, n_members: np.ndarray
) -> dict[str, np.ndarray]:
    """Scores from means over all points.

    Parameters
    ----------
    means : numpy.ndarray
        Means of `MEANS` along the first axis.
    anomaly_std : numpy.ndarray
        Standard deviation of anomalies, that broadcasts with one of the means.
    n_members : numpy.ndarray
        Size of the ensembles, that broadcasts with one of the means; infinite for distributions.

    Returns
    -------
    dict of str to numpy.ndarray
        Scores of `METRICS`.

    Examples
    --------
    >>> means = np.array([4.0, 1.5, 0.5, 1.0, 0.9, 3.0, 2.0, 2.0, 1.0])
    >>> found = metrics(means, np.array(8.0), np.array(3))
    >>> float(found["rmse"]), float(found["normalized_rmse"]), float(found["acc"])
    (2.0, 0.25, 0.5)
    >>> round(float(found["spread_skill_ratio"]), 6)
    1.0
    """
    of = dict(zip(MEANS, means, strict=True))
    rmse, spread = np.sqrt(of["square"]), np.sqrt(of["variance"])
    power = np.sqrt(of["forecast_anomaly_square"] * of["truth_anomaly_square"])
    return {
        "rmse": rmse,
        "normalized_rmse": _divided(rmse, anomaly_std),
        "mae": of["absolute"],
        "bias": of["error"],
        "acc": _divided(of["anomaly_product"], power),
        "crps": of["crps"],
        "crps_fair": of["crps_fair"],
        "spread": spread,
        "spread_skill_ratio": _divided(np.sqrt(1 + 1 / n_members) * spread, rmse),
    }


def _divided(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
    """Quotient; NaN where the denominator is zero."""
    positive = denominator > 0
    return np.where(positive, numerator / np.where(positive, denominator, 1.0), np.nan)


def _mean(array: xr.DataArray, weight: xr.DataArray, kept: Sequence[str]) -> xr.DataArray:
    return array.weighted(weight).mean([dim for dim in array.dims if dim not in kept])


def _stacked(found: Mapping[str, xr.DataArray], kept: Sequence[str]) -> xr.DataArray:
    names = xr.DataArray(list(found), dims="mean", name="mean").astype(object)
    stacked = xr.concat(found.values(), names, coords="minimal", compat="override")
    return stacked.transpose("mean", *kept)


def _same_labels(*arrays: xr.DataArray) -> None:
    try:
        xr.align(*arrays, join="exact")
    except ValueError as error:
        raise ConventionError(
            f"forecast and data have other coordinates and can't be compared: {error}"
        ) from error
