"""Kill a pre-training with kill -9 at random instants, repeat the command, and compare the end.

The run is that of the command line, on waves that are made here, with all that has a state:
dropout, a moving average of the weights, a teacher, a warm-up, validations. At the end log, ledger
and weights must be those of a run that nobody disturbed, to the last digit; and the ledger must
show each sample once. Run it from anywhere with the package installed:

    python benchmarks/kill_and_resume.py --kills 50
"""

from __future__ import annotations

import argparse
import collections
import csv
import os
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import xarray as xr
import yaml

import xatmorep

FIELDS = ("2m_temperature", "mean_sea_level_pressure")
WALL_CLOCK = ("seconds", "samples_per_second", "data_wait_share", "flops_per_second")
VALIDATION = "2021-01-09/2021-01-10"
CONFIG = {
    "name": "killed",
    "model": {
        "inputs": {
            "neighborhood": {"shape": [2, 12, 24], "time_step": 6, "grid_step": [5, 5]},
            "fields": [
                {"name": FIELDS[0], "units": "K", "token_shape": [1, 4, 6]},
                {"name": FIELDS[1], "units": "Pa", "token_shape": [2, 6, 6]},
            ],
        },
        "networks": {name: {"width": 32, "coupled": [FIELDS[0] if i else FIELDS[1]]}
                     for i, name in enumerate(FIELDS)},
        "encoder": {"layers": 3, "heads": 4},
        "decoder": {"layers": 2, "heads": 4},
        "tail": {"members": 4},
        "dropout": 0.1,
    },
    "distillation": {"n_local": 1, "prototypes": 16, "hidden": 16, "bottleneck": 8},
    "optimizer": {"warmup_steps": 20},
    "batch_size": 4,
    "crops_per_slab": 2,
    "validate_every": 20,
    "validation_batches": 2,
    "checkpoint_every": 3,
    "ema": 0.99,
}  # fmt: skip


def waves() -> xr.Dataset:
    """Ten days of waves on a global grid of 5 degrees."""
    time = np.datetime64("2021-01-01", "s") + 6 * np.timedelta64(3600, "s") * np.arange(40)
    ds = xr.Dataset(
        coords={
            "time": time,
            "latitude": ("latitude", 87.5 - 5.0 * np.arange(36), {"units": "degrees_north"}),
            "longitude": ("longitude", 5.0 * np.arange(72), {"units": "degrees_east"}),
        }
    )
    phase = np.deg2rad(2 * ds["longitude"] + ds["latitude"]) + 0.3 * xr.DataArray(
        np.arange(40.0), dims="time"
    )
    for name, units, size in zip(FIELDS, ("K", "Pa"), (10, 1000), strict=True):
        wave = (size * np.sin(phase)).transpose("time", "latitude", "longitude")
        ds[name] = wave.astype("float32").assign_attrs(units=units)
    return ds


def start(folder: Path, out: Path) -> subprocess.Popen[bytes]:
    """The command, always the same."""
    command = [sys.executable, "-m", "xatmorep", "pretrain", "data.zarr", "--config", "run.yaml"]
    command += ["--validation", VALIDATION, "--device", "cpu", "--out", str(out)]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    with (folder / "errors.txt").open("ab") as errors:
        return subprocess.Popen(
            command, cwd=folder, env=environment, stdout=subprocess.DEVNULL, stderr=errors
        )


def lines(path: Path) -> list[dict[str, str]]:
    """Lines of a CSV file; none if it isn't there."""
    if not path.exists():
        return []
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def record(out: Path) -> dict[str, object]:
    """All that must be equal."""
    log = [{k: v for k, v in x.items() if k not in WALL_CLOCK} for x in lines(out / "log.csv")]
    digests = {name: xatmorep.load(out / name).digest for name in ("best", "last")}
    return {"log": log, "ledger": lines(out / "ledger.csv"), **digests}


def slabs(out: Path) -> list[int]:
    """All samples that the ledger names."""
    return [
        number
        for line in lines(out / "ledger.csv")
        for number in range(int(line["first_slab"]), int(line["last_slab"]) + 1)
    ]


def kill(process: subprocess.Popen[bytes], out: Path, span: float, draw: random.Random) -> str:
    """Kill at a random instant; says what it was doing, or ``"finished"``."""
    before = (out / "ledger.csv").stat().st_size if (out / "ledger.csv").exists() else 0
    old = unfinished(out)
    if draw.random() < 0.2:  # while it starts
        wait(process, draw.uniform(0, 6))
    else:
        while process.poll() is None and not _changed(out / "ledger.csv", before):
            time.sleep(0.01)
        wait(process, draw.uniform(0, span))
    if process.poll() is not None:
        if process.returncode:
            raise SystemExit(f"the command failed with {process.returncode}: see errors.txt")
        return "finished"
    process.kill()
    process.wait()
    if not _changed(out / "ledger.csv", before):
        return "starting"
    new = {path.parent.name for path in unfinished(out) - old}
    if not new:
        return "training"
    return "writing a checkpoint" if "checkpoints" in new else "writing a model"


def unfinished(out: Path) -> set[Path]:
    """Files and folders that were not completed."""
    return {*out.glob(".*.tmp*"), *(out / "checkpoints").glob(".*.tmp")}


def _changed(path: Path, before: int) -> bool:
    return path.exists() and path.stat().st_size != before


def wait(process: subprocess.Popen[bytes], seconds: float) -> None:
    """Sleep, but not beyond the end of the process."""
    end = time.monotonic() + seconds
    while process.poll() is None and time.monotonic() < end:
        time.sleep(0.002)


def main() -> None:
    """Compare, and print the counts."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    draw = random.Random(options.seed)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        waves().to_zarr(folder / "data.zarr", consolidated=True)
        (folder / "run.yaml").write_text(yaml.safe_dump(CONFIG | {"steps": options.steps}))
        began = time.monotonic()
        if start(folder, folder / "whole").wait():
            raise SystemExit((folder / "errors.txt").read_text())
        whole = record(folder / "whole")
        seconds = float(lines(folder / "whole" / "log.csv")[-1]["seconds"])
        print(f"undisturbed: {options.steps} steps in {seconds:.0f} s of training")

        kills, runs, equal = collections.Counter[str](), 0, 0
        span = max(0.5, 2 * seconds / options.kills)
        while kills.total() < options.kills:
            runs += 1
            out = folder / f"run-{runs}"
            while True:
                process = start(folder, out)
                if kills.total() == options.kills:
                    process.wait()
                    break
                what = kill(process, out, span, draw)
                if what == "finished":
                    break
                kills[what] += 1
                print(f"kill {kills.total()}: {what}, {len(lines(out / 'ledger.csv'))} steps")
            found = record(out)
            different = [key for key in whole if found[key] != whole[key]]
            once = slabs(out) == list(range(2 * options.steps))
            equal += not different and once
            print(f"run {runs}: different: {different or 'nothing'}; each sample once: {once}")
        print(
            f"{kills.total()} kills ({dict(kills)}) in {runs} run(s), of which {equal} ended equal"
        )
        print(f"{time.monotonic() - began:.0f} s")
    if equal != runs:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
