"""Run the published model of vorticity at full size, with random weights: time and memory.

    python benchmarks/atmorep_full_size.py [--layers 10] [--width 2048]

Writes weights in the published layout (2.8 GB), and a piece of a store in the layout of the catalog
entry ``era5-arco-model-levels`` as large as one neighborhood, into a temporary folder; loads one,
opens the other, fits the normalization, and makes embeddings and a forecast of 3 h. Times are wall
clock on this machine; memory is the largest resident set of a process that does nothing else.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

LEVELS = (96, 105, 114, 123, 137)
HOURS = 36


def settings(layers: int, width: int) -> dict[str, Any]:
    """Configuration of the published model of vorticity of 2023."""
    network = [1, width, [], 0]
    rates = [0.25, 0.9, 0.1, 0.05]
    return {
        "fields": [["vorticity", network, list(LEVELS), [12, 6, 12], [3, 9, 9], rates]],
        "file_shape": [-1, 721, 1440],
        "encoder_num_layers": layers,
        "encoder_num_heads": 16,
        "decoder_num_layers": layers,
        "decoder_num_heads": 16,
        "net_tail_num_nets": 16,
    }


def write_store(path: Path) -> None:
    """36 hours of a region, as ARCO-ERA5's model levels are laid out: all of 137 levels."""
    generator = np.random.default_rng(0)
    values = np.full((HOURS, 137, 54, 108), np.nan, "f4")
    values[:, [level - 1 for level in LEVELS]] = 1e-5 * generator.standard_normal(
        (HOURS, len(LEVELS), 54, 108), dtype="f4"
    )
    ds = xr.Dataset(
        {"vorticity": (("time", "hybrid", "latitude", "longitude"), values, {"units": "s-1"})},
        {
            "time": np.datetime64("2021-01-01", "s") + np.arange(HOURS) * np.timedelta64(3600, "s"),
            "hybrid": np.arange(1, 138, dtype="f4"),
            "latitude": np.arange(54, dtype="f4") * -0.25 + 60,
            "longitude": np.arange(108, dtype="f4") * 0.25,
        },
    )
    chunks = {"vorticity": {"chunks": (1, 18, 54, 108)}}
    ds.to_zarr(path, encoding=chunks, zarr_format=2, consolidated=True)


def measured(what: str, function: Callable[[], Any]) -> Any:
    """Result of a function, with the time that it took on standard error."""
    start = time.perf_counter()
    result = function()
    print(f"{what}: {time.perf_counter() - start:.1f} s", file=sys.stderr, flush=True)
    TIMES[what] = round(time.perf_counter() - start, 1)
    return result


TIMES: dict[str, float] = {}


def apply(folder: Path, store: Path) -> dict[str, Any]:
    """Load, open, embed, forecast; times in s and the largest resident set in GB."""
    import xatmorep

    ds = measured("open", lambda: xr.open_zarr(store))
    model = measured("load", lambda: xatmorep.load_atmorep(folder, normalization=ds))
    embedding = measured("embed", lambda: xatmorep.embed(ds, model=model).compute())
    forecast = measured(
        "forecast",
        lambda: xatmorep.forecast(ds.isel(time=slice(0, 33)), "3h", model=model).compute(),
    )
    assert embedding["vorticity"].shape == (12, 5, 6, 12, model.config.networks["vorticity"].width)
    assert forecast["vorticity"].shape == (16, 1, 3, 5, 54, 108)
    assert all(np.isfinite(result["vorticity"]).all() for result in (embedding, forecast))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    return {"parameters": model.parameters, "seconds": TIMES, "peak_memory_GB": round(peak, 2)}


def main() -> None:
    """Write the files, and measure in a process of its own."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--layers", type=int, default=10, help="of encoder and decoder")
    parser.add_argument("--width", type=int, default=2048, help="of the embedding")
    parser.add_argument("--apply", nargs=2, type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.apply:
        print(json.dumps(apply(*options.apply)))
        return
    from xatmorep.testing import write_atmorep

    with tempfile.TemporaryDirectory() as name:
        folder, store = Path(name) / "id", Path(name) / "store.zarr"
        write_atmorep(folder, settings(options.layers, options.width), per_head=True)
        write_store(store)
        command = [sys.executable, __file__, "--apply", str(folder), str(store)]
        result = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    print(result.stdout.strip())


if __name__ == "__main__":
    main()
