"""A small model whose fields enter twice, and a slow plain way to cut what enters again."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import torch
import xarray as xr

from tests.tasks import small
from xatmorep.data.conventions import canonical_view
from xatmorep.data.normalization import Normalizer
from xatmorep.model.checkpoint import Model
from xatmorep.model.config import ModelConfig
from xatmorep.model.multiformer import Multiformer
from xatmorep.tokens.spec import ContextSpec, InputSpec

AROUND = {
    "name": "around",
    "field": "2m_temperature",
    "coarsen": (1, 2, 2),
    "shape": (2, 6, 8),
    "token_shape": (1, 2, 2),
}
BEFORE = {
    "name": "before",
    "field": "temperature",
    "coarsen": (2, 1, 3),
    "shape": (4, 6, 8),
    "token_shape": (1, 3, 4),
    "levels": (500,),
}


def content(**inputs: Any) -> dict[str, Any]:
    """Two contexts: one reaches around, the other into the past, on the whole circle."""
    content = small.CONFIG.model_dump()
    content["inputs"] |= {"contexts": [AROUND, BEFORE]} | inputs
    content["networks"]["2m_temperature"]["coupled"] = ("temperature", "around")
    content["networks"]["temperature"]["coupled"] = ("before", "2m_temperature")
    content["networks"]["around"] = {"width": 8, "predicted": False, "coupled": ("before",)}
    content["networks"]["before"] = {"width": 16, "predicted": False}
    return content


CONFIG = ModelConfig.model_validate(content())


@cache
def model() -> Model:
    """Random weights, statistics of each point."""
    return model_of(CONFIG, small.dataset())


@cache
def forecaster() -> Model:
    """The same with six frames, of which a token has one or three, and with eleven of the past."""
    changed = content()
    changed["inputs"]["neighborhood"]["shape"] = (6, 6, 12)
    changed["inputs"]["fields"][1]["token_shape"] = (3, 3, 4)
    changed["inputs"]["contexts"] = [AROUND | {"shape": (6, 6, 8)}, BEFORE]
    return model_of(ModelConfig.model_validate(changed), small.dataset(12))


def model_of(config: ModelConfig, ds: xr.Dataset) -> Model:
    view = canonical_view(ds, config.inputs.fields, config.inputs.statics)
    normalizer = Normalizer.fit(view.fields, view.statics, mean="local")
    network = Multiformer(config, torch.Generator().manual_seed(1)).eval()
    return Model(config, network, normalizer, small.model().card)


def plain(
    spec: InputSpec,
    context: ContextSpec,
    field: xr.DataArray,
    corner: tuple[int, int, int],
    *,
    is_global: bool,
) -> xr.DataArray:
    """Values of a context (level, time, latitude, longitude) of the neighborhood at a corner.

    The field is padded by far more than needed, cut by isel, and coarsened by xarray.
    """
    more = 40
    if context.levels:
        field = field.sel(level=list(context.levels))
    weight = np.cos(np.deg2rad(field["latitude"])).clip(min=1e-4)
    field = xr.Dataset({"values": field, "weight": weight.broadcast_like(field)})
    field = field.drop_vars(["time", "latitude", "longitude"])
    field = field.pad(time=(more, 0), latitude=(more, more), constant_values=np.nan)
    around = {"mode": "wrap"} if is_global else {"constant_values": np.nan}
    field = field.pad(longitude=(more, more), **around)  # type: ignore[arg-type]
    slices = {}
    for axis, first, size, extent in zip(
        ("time", "latitude", "longitude"),
        corner,
        spec.neighborhood.shape,
        context.extent,
        strict=True,
    ):
        before = extent - size if axis == "time" else (extent - size) // 2
        slices[axis] = slice(first + more - before, first + more - before + extent)
    field = field.isel(slices)
    there = np.isfinite(field["values"])
    sizes = dict(zip(("time", "latitude", "longitude"), context.coarsen, strict=True))
    total = (field["values"] * field["weight"]).where(there, 0).coarsen(sizes).sum()
    share = field["weight"].where(there, 0).coarsen(sizes).sum()
    return (total / share.where(share > 0)).transpose("level", "time", "latitude", "longitude")
