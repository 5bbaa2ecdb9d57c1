"""Scores as words: a table for people, records for the model card."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from xatmorep.evaluation.metrics import METRICS
from xatmorep.evaluation.summary import BEST
from xatmorep.model.card import ModelCard, Score

__all__ = ["score_table", "with_scores"]

WITHOUT_UNITS = ("normalized_rmse", "acc", "spread_skill_ratio")


def with_scores(card: ModelCard, scores: xr.Dataset, command: str) -> ModelCard:
    """Copy of a card with the scores that `xatmorep.evaluate` gave.

    All metrics of the model, and the RMSE of the baselines. Older scores of the same question (the
    same share of hidden tokens, or forecasts) give way, and so do those that don't say what was
    asked.

    Parameters
    ----------
    card : ModelCard
        Card of the model that was scored.
    scores : xarray.Dataset
        What `evaluate` returned.
    command : str
        Command that gives the scores again.
    """
    rate = scores.attrs.get("rate")
    records = [
        Score(
            metric=metric,
            field=at["field"],
            level=at["level"],
            baseline=None if forecaster == "model" else forecaster,
            value=_rounded(value),
            units="1" if metric in WITHOUT_UNITS else at["units"],
            command=command,
            rate=rate,
            lead_time=at["lead_time"],
            interval=None if math.isnan(bounds[0]) else (_rounded(bounds[0]), _rounded(bounds[1])),
        )
        for at, place in _places(scores)
        for metric in METRICS
        for forecaster in map(str, scores["forecaster"].values)
        if forecaster == "model" or metric == "rmse"
        for value, bounds in [_value(scores, place, forecaster, metric)]
        if not math.isnan(value)
    ]
    forecasts = scores.attrs["task"] == "forecast"
    others = [
        score
        for score in card.scores
        if (score.rate, score.lead_time) != (None, None)
        and (score.lead_time is None if forecasts else score.rate != rate)
    ]
    return card.model_copy(update={"scores": (*others, *records)})


def score_table(scores: xr.Dataset) -> str:
    """RMSE of model and baselines for each field, level and lead time, and what they say together.

    A column has the ratio of spread to skill, and the last lines the mean ratio of the RMSE to that
    of each baseline over all fields and levels.
    """
    forecasters = [str(name) for name in scores["forecaster"].values]
    rows = {}
    for at, place in _places(scores):
        level = "" if at["level"] is None else f" at {at['level']:g}"
        lead = "" if at["lead_time"] is None else f" after {at['lead_time']}"
        values = {name: _value(scores, place, name, "rmse")[0] for name in forecasters}
        values["spread/skill"] = _value(scores, place, "model", "spread_skill_ratio")[0]
        rows[f"{at['field']}{level}{lead} [{at['units']}]"] = values
    table = pd.DataFrame.from_dict(rows, orient="index")
    lines = [
        f"RMSE {_asked(scores)} (model {scores.attrs['model']}):",
        table.to_string(float_format=lambda value: f"{value:.3g}"),
    ]
    if "mean_ratio" in scores:
        lines += ["", "mean ratio to the baseline, over fields and levels:", _mean_ratios(scores)]
    return "\n".join(lines)


def _asked(scores: xr.Dataset) -> str:
    if scores.attrs["task"] == "forecast":
        return f"of forecasts from {scores.attrs['n_times']} times"
    return f"where {scores.attrs['rate']:.0%} of the tokens were hidden at random"


def _mean_ratios(scores: xr.Dataset) -> str:
    """Mean ratios of the RMSE, with intervals where there are any."""
    chosen = scores[["mean_ratio", "mean_ratio_interval"]].sel(metric="rmse")
    rows = {}
    for baseline in map(str, scores["baseline"].values):
        here = chosen.sel(baseline=baseline)
        # With one baseline it is the best one.
        if baseline == BEST and scores.sizes["baseline"] == 2:
            continue
        rows[baseline] = {
            "" if lead is None else f"after {_hours(lead)}": _with_bounds(
                here if lead is None else here.sel(lead_time=lead)
            )
            for lead in _leads(scores)
        }
    return str(pd.DataFrame.from_dict(rows, orient="index").to_string())


def _with_bounds(chosen: xr.Dataset) -> str:
    low, high = chosen["mean_ratio_interval"].values
    text = f"{chosen['mean_ratio'].item():.3f}"
    return text if math.isnan(low) else f"{text} [{low:.3f}, {high:.3f}]"


def _places(scores: xr.Dataset) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    """Field, level and lead time of each score, in words and as indexers."""
    for i, field in enumerate(map(str, scores["field"].values)):
        for j, level in enumerate(scores["level"].values):
            here = scores["score"].isel(field=i, level=j)
            if here.isnull().all():
                continue
            for k, lead in enumerate(_leads(scores)):
                place = {"field": i, "level": j} | ({} if lead is None else {"lead_time": k})
                yield (
                    {
                        "field": field,
                        "level": None if np.isnan(level) else float(level),
                        "units": str(scores["units"].values[i]),
                        "lead_time": None if lead is None else _hours(lead),
                    },
                    place,
                )


def _leads(scores: xr.Dataset) -> list[Any]:
    return list(scores["lead_time"].values) if "lead_time" in scores.dims else [None]


def _hours(lead: np.timedelta64) -> str:
    return f"{lead / np.timedelta64(1, 'h'):g}h"


def _value(
    scores: xr.Dataset, place: dict[str, Any], forecaster: str, metric: str
) -> tuple[float, tuple[float, float]]:
    """A score and its bounds."""
    chosen = scores[["score", "score_interval"]].isel(place)
    chosen = chosen.sel(forecaster=forecaster, metric=metric)
    low, high = chosen["score_interval"].values
    return chosen["score"].item(), (float(low), float(high))


def _rounded(value: float) -> float:
    """Four digits, which are more than two samples of the weather agree in."""
    return float(f"{value:.4g}")
