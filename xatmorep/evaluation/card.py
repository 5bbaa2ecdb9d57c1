"""Scores as words: a table for people, records for the model card."""

from __future__ import annotations

import math

import pandas as pd
import xarray as xr

from xatmorep.model.card import ModelCard, Score

__all__ = ["score_table", "with_scores"]


def with_scores(card: ModelCard, scores: xr.Dataset, command: str) -> ModelCard:
    """Copy of a card with the scores that `xatmorep.evaluate` gave, in place of older ones.

    Parameters
    ----------
    card : ModelCard
        Card of the model that was scored.
    scores : xarray.Dataset
        What `evaluate` returned.
    command : str
        Command that gives the scores again.
    """
    records = []
    table = scores["score"].transpose("quantity", "metric", "forecaster")
    for quantity in table:
        for metric in quantity:
            for entry in metric:
                if math.isnan(entry.item()):
                    continue
                forecaster, name = entry["forecaster"].item(), entry["metric"].item()
                level = entry["level"].item()
                records.append(
                    Score(
                        metric=name,
                        field=entry["field"].item(),
                        level=None if math.isnan(level) else level,
                        baseline=None if forecaster == "model" else forecaster,
                        # Four digits are more than two samples of the weather agree in.
                        value=float(f"{entry.item():.4g}"),
                        units="1" if name == "spread_skill_ratio" else entry["units"].item(),
                        command=command,
                    )
                )
    return card.model_copy(update={"scores": tuple(records)})


def score_table(scores: xr.Dataset) -> str:
    """RMSE of model and baselines for each field and level, and the ratio of spread to skill."""
    score = scores["score"]
    rmse = score.sel(metric="rmse").transpose("quantity", "forecaster")
    names = [
        field + ("" if math.isnan(level) else f" at {level:g}") + f" [{units}]"
        for field, level, units in zip(
            score["field"].values, score["level"].values, score["units"].values, strict=True
        )
    ]
    table = pd.DataFrame(rmse.values, index=names, columns=list(score["forecaster"].values))
    table["spread/skill"] = score.sel(forecaster="model", metric="spread_skill_ratio").values
    heading = (
        f"RMSE where {scores.attrs['rate']:.0%} of the tokens were hidden at random "
        f"(model {scores.attrs['model']}):"
    )
    return f"{heading}\n{table.to_string(float_format=lambda value: f'{value:.3g}')}"
