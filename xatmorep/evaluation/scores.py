"""Scores of hidden tokens, side by side with baselines."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np
import torch
import xarray as xr

from xatmorep.errors import ConfigError, ConventionError
from xatmorep.evaluation.baselines import interpolate
from xatmorep.objectives.losses import crps
from xatmorep.strict import closest
from xatmorep.tasks.engine import Application, ModelLike, Options
from xatmorep.tasks.lattice import random_mask
from xatmorep.tasks.predict import predict

__all__ = ["evaluate"]

BASELINES = ("climatology", "interpolation", "anomaly_interpolation")
WITHOUT_CLIMATOLOGY = ("interpolation",)
METRICS = ("rmse", "mae", "bias", "crps", "spread", "spread_skill_ratio")


def evaluate(
    model: ModelLike,
    ds: xr.Dataset,
    *,
    task: Literal["predict"] = "predict",
    climatology: xr.Dataset | None = None,
    baselines: Sequence[str] | None = None,
    rate: float = 0.5,
    seed: int = 0,
    variables: Mapping[str, str] | None = None,
    device: str | None = None,
    batch_size: int = 8,
    dtype: str = "float32",
) -> xr.Dataset:
    """Score the predictions of hidden tokens, and those of baselines at the same points.

    Random cells of each field are hidden, as by `xatmorep.predict`, and scores are taken at their
    points, weighted by area and in the units of the data. Where the last neighborhood along
    latitude or longitude is shifted inward, its tokens don't coincide with the cells and the model
    sees less than the baselines do: take an area of whole neighborhoods for a fair comparison.

    Parameters
    ----------
    model : str, path or Model
        Name of a shipped model, address of a saved one, or a model.
    ds : xarray.Dataset
        Data that the model wasn't trained on.
    task : {"predict"}
        What is scored: predictions of hidden tokens.
    climatology : xarray.Dataset, optional
        Data on the same grid whose mean over time at each grid point is the climatology, usually
        the training data. Without it baselines that need one can't be had.
    baselines : sequence of str, optional
        ``"climatology"``; ``"interpolation"``, linear from the visible points of the same map;
        ``"anomaly_interpolation"``, the same of the deviations from the climatology, which is
        added again. All that can be had if not given.
    rate : float
        Share of the tokens that is hidden.
    seed : int
        Seed of the random tokens.
    variables : mapping of str to str, optional
        Canonical name of a field to name of the variable, where it isn't recognized.
    device : str, optional
        Torch device; CUDA where there is one, else the CPU.
    batch_size : int
        Neighborhoods that the network sees at once.
    dtype : {"float32", "float64", "bfloat16", "float16"}
        Type in which the network computes.

    Returns
    -------
    xarray.Dataset
        ``score`` (forecaster, metric, quantity), float64: forecasters are ``"model"`` and the
        baselines; a quantity is a field at a level, with the coordinates ``field``, ``level``
        (NaN at the surface) and ``units``. Metrics: ``rmse``, ``mae`` and ``bias`` of the
        (ensemble) mean; ``crps`` of the ensemble as it is; ``spread``, the root of the mean
        variance of the members (divisor M - 1); ``spread_skill_ratio``, spread times
        sqrt((M + 1) / M) over rmse, which is one for a reliable ensemble (Fortin et al. 2014,
        doi:10.1175/JHM-D-14-0008.1, equation 15). Those of ensembles are NaN for baselines.

    Raises
    ------
    ConfigError
        If a baseline is unknown or needs a climatology that isn't given.
    ConventionError
        If the dataset lacks what the model needs, or has another grid or time step.

    Examples
    --------
    >>> import xatmorep
    >>> ds = xatmorep.open_dataset("era5-sample").isel(time=slice(17, 22))
    >>> scores = xatmorep.evaluate("era5-surface-tiny", ds, baselines=())
    >>> scores["score"].sel(forecaster="model", metric="rmse").sizes["quantity"]
    4
    """
    if task != "predict":
        raise ConfigError(f"task {task!r} can't be scored yet; known are predict")
    chosen = _chosen(baselines, climatology is not None)
    options = Options(device, batch_size, dtype)
    application = Application.of(ds, model, variables, options)
    axes = application.view.axes
    masks = random_mask(application, rate=rate, seed=seed)
    names = {name: application.view.variables[name] for name in application.model.config.predicted}
    truths = {name: _truth(ds[name], masks[name], axes.get("level")) for name in names.values()}
    means = {
        name: None if climatology is None else _mean(climatology[name], truth, axes["time"])
        for name, truth in truths.items()
    }
    predicted = predict(
        ds,
        model=application.model,
        mask=masks,
        variables=variables,
        device=device,
        batch_size=batch_size,
        dtype=dtype,
    ).compute()
    parts = []
    for canonical, name in names.items():
        hidden, truth = masks[name], truths[name].load()
        forecasts = {"model": predicted[name]} | {
            baseline: _baseline(baseline, truth, hidden, means[name], axes) for baseline in chosen
        }
        parts += _score_levels(canonical, truth, hidden, forecasts, axes)
    result = xr.concat(parts, "quantity").to_dataset(name="score")
    result["score"] = result["score"].transpose("forecaster", "metric", "quantity")
    result.attrs = {
        "model": application.model.name,
        "model_digest": application.model.digest,
        "rate": rate,
        "seed": seed,
    }
    return result


def _chosen(baselines: Sequence[str] | None, climatology: bool) -> list[str]:
    """Baselines that are wanted, and can be had."""
    possible = BASELINES if climatology else WITHOUT_CLIMATOLOGY
    for name in baselines or ():
        if name not in BASELINES:
            raise ConfigError(f"baseline {name!r} is unknown{closest(name, BASELINES)}")
        if name not in possible:
            raise ConfigError(f"baseline {name!r} needs climatology=, usually the training data")
    return list(possible if baselines is None else baselines)


def _truth(data: xr.DataArray, hidden: xr.DataArray, level: str | None) -> xr.DataArray:
    """Data at the levels of the model."""
    return data.sel({level: hidden[level]}) if level in hidden.dims else data


def _mean(data: xr.DataArray, truth: xr.DataArray, time: str) -> xr.DataArray:
    """Mean over time at each grid point of the truth."""
    mean = data.mean(time)
    try:
        return mean.sel({dim: truth[dim] for dim in mean.dims}).load()
    except KeyError as error:
        raise ConventionError(
            f"the climatology lacks grid points of the data that are scored: {error}"
        ) from error


def _baseline(
    name: str,
    truth: xr.DataArray,
    hidden: xr.DataArray,
    mean: xr.DataArray | None,
    axes: Mapping[str, str],
) -> xr.DataArray:
    """What a baseline says at the hidden points."""
    if name == "interpolation":
        return interpolate(truth, hidden, axes["latitude"], axes["longitude"])
    assert mean is not None
    if name == "climatology":
        return mean.broadcast_like(truth)
    return mean + interpolate(truth - mean, hidden, axes["latitude"], axes["longitude"])


def _score_levels(
    field: str,
    truth: xr.DataArray,
    hidden: xr.DataArray,
    forecasts: Mapping[str, xr.DataArray],
    axes: Mapping[str, str],
) -> list[xr.DataArray]:
    """Scores (forecaster, metric) of each level of a field."""
    level = axes.get("level")
    if level not in hidden.dims:
        return [_score_field(field, np.nan, truth, hidden, forecasts, axes)]
    return [
        _score_field(
            field,
            float(value),
            truth.sel({level: value}),
            hidden.sel({level: value}),
            {name: forecast.sel({level: value}) for name, forecast in forecasts.items()},
            axes,
        )
        for value in hidden[level].values
    ]


def _score_field(
    field: str,
    level: float,
    truth: xr.DataArray,
    hidden: xr.DataArray,
    forecasts: Mapping[str, xr.DataArray],
    axes: Mapping[str, str],
) -> xr.DataArray:
    xr.align(truth, hidden, join="exact")
    where = (hidden & truth.notnull()).transpose(*truth.dims)
    cosine = xr.apply_ufunc(np.cos, np.deg2rad(truth[axes["latitude"]]))
    area = cosine.broadcast_like(truth).transpose(*truth.dims)
    rows = where.values
    target, weight = truth.values[rows].astype("float64"), area.values[rows].clip(min=0)
    scores = [
        _metrics(
            forecast.transpose(..., *truth.dims).values[..., rows].astype("float64"), target, weight
        )
        for forecast in forecasts.values()
    ]
    return xr.DataArray(
        [scores],
        dims=("quantity", "forecaster", "metric"),
        coords={
            "forecaster": np.array(list(forecasts), dtype=object),
            "metric": np.array(METRICS, dtype=object),
            "field": ("quantity", np.array([field], dtype=object)),
            "level": ("quantity", [level]),
            "units": ("quantity", np.array([truth.attrs.get("units", "")], dtype=object)),
        },
    )


def _metrics(forecast: np.ndarray, target: np.ndarray, weight: np.ndarray) -> list[float]:
    """All metrics of points (members, points) or (points)."""
    weight = weight / weight.sum()
    members = np.atleast_2d(forecast)
    error = members.mean(0) - target
    rmse = math.sqrt((weight * error**2).sum())
    scores = [rmse, (weight * abs(error)).sum(), (weight * error).sum()]
    if forecast.ndim == 1:
        return [*scores, np.nan, np.nan, np.nan]
    probability = crps(
        torch.from_numpy(members.T[:, :, None].copy()),
        torch.from_numpy(target[:, None]),
        torch.from_numpy(weight[:, None]),
    ).item()
    if len(members) == 1:
        return [*scores, probability, np.nan, np.nan]
    spread = math.sqrt((weight * members.var(0, ddof=1)).sum())
    ratio = math.sqrt((len(members) + 1) / len(members)) * spread / rmse
    return [*scores, probability, spread, ratio]
