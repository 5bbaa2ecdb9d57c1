"""The model card of a training run."""

from __future__ import annotations

import numpy as np
import xarray as xr

from xatmorep.model.card import DataSource, ModelCard, TrainingSummary
from xatmorep.training.config import PretrainConfig

__all__ = ["training_card"]


def training_card(
    config: PretrainConfig,
    time: xr.DataArray,
    runs: list[slice],
    held_out: slice | None,
    is_global: bool,
) -> ModelCard:
    """Card of a model that is about to be trained.

    Parameters
    ----------
    config : PretrainConfig
        The run.
    time : xarray.DataArray
        Times of the data.
    runs : list of slice
        Positions of the training times.
    held_out : slice or None
        Positions of the held-out times.
    is_global : bool
        Whether the data cover all longitudes.
    """
    latitude, longitude = config.model.inputs.neighborhood.grid_step
    return ModelCard(
        name=config.name,
        description=config.description,
        demonstration=config.demonstration,
        fields=tuple(field.name for field in config.model.inputs.fields),
        grid=f"{'global' if is_global else 'region'}, {latitude:g} x {longitude:g} degrees",
        period=(iso(time.values[runs[0].start]), iso(time.values[runs[-1].stop - 1])),
        data=config.data or DataSource(name="not stated"),
        licence=config.licence,
        training=TrainingSummary(
            command=config.command,
            seed=config.seed,
            steps=0,
            samples=0,
            seconds=0.0,
            device="",
            validation=None
            if held_out is None
            else (iso(time.values[held_out.start]), iso(time.values[held_out.stop - 1])),
        ),
    )


def iso(time: object) -> str:
    """A time as ISO 8601 text, to the minute.

    Examples
    --------
    >>> iso(np.datetime64("2026-03-25T07:00:00.000000"))
    '2026-03-25T07:00'
    """
    if isinstance(time, np.datetime64):
        return str(np.datetime_as_string(time, unit="m"))
    return str(time.isoformat(timespec="minutes"))  # type: ignore[attr-defined]
