"""Memory of a pre-training over its steps, and the share of the time that it waits for data.

The data are waves, made here and read from a store on disk while the network learns. Memory should
be flat after the first steps. The allocator of Linux keeps some of what was freed, a few percent
more over hundreds of steps; with ``MALLOC_ARENA_MAX=1 MALLOC_MMAP_THRESHOLD_=65536`` in the
environment it gives back nearly all, and what is left is what the program holds. Run it from
anywhere with the package installed; ``--figure`` needs matplotlib:

    python benchmarks/memory_over_steps.py --steps 200 --figure memory.png
"""

from __future__ import annotations

import argparse
import csv
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import torch
import xarray as xr

import xatmorep
from xatmorep.training.batches import Batch
from xatmorep.training.learner import Learner

FIELDS = {"2m_temperature": "K", "mean_sea_level_pressure": "Pa"}
FIRST = 40
"""Steps after which memory has to be flat."""


def waves(days: int) -> xr.Dataset:
    """Waves on a global grid of 2 degrees, every 6 hours."""
    n = 4 * days
    coords = {
        "time": np.datetime64("2021-01-01", "s") + 6 * np.timedelta64(3600, "s") * np.arange(n),
        "latitude": ("latitude", 89.0 - 2.0 * np.arange(90), {"units": "degrees_north"}),
        "longitude": ("longitude", 2.0 * np.arange(180), {"units": "degrees_east"}),
    }
    ds = xr.Dataset(coords=coords)
    phase = np.deg2rad(2 * ds["longitude"] + ds["latitude"])
    steps = xr.DataArray(0.3 * np.arange(n), dims="time")
    for name, units in FIELDS.items():
        wave = np.sin(phase + steps).transpose("time", "latitude", "longitude")
        ds[name] = wave.astype("float32").assign_attrs(units=units)
    return ds


def config(steps: int) -> dict[str, Any]:
    """A small network, with a checkpoint and a validation now and then."""
    one, other = FIELDS
    return {
        "name": "memory",
        "model": {
            "inputs": {
                "neighborhood": {"shape": [4, 36, 72], "time_step": 6, "grid_step": [2, 2]},
                "fields": [
                    {"name": name, "units": units, "token_shape": [2, 9, 9]}
                    for name, units in FIELDS.items()
                ],
            },
            "networks": {
                one: {"width": 64, "coupled": [other]},
                other: {"width": 64, "coupled": [one]},
            },
            "encoder": {"layers": 3, "heads": 4},
            "decoder": {"layers": 2, "heads": 4},
            "tail": {"members": 4},
        },
        "steps": steps,
        "batch_size": 8,
        "crops_per_slab": 4,
        "validate_every": 25,
        "validation_batches": 2,
        "ema": 0.99,
    }


def main() -> None:
    """Train, and print memory over steps."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--figure", help="file for a picture")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    process, memory, learn = psutil.Process(), [], Learner.learn

    def watched(self: Learner, batch: Batch) -> dict[str, float]:
        line = learn(self, batch)
        memory.append(process.memory_info().rss / 2**20)
        return line

    Learner.learn = watched  # type: ignore[method-assign]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        waves(days=40).to_zarr(folder / "data.zarr", consolidated=True)
        xatmorep.pretrain(
            xr.open_zarr(folder / "data.zarr", chunks=None),
            config(options.steps),
            folder / "run",
            validation=slice("2021-02-05", None),
            device="cpu",
            progress=False,
        )
        with (folder / "run" / "log.csv").open(newline="") as file:
            log = list(csv.DictReader(file))
    print("step  memory/MiB  waiting for data  neighborhoods/s")
    for line in log:
        step, share = int(line["step"]), float(line["data_wait_share"])
        speed = float(line["samples_per_second"])
        print(f"{step:4d}  {memory[step - 1]:10.1f}  {share:16.2%}  {speed:15.1f}")
    late = np.array(memory[FIRST:])
    slope = np.polyfit(np.arange(len(late)), late, 1)[0]
    print(
        f"after step {FIRST}: {late.min():.1f} to {late.max():.1f} MiB, trend "
        f"{100 * slope:+.2f} MiB in 100 steps, {options.threads} thread(s)"
    )
    if options.figure:
        draw(memory, options.figure)


def draw(memory: list[float], path: str) -> None:
    """Memory over steps."""
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(6, 3), layout="constrained")
    axes.plot(range(1, len(memory) + 1), memory)
    axes.set(xlabel="step", ylabel="resident memory / MiB", ylim=(0, None))
    figure.savefig(path, dpi=150)
    plt.close(figure)


if __name__ == "__main__":
    main()
