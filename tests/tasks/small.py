"""A small model of two fields with different tokens, and a global dataset that it can read."""

from __future__ import annotations

from functools import cache

import numpy as np
import torch
import xarray as xr

from xatmorep.data.conventions import canonical_view
from xatmorep.data.normalization import Normalizer
from xatmorep.data.statistics import Period
from xatmorep.model.card import DataSource, ModelCard
from xatmorep.model.checkpoint import Model
from xatmorep.model.config import ModelConfig
from xatmorep.model.multiformer import Multiformer

CONFIG = ModelConfig.model_validate(
    {
        "inputs": {
            "neighborhood": {"shape": (2, 6, 12), "time_step": 6, "grid_step": (10, 15)},
            "fields": [
                {"name": "2m_temperature", "units": "K", "token_shape": (1, 2, 3)},
                {
                    "name": "temperature",
                    "units": "K",
                    "token_shape": (2, 3, 4),
                    "levels": (850, 500),
                    "level_type": "pressure",
                },
            ],
            "statics": [{"name": "geopotential_at_surface", "units": "m2 s-2"}],
        },
        "networks": {
            "2m_temperature": {"width": 16, "coupled": ["temperature"]},
            "temperature": {"width": 8, "coupled": ["2m_temperature"]},
        },
        "encoder": {"layers": 2, "heads": 2},
        "decoder": {"layers": 1, "heads": 2},
        "tail": {"members": 3},
    }
)


def dataset(n_times: int = 5, seed: int = 0) -> xr.Dataset:
    """Noise on a global grid with poles; five times and 19 rows don't fill whole neighborhoods."""
    rng = np.random.default_rng(seed)
    latitude, longitude = 90.0 - 10 * np.arange(19), 15.0 * np.arange(24)
    time = np.datetime64("2020-12-31T06", "s") + 6 * np.timedelta64(3600, "s") * np.arange(n_times)
    noise = rng.standard_normal((n_times, 3, 19, 24)).astype("float32")
    coords = {
        "time": ("time", time, {"standard_name": "time"}),
        "level": ("level", [500, 700, 850], {"units": "hPa", "standard_name": "air_pressure"}),
        "latitude": ("latitude", latitude, {"units": "degrees_north", "long_name": "latitude"}),
        "longitude": ("longitude", longitude, {"units": "degrees_east"}),
    }
    kelvin = {"units": "K", "standard_name": "air_temperature"}
    surface = ("time", "latitude", "longitude")
    return xr.Dataset(
        {
            "2m_temperature": (surface, 280 + 10 * noise[:, 0], kelvin),
            "temperature": (("time", "level", "latitude", "longitude"), 250 + 5 * noise, kelvin),
            "geopotential_at_surface": (surface[1:], 1e3 * noise[0, 0] ** 2, {"units": "m2 s-2"}),
        },
        coords,
        {"title": "noise"},
    )


@cache
def model() -> Model:
    """Random weights, statistics of the dataset."""
    view = canonical_view(dataset(), CONFIG.inputs.fields, CONFIG.inputs.statics)
    return _random(CONFIG, Normalizer.fit(view.fields, view.statics, mean="local"))


@cache
def wide() -> Model:
    """The same with neighborhoods of two tokens of the larger size, along each dimension."""
    content = CONFIG.model_dump()
    content["inputs"]["neighborhood"]["shape"] = (4, 12, 12)
    content["inputs"]["fields"][1]["token_shape"] = (2, 3, 6)
    view = canonical_view(dataset(), CONFIG.inputs.fields, CONFIG.inputs.statics)
    normalizer = Normalizer.fit(view.fields, view.statics, mean="local")
    return _random(ModelConfig.model_validate(content), normalizer)


@cache
def forecaster() -> Model:
    """The same with six frames, of which a token has one or three; statistics of each month."""
    return _forecaster(dataset(9), "month")


def forecaster_of(ds: xr.Dataset) -> Model:
    """The same with statistics of the months of a dataset, and of no others."""
    return _forecaster(ds, "year_month")


def _forecaster(ds: xr.Dataset, period: Period) -> Model:
    content = CONFIG.model_dump()
    content["inputs"]["neighborhood"]["shape"] = (6, 6, 12)
    content["inputs"]["fields"][1]["token_shape"] = (3, 3, 4)
    config = ModelConfig.model_validate(content)
    view = canonical_view(ds, config.inputs.fields, config.inputs.statics)
    return _random(config, Normalizer.fit(view.fields, view.statics, mean="local", period=period))


def _random(config: ModelConfig, normalizer: Normalizer) -> Model:
    network = Multiformer(config, torch.Generator().manual_seed(1)).eval()
    card = ModelCard(
        name="small",
        description="For tests.",
        fields=("2m_temperature", "temperature"),
        grid="global, 10 x 15 degrees",
        period=("2020-12-31", "2021-01-01"),
        data=DataSource(name="noise"),
    )
    return Model(config, network, normalizer, card)


def flipped(ds: xr.Dataset) -> xr.Dataset:
    """South to north."""
    return ds.isel(latitude=slice(None, None, -1))


def rolled(ds: xr.Dataset) -> xr.Dataset:
    """Longitude from -180 to 165."""
    attrs = ds["longitude"].attrs
    shifted = ds.assign_coords(longitude=(ds["longitude"] + 180) % 360 - 180)
    shifted["longitude"].attrs = attrs
    return shifted.sortby("longitude")


def renamed(ds: xr.Dataset) -> xr.Dataset:
    """Names of CMIP6, pressure in Pa, dimensions in another order."""
    names = {"latitude": "lat", "longitude": "lon", "level": "plev"}
    names |= {"2m_temperature": "tas", "temperature": "ta"}
    changed = ds.rename(names)
    changed["plev"] = ("plev", 100.0 * changed["plev"].values, {"units": "Pa"})
    return changed.transpose("lon", "lat", "plev", "time")


def as_input(result: xr.Dataset, ds: xr.Dataset) -> xr.Dataset:
    """A result of a flipped, rolled or renamed dataset, in the form of that of `dataset`."""
    names = {"lat": "latitude", "lon": "longitude", "plev": "level"}
    names |= {"tas": "2m_temperature", "ta": "temperature"}
    present = {old: new for old, new in names.items() if old in result.variables}
    result = result.rename(present)
    if "level" in result.coords and result["level"].max() > 2000:
        result["level"] = result["level"] / 100
    result["longitude"] = result["longitude"] % 360
    return result.sortby("longitude").sortby("latitude", ascending=False)
