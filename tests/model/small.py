"""A model small enough to be saved and loaded in a moment."""

from __future__ import annotations

import numpy as np
import torch
import xarray as xr

from xatmorep.data.normalization import Normalizer
from xatmorep.model.card import DataSource, ModelCard, Score, TrainingSummary
from xatmorep.model.checkpoint import Model
from xatmorep.model.config import ModelConfig
from xatmorep.model.multiformer import Multiformer


def small_config() -> ModelConfig:
    surface = {"name": "2m_temperature", "units": "K", "token_shape": (1, 2, 2)}
    upper = {
        "name": "temperature",
        "units": "K",
        "token_shape": (2, 4, 4),
        "levels": (500, 850),
        "level_type": "pressure",
    }
    return ModelConfig.model_validate(
        {
            "inputs": {
                "neighborhood": {"shape": (2, 4, 8), "time_step": 6, "grid_step": (1.5, 1)},
                "fields": [surface, upper],
                "statics": [{"name": "geopotential_at_surface", "units": "m2 s-2"}],
            },
            "networks": {
                "2m_temperature": {"width": 8, "coupled": ["temperature"]},
                "temperature": {"width": 8, "predicted": False},
            },
            "encoder": {"layers": 2, "heads": 2},
            "decoder": {"layers": 1, "heads": 2},
            "tail": {"members": 3},
        }
    )


def small_normalizer() -> Normalizer:
    generator = np.random.default_rng(0)

    def field(levels: list[float]) -> xr.DataArray:
        values = generator.standard_normal((3, len(levels), 4, 8)).astype("float32")
        coords = {
            "time": np.array(["2020-01-01", "2020-01-02", "2020-01-03"], "datetime64[s]"),
            "level": np.array(levels),
            "latitude": np.linspace(46.5, 42, 4),
            "longitude": np.arange(8.0),
        }
        return xr.DataArray(values, coords)

    fields = {"2m_temperature": field([0.0]), "temperature": field([500.0, 850.0])}
    orography = field([0.0]).isel(time=0, level=0, drop=True)
    return Normalizer.fit(fields, {"geopotential_at_surface": orography})


def small_card(**changes: object) -> ModelCard:
    card = {
        "name": "small",
        "description": "Only for tests.",
        "demonstration": True,
        "fields": ("2m_temperature", "temperature"),
        "grid": "a region, 1.5 x 1 degrees",
        "period": ("2020-01-01", "2020-01-03"),
        "data": DataSource(name="noise", attribution="nobody's", licence="CC0-1.0"),
        "training": TrainingSummary(
            command="none", seed=0, steps=0, samples=0, seconds=0.0, device="cpu"
        ),
        "scores": (
            Score(metric="rmse", field="2m_temperature", value=1.5, units="K", command="none"),
        ),
    }
    return ModelCard.model_validate(card | changes)


def small_model(seed: int = 0, dtype: torch.dtype = torch.float32) -> Model:
    config = small_config()
    network = Multiformer(config, torch.Generator().manual_seed(seed)).to(dtype)
    return Model(config, network, small_normalizer(), small_card())
