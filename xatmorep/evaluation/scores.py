"""Scores of a model, side by side with baselines at the same points."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
import xarray as xr
from tqdm import tqdm

from xatmorep._version import __version__
from xatmorep.errors import ConfigError, require
from xatmorep.evaluation.background import Background
from xatmorep.evaluation.bootstrap import times_in_block
from xatmorep.evaluation.climatology import Record, elapsed
from xatmorep.evaluation.forecasters import BASELINES, baselines_of, chosen
from xatmorep.evaluation.metrics import Said
from xatmorep.evaluation.parts import Forecasts, Predictions
from xatmorep.evaluation.spectrum import is_circle
from xatmorep.evaluation.summary import Bootstrap, Tally, result_of
from xatmorep.strict import closest
from xatmorep.tasks.engine import Application, ModelLike, Options
from xatmorep.tasks.forecast import duration

__all__ = ["evaluate"]


def evaluate(
    model: ModelLike,
    ds: xr.Dataset,
    *,
    task: Literal["predict", "forecast"] = "predict",
    climatology: xr.Dataset | None = None,
    baselines: Sequence[str] | None = None,
    rate: float | None = None,
    lead_time: Any = None,
    init_times: Any = None,
    init_step: Any = None,
    block: Any = None,
    resamples: int = 1000,
    confidence: float = 0.95,
    seed: int = 0,
    variables: Mapping[str, str] | None = None,
    overlap: float = 0.0,
    device: str | None = None,
    batch_size: int = 8,
    dtype: str = "float32",
    progress: bool = False,
) -> xr.Dataset:
    """Score predictions of hidden tokens or forecasts, and those of baselines at the same points.

    Data are read, shown to the model and scored part by part, so that any length of data that are
    backed by dask or a file fits in memory. All scores are weighted by area (cosine of latitude),
    and all forecasters are scored at the same points: those hidden from the model, less those
    where the data are missing.

    With the task ``"predict"`` random cells of each field are hidden, as by `xatmorep.predict`.
    Where the last neighborhood along latitude or longitude is shifted inward, its tokens don't
    coincide with the cells and the model sees less than the baselines do: take an area of whole
    neighborhoods for a fair comparison.

    Parameters
    ----------
    model : str, path or Model
        Name of a shipped model, address of a saved one, or a model.
    ds : xarray.Dataset
        Data that the model wasn't trained on.
    task : {"predict", "forecast"}
        Whether hidden tokens or the frames after a time are predicted.
    climatology : xarray.Dataset, optional
        Data on the same grid of which the climatology is the mean at each grid point, and to which
        the correlations for kriging are fitted: usually the training data. The mean is taken by
        month and hour of the day, by one of them, or over all times: the finest of which there are
        20 days for every month and hour of `ds` (which one it was is in the attributes of the
        result). Without it baselines that need one can't be had, nor anomalies.
    baselines : sequence of str, optional
        ``"climatology"``; ``"persistence"``, the last visible value of the same point, else the
        next one; ``"time_interpolation"``, linear between these two; ``"interpolation"``, linear
        from the visible points of the same map; ``"anomaly_interpolation"``, the same of the
        deviations from the climatology, which is added again; ``"kriging"``, the best linear
        estimate of these deviations from the nearest visible points in space and time, whose
        correlations depend on distance and lag; ``"drifting_kriging"``, the same in air that moves
        along each row at its own speed. All that can be had if not given. Forecasts have
        ``"climatology"``, ``"persistence"`` and the two kinds of kriging.
    rate : float, optional
        Share of the tokens that is hidden, 0.5 if not given; of the task ``"predict"``.
    lead_time : str, timedelta64, datetime.timedelta or pandas.Timedelta, optional
        How far forecasts go, with its unit: ``"24h"``. All lead times up to it are scored.
    init_times : str, datetime64, cftime.datetime, DataArray, Index or sequence, optional
        Times from which forecasts are made; all from which they can be scored if not given.
    init_step : str, timedelta64, datetime.timedelta or pandas.Timedelta, optional
        Time from one such forecast to the next, instead: ``"24h"``.
    block : str, timedelta64, datetime.timedelta or pandas.Timedelta, optional
        Length of the blocks of time that are drawn anew for the intervals; ``"5D"`` if not given.
        It should be longer than weather lasts. There are no intervals of less than five blocks.
    resamples : int
        How often times are drawn anew.
    confidence : float
        Share of the resamples within an interval.
    seed : int
        Seed of the random tokens and of the intervals.
    variables : mapping of str to str, optional
        Canonical name of a field to name of the variable, where it isn't recognized.
    overlap : float
        Share of a neighborhood that the next one has in common with it, for the model's
        predictions; as for `xatmorep.predict` and `xatmorep.forecast`.
    device : str, optional
        Torch device; CUDA where there is one, else the CPU.
    batch_size : int
        Neighborhoods that the network sees at once.
    dtype : {"float32", "float64", "bfloat16", "float16"}
        Type in which the network computes.
    progress : bool
        Whether to show a progress bar on standard error.

    Returns
    -------
    xarray.Dataset
        float64 variables; ``level`` is NaN at the surface, and values are NaN where a field has no
        such level. ``lead_time`` is a dimension of those of forecasts.

        ``score`` (forecaster, metric, field, level, [lead_time])
            Forecasters are ``"model"`` and the baselines. Metrics: ``rmse``, ``mae`` and ``bias``
            of the (ensemble) mean; ``normalized_rmse``, over ``anomaly_std``; ``acc``, the
            correlation of anomalies, not centered, over all times and points together; ``crps`` of
            the ensemble as it is, and ``crps_fair``, corrected for the number of members, as if
            they were exchangeable; ``spread``, the root of the mean variance of the members
            (divisor M - 1); ``spread_skill_ratio``, spread times sqrt((M + 1) / M) over rmse, one
            for a reliable ensemble (Fortin et al. 2014, doi:10.1175/JHM-D-14-0008.1, equation 15).
            Kriging gives a normal distribution; other baselines one value, whose ``crps`` is the
            absolute error and which have no spread.
        ``ratio`` (baseline, metric, field, level, [lead_time])
            Score of the model over that of a baseline, or of the best one, ``"best"``; of metrics
            that are better when lower.
        ``mean_ratio`` (baseline, metric, [lead_time])
            Mean of the ratios over all fields and levels.
        ``score_interval``, ``ratio_interval``, ``mean_ratio_interval`` (bound, ...)
            Intervals of them, by a circular block bootstrap over times (init times) that draws the
            same times for all forecasters, fields and levels.
        ``rank_histogram`` (field, level, [lead_time], rank)
            How often the truth has each rank among the members, 1 below all of them; it counts in
            equal parts for the ranks of members that equal it.
        ``spectrum`` (source, field, level, [lead_time], wavenumber)
            Mean energy along latitude circles, of complete maps: of what a forecaster says at the
            hidden points, and of the data elsewhere. Sources are ``"truth"``, ``"model"`` (mean of
            the energies of its members), ``"model_mean"`` (energy of the ensemble mean) and the
            baselines. Only where the data go round the circle.
        ``anomaly_std`` (field, level)
            Root of the area-weighted mean square of the deviations of the climatology's data from
            it, by which any other score may be divided.

    Raises
    ------
    ConfigError
        If an argument is impossible, or a baseline is unknown or needs a climatology that isn't
        given.
    ConventionError
        If the dataset lacks what the model needs, or has another grid or time step.
    MissingExtraError
        If the packages of the extra ``metrics`` aren't installed.

    Examples
    --------
    >>> import xatmorep
    >>> ds = xatmorep.open_dataset("era5-sample").isel(time=slice(17, 22))
    >>> scores = xatmorep.evaluate("era5-surface-tiny", ds, baselines=["persistence"])
    >>> scores["score"].sel(forecaster="model", metric="rmse").dims
    ('field', 'level')
    """
    for package in ("scores", "scoringrules"):
        require(package, extra="metrics")
    _check(task, rate, lead_time, init_times, init_step, resamples, confidence)
    names = chosen(task, baselines, climatology is not None)
    hours = None if block is None else duration(block, "block").total_seconds() / 3600
    options = Options(device, batch_size, dtype, overlap)
    application = Application.of(ds, model, variables, options, in_time=task == "predict")
    question = (
        Predictions(application, 0.5 if rate is None else rate, seed)
        if task == "predict"
        else Forecasts.of(application, lead_time, init_times, init_step)
    )
    times = question.times
    n_block = times_in_block(elapsed(times), hours)
    record = None if climatology is None else Record.of(climatology, application, variables)
    bar = tqdm(total=len(question.windows()), unit="part", disable=not progress)
    background = Background.of(record, _all_times(application), names, bar.set_description)
    bar.set_description("scoring")
    tallies = {name: Tally(question.when) for name in application.model.config.predicted}
    sizes: dict[str, float] = {}
    for part in question.parts():
        for name, case in part.items():
            spec = application.model.config.inputs.field(name)
            said = {"model": Said.ensemble(case.prediction)}
            said |= baselines_of(names, case, spec, background)
            sizes = {forecaster: one.n_members for forecaster, one in said.items()}
            usual = None
            if background.climatology is not None:
                usual = case.like_truth(background.climatology.at(name, case.times[:, case.wanted]))
            circle = is_circle(case.truth["longitude"].values)
            tallies[name].add(case.truth, case.hidden, said, usual, circle=circle)
        bar.update()
    bar.close()
    deviations = {
        name: None if background.climatology is None else background.climatology.anomaly_std[name]
        for name in tallies
    }
    bootstrap = Bootstrap.of(len(times), n_block, resamples, confidence, seed)
    specs = {name: application.model.config.inputs.field(name) for name in tallies}
    # In canonical form the surface is level 0, which others could have as well.
    levels = {name: np.array(spec.levels or [np.nan]) for name, spec in specs.items()}
    result = result_of(tallies, levels, deviations, bootstrap, sizes)
    result = _labelled(result, application)
    result.attrs = _attributes(question, background, n_block, resamples, confidence, seed)
    return result


def _check(
    task: str,
    rate: float | None,
    lead_time: Any,
    init_times: Any,
    init_step: Any,
    resamples: int,
    confidence: float,
) -> None:
    """Refuse arguments that are impossible, alone or together."""
    if task not in BASELINES:
        raise ConfigError(f"task {task!r} is unknown{closest(task, BASELINES)}")
    if task == "predict":
        of_forecasts = {"lead_time": lead_time, "init_times": init_times, "init_step": init_step}
        for name, value in of_forecasts.items():
            if value is not None:
                raise ConfigError(f'{name} is for forecasts: say task="forecast"')
        if rate is not None and not 0 < rate < 1:
            raise ConfigError(f"rate must lie between 0 and 1, not {rate}")
    else:
        if rate is not None:
            raise ConfigError("rate is for predictions: forecasts hide all that lies ahead")
        if lead_time is None:
            raise ConfigError('the task "forecast" needs lead_time, how far it goes: "24h"')
    if resamples < 1:
        raise ConfigError(f"resamples must be at least 1, not {resamples}")
    if not 0 < confidence < 1:
        raise ConfigError(f"confidence must lie between 0 and 1, not {confidence}")


def _all_times(application: Application) -> np.ndarray:
    return np.asarray(next(iter(application.view.fields.values()))["time"].values)


def _labelled(result: xr.Dataset, application: Application) -> xr.Dataset:
    """The surface without a level, units, and what each variable is."""
    units = [application.view.attrs(str(name)).get("units", "") for name in result["field"].values]
    result = result.assign_coords(units=("field", np.array(units, dtype=object)))
    names = {
        "score": "score, in the units of the field where it has units",
        "ratio": "score of the model over that of a baseline",
        "mean_ratio": "mean ratio over fields and levels",
        "rank_histogram": "share of the truth with each rank among the members",
        "spectrum": "mean energy along latitude circles, in squared units of the field",
        "anomaly_std": "standard deviation of anomalies, in the units of the field",
    }
    for name, text in names.items():
        if name in result:
            result[name].attrs = {"long_name": text}
    return result


def _attributes(
    question: Predictions | Forecasts,
    background: Background,
    block: int,
    resamples: int,
    confidence: float,
    seed: int,
) -> dict[str, Any]:
    """What was asked of which model, on which data, and how it was scored."""
    model, times = question.application.model, question.times
    attrs: dict[str, Any] = {
        "model": model.name,
        "model_digest": question.application.reference.digest,
        "xatmorep_version": __version__,
        "first_time": str(times[0]),
        "last_time": str(times[-1]),
        "n_times": len(times),
        "seed": seed,
        "overlap": question.application.options.overlap,
        "block_length": block,
        "resamples": resamples,
        "confidence": confidence,
    }
    if isinstance(question, Predictions):
        attrs |= {"task": "predict", "rate": question.rate}
    else:
        attrs |= {"task": "forecast"}
    if background.climatology is not None:
        first, last = background.climatology.period
        attrs["climatology"] = f"{background.climatology.words}, {first} to {last}"
    return attrs
