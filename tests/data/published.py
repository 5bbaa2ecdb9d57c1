"""Small trees of published normalization coefficients, in both layouts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import zarr

from xatmorep.data.published import PublishedField

GRID = (721, 1440)
JANUARY = 12 * 2021

VORTICITY = PublishedField("vorticity", "vorticity", (137.0, 123.0), "global")
TEMPERATURE = PublishedField("temperature", "temperature", (123.0,), "local")
RAIN = PublishedField("total_precipitation", "total_precip", (), "global")
LOCAL_RAIN = PublishedField("total_precipitation", "total_precip", (), "local")


def write(url: str, data: np.ndarray | bytes) -> None:
    with fsspec.open(url, "wb", auto_mkdir=True) as file:
        file.write(data if isinstance(data, bytes) else data.astype("<f4").tobytes())


def table_url(root: object, name: str, level: int) -> str:
    return f"{root}/{name}/global_normalization_mean_var_{name}_ml{level}.bin"


def grid_url(root: object, name: str, month: str, level: int) -> str:
    year, number = month.split("-")
    return f"{root}/{name}/normalization_mean_var_{name}_y{year}_m{number}_ml{level}.bin"


def rows(*months: tuple[int, int], seed: int = 0) -> np.ndarray:
    """Rows of a table in the order given."""
    rng = np.random.default_rng(seed)
    return np.array([(*month, rng.normal(), rng.uniform(0.5, 2.0)) for month in months], np.float32)


MONTHS = [(2020, 11), (2020, 12), (2021, 1), (2021, 2)]


def write_tables(folder: Path) -> Path:
    """Files of whole levels."""
    for level, seed in ((137, 1), (123, 2)):
        write(table_url(folder, "vorticity", level), rows(*MONTHS, seed=seed))
    write(table_url(folder, "total_precip", 0), rows(*MONTHS[2:], seed=3))
    return folder


FIELDS, LEVELS = ["vorticity", "velocity_u", "temperature"], [96, 123, 137]
LATS, LONS = np.linspace(0, 180, 5), np.linspace(0, 360, 8, endpoint=False)
FULL = {
    "norm": (len(FIELDS), len(LEVELS), LATS.size, LONS.size),
    "norm_sfc": (1, LATS.size, LONS.size),
    "global_norm": (len(FIELDS), len(LEVELS)),
    "global_norm_sfc": (1,),
}


def write_store(path: Path, zarr_format: Any = 2, n_months: int = 15, **arrays: np.ndarray) -> Any:
    """A store of random coefficients from January 2020 on, laid out as the published one."""
    rng = np.random.default_rng(5)
    group = zarr.open_group(path, mode="w", zarr_format=zarr_format)
    group.attrs.update(fields=FIELDS, levels=LEVELS, fields_sfc=["total_precip"], is_global=True)
    time = np.datetime64("2020-03-05", "s") + np.arange(4) * np.timedelta64(1, "h")
    axes = {"time": time, "lats": LATS, "lons": LONS}
    for name, values in axes.items():
        group.create_array(name, data=arrays.get(name, values))
    inner = group.create_group("normalization")
    for name, shape in FULL.items():
        values = rng.uniform(0.5, 2.0, (n_months, 2, *shape)).astype(np.float32)
        values = arrays.get(name, values)
        chunks = {"norm": (1, 2, 1, 1, *shape[-2:]), "norm_sfc": (1, 2, *shape)}
        inner.create_array(name, data=values, chunks=chunks.get(name, "auto"))
    return inner
