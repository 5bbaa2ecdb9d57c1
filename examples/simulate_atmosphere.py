#!/usr/bin/env python3
"""Simulate a multi-level atmosphere and write it as a CF-compliant zarr v3 store.

The data are made by ``jcm`` (JAX-based General Circulation Model, Apache-2.0,
``pip install "jcm>=3,<4" zarr``): SPEEDY physics on the Dinosaur spectral dynamical core,
T31 with 8 sigma levels, real orography, and the climatological sea-surface temperature, sea
ice, land temperature, snow and soil moisture that ship inside the package. Nothing is
downloaded; one CPU core is enough. The result is NOT an observation of any date, and
it has no diurnal cycle (the model's sunshine is a daily mean).

    python simulate_atmosphere.py train.zarr --months 12 --seed 0
    python simulate_atmosphere.py valid.zarr --months 2 --seed 1

Run the same command again to resume after an interruption: the store is built as
``train.zarr.partial`` next to a small checkpoint, and renamed when it is complete.
Memory does not grow with the length of the simulation.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import shutil
import time
from importlib.metadata import version
from importlib.resources import files
from pathlib import Path

os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("HF_HUB_OFFLINE", "1")  # all input ships with the package

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr
from dinosaur.spherical_harmonic import vor_div_to_uv_nodal
from jcm.checkpoint import load_checkpoint, save_checkpoint
from jcm.constants import grav, p0
from jcm.forcing import ForcingData
from jcm.model import Model
from jcm.physics.speedy.speedy_coords import get_speedy_coords
from jcm.physics.speedy.speedy_terms import speedy_physics
from jcm.terrain import TerrainData

TIME_STEP_MINUTES = 30
MEAN_SURFACE_PRESSURE = 98_550.0  # Pa, global mean of the real atmosphere
DAY = np.timedelta64(1, "D")

# name: (units, standard_name, long_name, packed range).  The packed range is
# mapped to int16 if --packed is given; values outside it are an error.
LEVEL_FIELDS = {
    "vorticity": ("s-1", "atmosphere_relative_vorticity", "relative vorticity", (-2.5e-4, 2.5e-4)),
    "divergence": ("s-1", "divergence_of_wind", "divergence", (-1.5e-4, 1.5e-4)),
    "temperature": ("K", "air_temperature", "temperature", (170.0, 340.0)),
    "specific_humidity": ("kg kg-1", "specific_humidity", "specific humidity", (0.0, 0.04)),
    "geopotential": ("m2 s-2", "geopotential", "geopotential", None),
}
SURFACE_FIELDS = {
    "surface_pressure": ("Pa", "surface_air_pressure", "surface pressure", (45e3, 115e3)),
    "lowest_level_u_component_of_wind": (
        "m s-1",
        "eastward_wind",
        "eastward wind at the lowest model level (sigma 0.95)",
        (-80.0, 80.0),
    ),
    "lowest_level_v_component_of_wind": (
        "m s-1",
        "northward_wind",
        "northward wind at the lowest model level (sigma 0.95)",
        (-80.0, 80.0),
    ),
    "total_precipitation": (
        "m",
        "lwe_thickness_of_precipitation_amount",
        "precipitation accumulated since the previous time",
        (0.0, 0.16),
    ),
}
STATIC_FIELDS = {
    "orography": ("m", "surface_altitude", "orography as the model sees it (spectrally truncated)"),
    "land_sea_mask": ("1", "land_area_fraction", "land fraction"),
}


def build_model(start: np.datetime64):
    """The model and its boundary conditions, all from files inside the package."""
    boundary = files("jcm") / "data" / "bc" / "t30" / "clim"
    coords = get_speedy_coords(layers=8, spectral_truncation=31)
    terrain = TerrainData.from_file(str(boundary / "terrain.nc"), coords)
    forcing = ForcingData.from_file(
        str(boundary / "forcing.nc"), coords=coords, align_mode="wrap_year"
    )
    model = Model(
        coords=coords,
        terrain=terrain,
        physics=speedy_physics(),
        start_time=str(start),
        time_step=float(TIME_STEP_MINUTES),
    )
    return model, forcing


def initial_state(model: Model, seed: int):
    """An isothermal atmosphere at rest with small perturbations, of the mass of the real one.

    The package's own start has 1002 hPa on average, which would lift the 500 hPa surface by
    some 140 m.
    """
    state, grid = model.initial_state(random_seed=seed), model.coords.horizontal
    pressure = p0 * jnp.exp(grid.to_nodal(state.log_surface_pressure))
    mean = jnp.mean(pressure, axis=-2).ravel() @ (Output.gauss_weight(grid) / 2)
    shift = jnp.full(pressure.shape, jnp.log(MEAN_SURFACE_PRESSURE / mean))
    return state.replace(log_surface_pressure=state.log_surface_pressure + grid.to_modal(shift))


def overlap(source: np.ndarray, target: np.ndarray, period: float | None = None) -> np.ndarray:
    """Fractions (target, source) of each target cell that source cells cover; edges ascending."""
    weights = np.zeros((target.size - 1, source.size - 1))
    for shift in (0.0,) if period is None else (-period, 0.0, period):
        low = np.maximum(target[:-1, None], source[None, :-1] + shift)
        high = np.minimum(target[1:, None], source[None, 1:] + shift)
        weights += np.clip(high - low, 0.0, None)
    return weights / np.diff(target)[:, None]


class Output:
    """Maps what the model saves to the stored fields, levels and grid."""

    def __init__(self, model: Model, levels, nlat: int):
        self.model = model
        self.native = model.coords.horizontal
        sigma = np.asarray(model.coords.vertical.centers, dtype=float)
        self.index = [int(np.argmin(np.abs(sigma - s))) for s in levels]
        self.sigma = np.round(sigma[self.index], 4)
        if not np.allclose(self.sigma, levels, atol=5e-3):
            raise SystemExit(f"levels must be among {np.round(sigma, 4).tolist()}")
        # 32 x 64 (the linear Gaussian grid) is the smallest that holds T31 without loss.
        self.grid = (
            self.native
            if nlat == 48
            else dataclasses.replace(self.native, longitude_nodes=64, latitude_nodes=32)
        )
        edges = []
        for grid in (self.native, self.grid):
            nlon = grid.nodal_shape[0]
            lon_edges = (np.arange(nlon + 1) - 0.5) / nlon
            weight = self.gauss_weight(grid)
            edges.append((lon_edges, np.concatenate([[0.0], np.cumsum(weight)])))
        self.lon_weights = overlap(edges[0][0], edges[1][0], period=1.0)
        self.lat_weights = overlap(edges[0][1], edges[1][1])
        self.fields = jax.jit(self._fields)

    @staticmethod
    def gauss_weight(grid) -> np.ndarray:
        """Quadrature weights of the latitudes, south to north, sum 2."""
        return np.polynomial.legendre.leggauss(grid.nodal_shape[1])[1]

    @property
    def latitude(self):
        """Degrees north, from south to north."""
        return np.degrees(np.arcsin(np.asarray(self.grid.nodal_axes[1], dtype=float)))

    @property
    def longitude(self):
        """Degrees east."""
        return np.degrees(np.asarray(self.grid.nodal_axes[0], dtype=float))

    def area_mean(self, field):
        """Conservative average of (..., longitude, latitude) to the stored grid."""
        return jnp.einsum("il,jk,...lk->...ij", self.lon_weights, self.lat_weights, field)

    def resample(self, field):
        """Spectral resampling of (..., longitude, latitude): exact for T31 fields."""
        return self.grid.to_nodal(self.native.clip_wavenumbers(self.native.to_modal(field)))

    def _fields(self, state, precipitation):
        # Vorticity and divergence are the model's own spectral coefficients, not derived
        # from its output winds: those are truncated, which ruins the divergence (errors of 40 to
        # 60 % of its std).
        # jcm runs Dinosaur in SI units, so the coefficients need no scaling.
        physical = self.model.dycore.to_physics_state(state)
        clip = self.native.clip_wavenumbers
        vor, div = clip(state.vorticity), clip(state.divergence)
        humidity = clip(state.tracers["specific_humidity"])
        index = jnp.asarray(self.index)
        u_low, v_low = vor_div_to_uv_nodal(self.grid, vor[-1], div[-1], clip=False)
        out = {
            "vorticity": self.grid.to_nodal(vor[index]),
            "divergence": self.grid.to_nodal(div[index]),
            "temperature": self.resample(physical.temperature[index]),
            "specific_humidity": jnp.maximum(self.grid.to_nodal(humidity[index]), 0.0),
            "geopotential": self.resample(physical.geopotential[index]),
            "surface_pressure": p0
            * jnp.exp(self.grid.to_nodal(clip(state.log_surface_pressure[0]))),
            "lowest_level_u_component_of_wind": u_low,
            "lowest_level_v_component_of_wind": v_low,
            "total_precipitation": self.area_mean(precipitation) / 1000.0,  # kg m-2 -> m
        }
        # (..., longitude, latitude south to north) -> (..., latitude north to south, longitude)
        return {k: jnp.swapaxes(x, -1, -2)[..., ::-1, :] for k, x in out.items()}

    def advance(self, forcing, hours: int) -> dict[str, np.ndarray]:
        """Run the model to the next output time and return the fields to store.

        The interval's mean precipitation comes from the model's averaged output; everything
        else from its state at the end of the interval.
        """
        interval = hours / 24.0
        mean = self.model.resume(
            forcing=forcing, save_interval=interval, total_time=interval, output_averages=True
        ).physics
        precipitation = mean["surface_exchange"].precipitation[0] * (3600.0 * hours)
        out = self.fields(self.model.dycore_state, precipitation)
        return {k: np.asarray(x, dtype="float32") for k, x in out.items()}

    def static(self) -> dict[str, np.ndarray]:
        """Constant fields (latitude, longitude), from north to south."""
        terrain = self.model.terrain
        out = {
            "orography": self.resample(terrain.phis0) / grav,
            "land_sea_mask": jnp.clip(self.area_mean(terrain.fmask), 0.0, 1.0),
        }
        return {k: np.asarray(x, dtype="float32").T[::-1] for k, x in out.items()}


def packing(name: str, limits, sigma) -> dict:
    """int16 encoding that covers ``limits``; -32768 is kept for missing values."""
    if name == "geopotential":  # highest ground plus a 300 K warm layer up to the top level stored
        limits = (-12e3, 55e3 + 287.0 * 300.0 * np.log(1.0 / min(sigma)))
    low, high = limits
    return {
        "dtype": "int16",
        "scale_factor": (high - low) / 65534.0,
        "add_offset": (high + low) / 2.0,
        "_FillValue": np.int16(-32768),
    }


def create_store(path: Path, output: Output, times, chunk: int, packed: bool, attrs: dict):
    """Write all metadata, coordinates and static fields; leave the data to be filled in."""
    import dask.array as da
    from zarr.codecs import BloscCodec

    nlat, nlon = output.grid.nodal_shape[::-1]
    ds = xr.Dataset(
        coords={
            "time": ("time", times, {"standard_name": "time", "axis": "T"}),
            "level": (
                "level",
                output.sigma,
                {
                    "standard_name": "atmosphere_sigma_coordinate",
                    "long_name": "sigma",
                    "units": "1",
                    "positive": "down",
                    "axis": "Z",
                    "formula_terms": "sigma: level ps: surface_pressure ptop: ptop",
                },
            ),
            "latitude": (
                "latitude",
                output.latitude[::-1],
                {"standard_name": "latitude", "units": "degrees_north", "axis": "Y"},
            ),
            "longitude": (
                "longitude",
                output.longitude,
                {"standard_name": "longitude", "units": "degrees_east", "axis": "X"},
            ),
            "gauss_weight": (
                "latitude",
                output.gauss_weight(output.grid)[::-1],
                {"long_name": "area weight of the latitude row (sum 2)", "units": "1"},
            ),
            "ptop": ((), 0.0, {"long_name": "pressure at the model top", "units": "Pa"}),
        },
        attrs=attrs,
    )
    encoding = {
        "time": {
            "units": f"hours since {np.datetime_as_string(times[0], 'D')}",
            "calendar": "proleptic_gregorian",
            "dtype": "int64",
        }
    }
    for name, (units, standard, long, limits) in {**LEVEL_FIELDS, **SURFACE_FIELDS}.items():
        dims = ("time", "latitude", "longitude")
        shape = (times.size, nlat, nlon)
        if name in LEVEL_FIELDS:
            dims, shape = ("time", "level", *dims[1:]), (times.size, output.sigma.size, nlat, nlon)
        chunks = (chunk, *shape[1:])
        ds[name] = xr.DataArray(
            da.zeros(shape, chunks=chunks, dtype="float32"),
            dims=dims,
            attrs={
                "units": units,
                "standard_name": standard,
                "long_name": long,
                "cell_methods": "time: sum (over the interval that ends at time)"
                if name == "total_precipitation"
                else "time: point",
            },
        )
        encoding[name] = (
            packing(name, limits, output.sigma)
            if packed
            else {"dtype": "float32", "_FillValue": np.float32("nan")}
        )
        encoding[name] |= {
            "chunks": chunks,
            "compressors": BloscCodec(
                cname="zstd", clevel=5, shuffle="shuffle", typesize=2 if packed else 4
            ),
        }
    for name, values in output.static().items():
        units, standard, long = STATIC_FIELDS[name]
        ds[name] = (
            ("latitude", "longitude"),
            values,
            {"units": units, "standard_name": standard, "long_name": long},
        )
    ds.to_zarr(path, mode="w", zarr_format=3, consolidated=True, compute=False, encoding=encoding)


def write_segment(path: Path, data: dict, first: int, encoding: dict):
    """Write some days into their place in the store."""
    count = data["surface_pressure"].shape[0]
    ds = xr.Dataset()
    for name, values in data.items():
        if "scale_factor" in encoding[name]:
            span = 32767 * encoding[name]["scale_factor"]
            if np.abs(values - encoding[name]["add_offset"]).max() > span * 1.00001:
                raise ValueError(f"{name} leaves its packed range: write without --packed")
        dims = ("time", "latitude", "longitude")
        ds[name] = (dims if name in SURFACE_FIELDS else ("time", "level", *dims[1:]), values)
    ds.to_zarr(path, region={"time": slice(first, first + count)}, consolidated=True)


def simulate(args):
    """Simulate segment after segment, each stored before the next begins."""
    final = Path(args.store)
    work = final.with_name(final.name + ".partial")
    checkpoint = final.with_name(final.name + ".checkpoint")
    if final.exists():
        raise SystemExit(f"{final} is complete already")
    start = np.datetime64(args.start, "D")
    step = np.timedelta64(args.interval_hours, "h")
    # The model saves at the END of each interval; begin one earlier to store 00:00 first.
    begin = (start - args.spinup_days * DAY).astype("datetime64[h]") - step
    segments = -(-args.days // args.segment_days)
    chunk = args.segment_days * 24 // args.interval_hours
    times = (start.astype("datetime64[h]") + step * np.arange(segments * chunk)).astype(
        "datetime64[ns]"
    )

    settings = {k: v for k, v in vars(args).items() if k not in ("store", "months")}
    attrs = {
        "Conventions": "CF-1.11",
        "title": "Simulated multi-level atmosphere (not observations)",
        "source": (
            f"jcm {version('jcm')} (dinosaur {version('dinosaur')}, jax {version('jax')}): "
            f"SPEEDY physics, T31, 8 sigma levels, {TIME_STEP_MINUTES} min step, "
            "climatological boundary conditions"
        ),
        "history": f"simulated from rest on {begin}, seed {args.seed}; stored from {start}",
        "comment": "No diurnal cycle; sea-surface temperature repeats every year; nominal dates.",
        "simulation_settings": json.dumps(settings),
    }

    clock = time.time()
    model, forcing = build_model(begin)
    output = Output(model, args.levels, int(args.grid.split("x")[0]))
    model.bootstrap_state(initial_state(model, args.seed))
    done = 0.0
    resumed = work.exists() and checkpoint.exists()
    if resumed:
        done = load_checkpoint(model, checkpoint)
        stored = json.loads(xr.open_zarr(work).attrs["simulation_settings"])
        if stored != json.loads(json.dumps(settings)):
            raise SystemExit(f"{work} was begun with other settings: {stored}")
        print(f"resuming after {done:g} simulated days", flush=True)
    else:
        shutil.rmtree(work, ignore_errors=True)
        create_store(work, output, times, chunk, args.packed, attrs)
    encoding = {k: v.encoding for k, v in xr.open_zarr(work).variables.items()}

    total = args.spinup_days + segments * args.segment_days
    while done < total:
        frames = [output.advance(forcing, args.interval_hours) for _ in range(chunk)]
        data = {name: np.stack([frame[name] for frame in frames]) for name in frames[0]}
        for name, values in data.items():
            if not np.isfinite(values).all():
                raise FloatingPointError(
                    f"the simulation has become unstable: {name} is not finite"
                )
        first = round((done - args.spinup_days) / args.segment_days) * chunk
        if first >= 0:
            write_segment(work, data, first, encoding)
        done += args.segment_days
        save_checkpoint(model, checkpoint)
        print(
            f"day {done - args.spinup_days:6g} of {total - args.spinup_days}  "
            f"{time.time() - clock:7.1f} s  mean T {data['temperature'].mean():.2f} K",
            flush=True,
        )
    work.rename(final)
    checkpoint.unlink()


def main(argv=None):
    """Read the command line and simulate."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("store", help="zarr store to make")
    parser.add_argument(
        "--months", type=int, default=12, help="length in months of 30 days (default 12)"
    )
    parser.add_argument("--days", type=int, help="length in days, in place of --months")
    parser.add_argument(
        "--start", default="2001-01-01", help="nominal first day (default 2001-01-01)"
    )
    parser.add_argument(
        "--seed", type=int, default=0, help="seed of the perturbation of the initial state"
    )
    parser.add_argument(
        "--spinup-days",
        type=int,
        default=120,
        help="days from rest that are simulated but not stored (default 120)",
    )
    parser.add_argument(
        "--levels",
        type=float,
        nargs="+",
        default=[0.2, 0.34, 0.51, 0.685, 0.835],
        help="sigma levels to store, of 0.025 0.095 0.2 0.34 0.51 0.685 0.835 0.95",
    )
    parser.add_argument(
        "--grid",
        choices=["32x64", "48x96"],
        default="32x64",
        help="stored Gaussian grid; 32x64 holds T31 without loss",
    )
    parser.add_argument("--interval-hours", type=int, default=6, choices=[1, 3, 6, 12, 24])
    parser.add_argument(
        "--segment-days",
        type=int,
        default=10,
        help="days simulated and written at a time, one chunk (default 10)",
    )
    parser.add_argument(
        "--packed", action="store_true", help="int16 with scale and offset, not float32"
    )
    args = parser.parse_args(argv)
    args.levels = sorted(args.levels)
    args.days = args.days or 30 * args.months
    if args.spinup_days % args.segment_days:
        parser.error("--spinup-days must be a multiple of --segment-days")
    simulate(args)


if __name__ == "__main__":
    main()
