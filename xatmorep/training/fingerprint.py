"""What identifies the data of a run."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence

import dask
import numpy as np
import xarray as xr

from xatmorep.training.card import iso
from xatmorep.training.data import TrainingData

__all__ = ["describe_data"]


def describe_data(data: TrainingData) -> dict[str, str]:
    """What a run has to find again to go on: shapes, times and places, and some of the values.

    Of each field the first, middle and last training frame is read: other data are noticed without
    reading them all.
    """
    times = [iso(time) for time in data.time.values]
    fields, statics = data.view.fields, data.view.statics
    places = {
        f"{name} {coord}": array[coord].values
        for name, array in fields.items()
        for coord in ("level", "latitude", "longitude")
    }
    positions = np.concatenate([np.arange(run.start, run.stop) for run in data.training])
    frames = positions[[0, len(positions) // 2, -1]]
    values = dask.compute(
        {name: array.isel(time=frames).variable for name, array in fields.items()},
        {name: array.variable for name, array in statics.items()},
    )
    held_out = [] if data.held_out is None else [data.held_out]
    return {
        **{name: _sizes(array) for name, array in {**fields, **statics}.items()},
        "times": f"{times[0]} to {times[-1]} ({_digest({'time': np.array(times)})})",
        "training": _spans(times, data.training),
        "validation": _spans(times, held_out) or "none",
        "places": _digest(places),
        "values": _digest({name: x.values for each in values for name, x in each.items()}),
    }


def _sizes(array: xr.DataArray) -> str:
    return " x ".join(f"{size} {dim}" for dim, size in array.sizes.items())


def _spans(times: Sequence[str], runs: Sequence[slice]) -> str:
    return ", ".join(f"{times[run.start]} to {times[run.stop - 1]}" for run in runs)


def _digest(arrays: Mapping[str, np.ndarray]) -> str:
    """The first digits of a digest of named arrays."""
    digest = hashlib.sha256()
    for name, array in sorted(arrays.items()):
        digest.update(f"{name} {array.shape} {array.dtype}".encode())
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()[:16]
