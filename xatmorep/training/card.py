"""The model card of a training run."""

from __future__ import annotations

import numpy as np
import torch

from xatmorep.model.card import DataSource, ModelCard, TrainingSummary
from xatmorep.training.config import PretrainConfig
from xatmorep.training.data import TrainingData

__all__ = ["iso", "trained", "training_card"]


def training_card(config: PretrainConfig, data: TrainingData) -> ModelCard:
    """Card of a model that is about to be trained."""
    time, held_out = data.time.values, data.held_out
    extent = "global" if data.view.is_global else "region"
    latitude, longitude = config.model.inputs.neighborhood.grid_step
    return ModelCard(
        name=config.name,
        description=config.description,
        demonstration=config.demonstration,
        fields=tuple(field.name for field in config.model.inputs.fields),
        grid=f"{extent}, {latitude:g} x {longitude:g} degrees",
        period=(iso(time[data.training[0].start]), iso(time[data.training[-1].stop - 1])),
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
            else (iso(time[held_out.start]), iso(time[held_out.stop - 1])),
        ),
    )


def trained(
    card: ModelCard, step: int, config: PretrainConfig, seconds: float, device: str
) -> ModelCard:
    """The card with what the training has cost so far."""
    assert card.training is not None
    name = torch.cuda.get_device_name(device) if device.startswith("cuda") else "CPU"
    threads = "" if name != "CPU" else f", {torch.get_num_threads()} thread(s)"
    training = card.training.model_copy(
        update={
            "steps": step,
            "samples": step * config.batch_size,
            "seconds": round(seconds, 1),
            "device": name + threads,
        }
    )
    return card.model_copy(update={"training": training})


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
