"""What the recipes of the examples need to be tried: their data, in small, and small models.

The stores have the names, units, levels, order and direction of dimensions, chunks and calendars of
the cloud, but a few points and days around the first held-out time.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

import cftime
import numpy as np
import xarray as xr

from tests.data import replicas
from xatmorep.training.config import PretrainConfig, read_config

EXAMPLES = Path(__file__).parents[1] / "examples"
RECIPES = sorted(path.name for path in EXAMPLES.glob("*.yaml"))

# A code block in the comments of a recipe is indented by five columns.
_CODE = re.compile(r"^#(?:     (.*))?$")

# Enough for three tokens of two frames on either side of the new year, every 6 hours or every hour.
SURFACE_HOURS = np.arange("2020-12-30T12", "2021-01-02T12", dtype="datetime64[h]")
MODEL_LEVEL_HOURS = np.arange("2020-12-31T18", "2021-01-01T06", dtype="datetime64[h]")
POINTS = 24
SURFACE = {
    "2m_temperature": ("K", 280.0, 10.0),
    "mean_sea_level_pressure": ("Pa", 1e5, 1e3),
    "10m_u_component_of_wind": ("m s-1", 0.0, 5.0),
    "10m_v_component_of_wind": ("m s-1", 0.0, 5.0),
    "total_column_water_vapour": ("kg m-2", 20.0, 5.0),
    "total_precipitation": ("m", 1e-4, 1e-5),
    "geopotential_at_surface": ("m2 s-2", 3e3, 1e3),
    "land_sea_mask": ("(0 - 1)", 0.5, 0.1),
}
ON_MODEL_LEVELS = {
    "vorticity": ("s-1", 0.0, 1e-5),
    "vertical_velocity": ("Pa s-1", 0.0, 0.1),
    "divergence": ("s-1", 0.0, 1e-5),
    "specific_humidity": ("kg kg-1", 5e-3, 1e-3),
    "temperature": ("K", 280.0, 10.0),
}
LEVELS = (96, 105, 114, 123, 137)
DAILY = {
    "ta": ("K", 260.0, 10.0),
    "ua": ("m s-1", 5.0, 5.0),
    "va": ("m s-1", 0.0, 5.0),
    "hus": ("1", 5e-3, 1e-3),
    "zg": ("m", 5e3, 1e2),
}
PLEV8 = (100000.0, 85000, 70000, 50000, 25000, 10000, 5000, 1000)


def code(recipe: str) -> str:
    """Python code in the comments at the head of a recipe; empty if there is none."""
    lines = []
    for line in (EXAMPLES / recipe).read_text().splitlines():
        if not line.startswith("#"):
            break
        match = _CODE.match(line)
        lines.append((match[1] or "") if match else "")
    return "\n".join(lines).strip()


def reduced(config: PretrainConfig) -> PretrainConfig:
    """The same run with a tiny network, few small tokens and two steps.

    Fields, units, levels, couplings, strategies, losses, normalization, precision and the kind of
    schedule stay as they are.
    """
    run = config.model_dump(mode="json")
    inputs = run["model"]["inputs"]
    for field in inputs["fields"]:
        field["token_shape"] = _at_most(field["token_shape"], (2, 2, 2))
    # Three token times, or hiding those in between would leave nothing before or after.
    grids = [config.model.inputs.token_grid(field["name"]) for field in inputs["fields"]]
    counts = [_at_most(grid, (3, 2, 2)) for grid in grids]
    sizes = [field["token_shape"] for field in inputs["fields"]]
    inputs["neighborhood"]["shape"] = np.max(np.multiply(counts, sizes), axis=0).tolist()
    for network in run["model"]["networks"].values():
        network["width"] = 16
    run["model"]["token_info_width"] = min(run["model"]["token_info_width"], 4)
    for part in ("encoder", "decoder"):
        layers = min(run["model"][part]["layers"], 2)
        run["model"][part] |= {"heads": 2, "layers": layers}
    run["model"]["tail"]["members"] = 3
    if run["optimizer"]["exponential"]:
        run["optimizer"]["exponential"]["epoch_steps"] = 1
    run["optimizer"]["warmup_steps"] = 1
    run |= {"steps": 2, "batch_size": 4, "crops_per_slab": 2, "validation_batches": 1}
    run |= {"accumulate": min(run["accumulate"], 2), "validate_every": 1, "checkpoint_every": None}
    return read_config(run)


def write_stores(root: Path) -> None:
    """Stores of all catalog entries that the recipes name, with buckets right under a folder."""
    arco = root / "gcp-public-data-arco-era5/ar"
    _surface(arco / "full_37-1h-0p25deg-chunk-1.zarr-v3")
    _model_levels(arco / "model-level-1h-0p25deg.zarr-v1")
    _cesm2(root)


def _at_most(shape: Iterable[int], limits: tuple[int, int, int]) -> list[int]:
    return [min(n, limit) for n, limit in zip(shape, limits, strict=True)]


def _surface(path: Path) -> None:
    store, rng = _arco(path, SURFACE_HOURS), np.random.default_rng(0)
    shape = (SURFACE_HOURS.size, POINTS, POINTS)
    for name, (units, mean, spread) in SURFACE.items():
        dims = ["time", "latitude", "longitude"]
        store.array(name, dims, shape, (1, POINTS, POINTS), units=units)
        store.arrays[name][:] = _random(rng, shape, mean, spread)
    store.close()


def _model_levels(path: Path) -> None:
    """Only the levels that the recipes read hold anything."""
    store, rng = _arco(path, MODEL_LEVEL_HOURS), np.random.default_rng(0)
    store.coordinate("hybrid", np.arange(1, 138, dtype="f4"))
    shape = (MODEL_LEVEL_HOURS.size, 137, POINTS, POINTS)
    for name, (units, mean, spread) in ON_MODEL_LEVELS.items():
        dims = ["time", "hybrid", "latitude", "longitude"]
        store.array(name, dims, shape, (1, 18, POINTS, POINTS), units=units)
        values = np.full(shape, np.nan, "f4")
        places = [level - 1 for level in LEVELS]
        values[:, places] = _random(rng, values[:, places].shape, mean, spread)
        store.arrays[name][:] = values
    store.close()


def _arco(path: Path, hours: np.ndarray) -> replicas.Group:
    """A store of ARCO-ERA5 with coordinates only."""
    store = replicas.Group(path, replicas.ARCO_ATTRIBUTES)
    positions = replicas.hour(str(hours[0])) + np.arange(hours.size)
    units = {"units": "hours since 1900-01-01", "calendar": "proleptic_gregorian"}
    store.coordinate("time", positions, **units)
    store.coordinate("latitude", 60 - np.arange(POINTS, dtype="f4") / 4, units="degrees_north")
    store.coordinate("longitude", np.arange(POINTS, dtype="f4") / 4, units="degrees_east")
    return store


def _cesm2(root: Path) -> None:
    """Daily means of CESM2 around the new year of 2005, and the table that names their stores."""
    rng = np.random.default_rng(0)
    days = [cftime.DatetimeNoLeap(2004, 12, 24 + day, 12) for day in range(8)]
    days += [cftime.DatetimeNoLeap(2005, 1, 1 + day, 12) for day in range(8)]
    latitude, longitude = -90 + np.arange(16) * 180 / 191, np.arange(16) * 1.25
    lines = [",".join([*replicas.FACETS, "zstore", "dcpp_init_year", "version"])]
    for name, (units, mean, spread) in DAILY.items():
        facets = ["CMIP", "NCAR", "CESM2", "historical", "r1i1p1f1", "day", name, "gn"]
        place = f"cmip6/CMIP6/{'/'.join(facets)}/v20190308/"
        lines.append(",".join([*facets, f"gs://{place}", "", "20190308"]))
        values = _random(rng, (len(days), len(PLEV8), 16, 16), mean, spread)
        values[:, :2, :4, :4] = np.nan  # under the ground
        edges = [[day.replace(hour=0), day.replace(hour=23)] for day in days]
        ds = xr.Dataset(
            {
                name: (("time", "plev", "lat", "lon"), values, {"units": units}),
                "time_bnds": (("time", "nbnd"), np.array(edges)),
                "lat_bnds": (("lat", "nbnd"), np.stack([latitude - 0.47, latitude + 0.47], 1)),
            },
            {
                "time": ("time", days, {"axis": "T", "bounds": "time_bnds"}),
                "plev": ("plev", np.array(PLEV8), {"units": "Pa", "positive": "down"}),
                "lat": ("lat", latitude, {"units": "degrees_north", "bounds": "lat_bnds"}),
                "lon": ("lon", longitude, {"units": "degrees_east"}),
            },
            {"source_id": "CESM2", "license": "CC BY 4.0"},
        )
        since = {"units": "days since 0001-01-01", "calendar": "noleap", "dtype": "f8"}
        encoding = {"time": since, "time_bnds": since, name: {"chunks": (8, 8, 16, 16)}}
        ds.to_zarr(root / place, zarr_format=2, consolidated=True, encoding=encoding)
    (root / "cmip6/pangeo-cmip6.csv").write_text("\n".join(lines) + "\n")


def _random(
    rng: np.random.Generator, shape: tuple[int, ...], mean: float, spread: float
) -> np.ndarray:
    return (mean + spread * rng.standard_normal(shape)).astype("f4")
