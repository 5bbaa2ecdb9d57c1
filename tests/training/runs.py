"""A tiny run of four fields' worth of waves, and what to compare of two runs.

As a program it trains like any user's: ``python -m tests.training.runs FOLDER RUN [WRITES]``, with
the name of one of the runs below. With a number of writes it kills itself, as kill -9 does, in the
middle of that write of a checkpoint.
"""

from __future__ import annotations

import csv
import os
import signal
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
import xarray as xr

import xatmorep
from tests.tasks import small
from xatmorep.model.checkpoint import Model

RUN: dict[str, Any] = {
    "name": "test-run",
    "description": "For tests.",
    "model": small.CONFIG,
    "steps": 6,
    "batch_size": 4,
    "crops_per_slab": 2,
    "validate_every": 3,
    "validation_batches": 2,
    "masking": {"rate": (0.3, 0.7)},
    "optimizer": {"learning_rate": 1e-3, "warmup_steps": 1},
}
VALIDATION = slice("2021-01-01T12", "2021-01-02")

LONG: dict[str, Any] = RUN | {
    "steps": 12,
    "checkpoint_every": 2,
    "ema": 0.9,
    "model": small.CONFIG.model_copy(update={"dropout": 0.1}),
}
"""A run with all that has a state."""

DISTILLATION: dict[str, Any] = {
    "n_local": 1,
    "prototypes": 16,
    "hidden": 16,
    "bottleneck": 8,
    "teacher_momentum": 0.9,
    "teacher_temperature": (0.04, 0.07),
}
TAUGHT: dict[str, Any] = LONG | {"distillation": DISTILLATION}
"""The same with self-distillation, which has more of it."""

WALL_CLOCK = {
    "seconds",
    "samples_per_second",
    "data_wait_share",
    "flops_per_second",
    "model_flops_utilization",
}
"""Columns of a log that two runs never share."""


def smooth(n_times: int = 8) -> xr.Dataset:
    """Waves that a network can learn."""
    ds = small.dataset(n_times)
    phase = np.deg2rad(ds["longitude"] * 2 + ds["latitude"])
    hours = xr.DataArray(np.arange(n_times), dims="time")
    wave = (phase + 0.3 * hours).pipe(np.sin).transpose("time", "latitude", "longitude")
    ds["2m_temperature"] = (280 + 10 * wave).astype("float32").assign_attrs(units="K")
    ds["temperature"] = (
        (250 + 5 * wave * (ds["level"] / 500))
        .astype("float32")
        .transpose("time", "level", "latitude", "longitude")
    )
    ds["temperature"].attrs = {"units": "K"}
    return ds


def train(out: Path, config: dict[str, Any] | None = None, **options: Any) -> Model:
    """Train without a word, with held-out times."""
    options = {"validation": VALIDATION, "progress": False} | options
    return xatmorep.pretrain(smooth(), RUN if config is None else config, out, **options)


def lines(path: Path) -> list[dict[str, str]]:
    with path.open() as file:
        return list(csv.DictReader(file))


def record(out: Path) -> dict[str, Any]:
    """All that has to be the same in two runs, to the last digit."""
    log = [
        {key: value for key, value in line.items() if key not in WALL_CLOCK}
        for line in lines(out / "log.csv")
    ]
    digests = {name: xatmorep.load(out / name).digest for name in ("best", "last")}
    return {"log": log, "ledger": lines(out / "ledger.csv"), **digests}


def die_in_write(number: int) -> None:
    """Kill this process in the middle of a write of a checkpoint."""
    from xatmorep.training import checkpoints

    write, writes = checkpoints._Hashing.write, []

    def half(self: Any, data: bytes) -> int:
        writes.append(1)
        if len(writes) < number:
            return write(self, data)
        write(self, bytes(data)[: len(data) // 2])
        self.flush()
        os.kill(os.getpid(), signal.SIGKILL)
        raise AssertionError

    checkpoints._Hashing.write = half  # type: ignore[method-assign]


if __name__ == "__main__":
    torch.set_num_threads(1)
    if len(sys.argv) > 3:
        die_in_write(int(sys.argv[3]))
    train(Path(sys.argv[1]), {"LONG": LONG, "TAUGHT": TAUGHT}[sys.argv[2]])
