"""Train ``simulated-multi-small``: five fields on three levels of a simulated atmosphere.

The training set is made, not fetched (an environment of its own for the simulation, see
docs/how-to/simulate.md); the last 75 days of it are held out. Stopped at any moment, the same
command goes on:

    python examples/simulate_atmosphere.py train.zarr --months 38 --seed 0
    python examples/train_simulated_multi_small.py train.zarr

It is a demonstration on simulated, coarse data, not observations.
"""

from __future__ import annotations

import sys
from pathlib import Path

import xarray as xr

import xatmorep

if __name__ == "__main__":
    ds = xr.open_zarr(sys.argv[1]).sel(level=[0.2, 0.51, 0.835])
    xatmorep.pretrain(
        ds.drop_vars("total_precipitation").load(),
        Path(__file__).with_name("simulated_multi_small.yaml"),
        out="runs/simulated-multi-small",
        validation=slice("2003-12-01", "2004-02-15"),
    )
