"""The simulated sample: 20 days of several fields on sigma levels, packed as integers.

It was made by ``python examples/simulate_atmosphere.py sample.zarr --days 20 --seed 1 --packed
--levels 0.2 0.51 0.835`` and is not an observation of any date.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import xarray as xr

SAMPLE = Path(__file__).parent / "data/simulated-sample.zarr"
LEVELS = (0.2, 0.51, 0.835)
UNITS = {
    "vorticity": "s-1",
    "divergence": "s-1",
    "temperature": "K",
    "specific_humidity": "kg kg-1",
    "geopotential": "m2 s-2",
}


def open_sample() -> xr.Dataset:
    """Open the sample lazily."""
    return xr.open_zarr(SAMPLE)


def small_model(names: tuple[str, ...] = tuple(UNITS)) -> dict[str, Any]:
    """Configuration of a small model of some fields, for the grid and the steps of the sample."""
    fields = [
        {
            "name": name,
            "units": UNITS[name],
            "token_shape": (4, 4, 4),
            "levels": LEVELS,
            "level_type": "sigma",
        }
        for name in names
    ]
    networks = {
        name: {"width": 16, "coupled": [other for other in names if other != name]}
        for name in names
    }
    return {
        "inputs": {
            "neighborhood": {"shape": (8, 16, 32), "time_step": 6, "grid_step": (5.54, 5.625)},
            "fields": fields,
        },
        "networks": networks,
        "encoder": {"layers": 2, "heads": 2, "qk_norm": "affine"},
        "decoder": {"layers": 1, "heads": 2, "qk_norm": "affine"},
        "tail": {"members": 4},
    }
