"""What the comparisons in this folder share: a small network, its data, its runs, their scores.

A run is one of `xatmorep.pretrain` in a folder of its own, and its scores lie beside it: whatever
was stopped goes on from there. Everything is simulated and coarse, and shows how things compare,
not how good they can be.
"""

from __future__ import annotations

import copy
import csv
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import xarray as xr
import yaml

import xatmorep

RECIPE = Path(__file__).parents[1] / "examples/simulated_multi_small.yaml"
FIELDS = ("vorticity", "temperature")
HELD_OUT_DAYS = 60
"""Days at the end of the data that training doesn't see."""
RATE = 0.5
"""Share of the tokens that is hidden, in training and scores."""
METRICS = ("rmse", "mae", "crps", "spread_skill_ratio")
PLAIN = "spread_skill_ratio"
"""The metric that has no units."""


class Split(NamedTuple):
    """Data to train with, and to score with."""

    everything: xr.Dataset
    validation: slice
    training: xr.Dataset
    tests: list[xr.Dataset]


def changed(config: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """A configuration with other values at some dotted places."""
    result = copy.deepcopy(dict(config))
    for place, value in changes.items():
        *outer, key = place.split(".")
        inner = result
        for name in outer:
            inner = inner.setdefault(name, {})
        inner[key] = value
    return result


def small(steps: int, *, width: int = 64, seed: int = 0) -> dict[str, Any]:
    """The recipe in small: two fields, two days, an eighth of the globe, half of it hidden."""
    recipe = yaml.safe_load(RECIPE.read_text())
    heads = {"heads": 8, "qk_norm": "affine"}
    return changed(
        recipe,
        {
            "name": "small",
            "command": "",
            "model.inputs.neighborhood.shape": [8, 16, 16],
            "model.inputs.fields": [
                field for field in recipe["model"]["inputs"]["fields"] if field["name"] in FIELDS
            ],
            "model.networks": {
                name: {"width": width, "coupled": [other for other in FIELDS if other != name]}
                for name in FIELDS
            },
            "model.encoder": {"layers": 2, "coupling_heads": 1, "locality": 5.0, **heads},
            "model.decoder": {"layers": 1, **heads},
            "masking.strategies": {"random": 1.0},
            "masking.rate": [RATE, RATE],
            "optimizer.learning_rate": 0.004,
            "optimizer.warmup_steps": steps // 10,
            "ema": 0.98,
            "precision": "float32",
            "steps": steps,
            "batch_size": 8,
            "crops_per_slab": 4,
            "validate_every": max(1, steps // 20),
            "validation_batches": 8,
            "checkpoint_every": max(1, steps // 20),
            "seed": seed,
        },
    )


def open_store(path: str, also: Sequence[str] = ()) -> xr.Dataset:
    """The variables and levels of a simulation that the network reads, in memory.

    Parameters
    ----------
    path : str
        Store that ``examples/simulate_atmosphere.py`` made.
    also : sequence of str
        Further variables.

    Raises
    ------
    SystemExit
        If the store isn't there, or lacks a variable or a level.
    """
    inputs = small(1)["model"]["inputs"]
    levels = sorted({level for field in inputs["fields"] for level in field["levels"]})
    names = [entry["name"] for entry in (*inputs["fields"], *inputs["statics"])] + [*also]
    try:
        ds = xr.open_zarr(path)
    except (FileNotFoundError, KeyError) as error:
        raise SystemExit(
            f"error: no zarr store at {path}: make one with examples/simulate_atmosphere.py"
        ) from error
    if missing := [name for name in names if name not in ds]:
        raise SystemExit(f"error: {path} has no {', '.join(missing)}; it has {', '.join(ds)}")
    try:
        return ds[names].sel(level=levels).load()
    except KeyError as error:
        raise SystemExit(
            f"error: {path} lacks some of the levels {levels}; it has {ds['level'].values.tolist()}"
        ) from error


def split(everything: xr.Dataset, tests: Sequence[xr.Dataset], days: int) -> Split:
    """The last days are held out; they are scored, too, if there are no tests.

    Raises
    ------
    SystemExit
        If the data are too short to hold anything out.
    """
    time = everything["time"].values
    first = time[-1] - np.timedelta64(24 * HELD_OUT_DAYS, "h")
    if first <= time[0] + np.timedelta64(24 * HELD_OUT_DAYS, "h"):
        raise SystemExit(
            f"error: the data reach from {time[0]} to {time[-1]}: {HELD_OUT_DAYS} days are held "
            "out, and at least as many must be left to train with"
        )
    validation = slice(first, None)
    tests = tests or [everything.sel(time=validation)]
    return Split(
        everything,
        validation,
        everything.sel(time=time[time < first]),
        [test.isel(time=slice(0, 4 * days)) for test in tests],
    )


def log_of(folder: Path) -> list[dict[str, float]]:
    """Lines of the log of a run."""
    with (folder / "log.csv").open(newline="") as file:
        return [{key: float(value) for key, value in line.items()} for line in csv.DictReader(file)]


def curve(folder: Path) -> tuple[list[float], list[float]]:
    """Steps, and RMSE of held-out days in normalized units, mean over the fields."""
    log = log_of(folder)
    errors = [np.mean([line[f"rmse_{name}"] for name in FIELDS]) for line in log]
    return [line["step"] for line in log], errors


def speed(folder: Path) -> float:
    """Neighborhoods in a second, in the fastest part of a run: other work slows down the others."""
    return float(max(line["samples_per_second"] for line in log_of(folder)))


def kept(path: Path, asked: Mapping[str, Any], make: Callable[[], Any]) -> Any:
    """What a file holds, if it answers the same question; else what is made now, and kept."""
    if path.exists():
        known = json.loads(path.read_text())
        if known["asked"] == asked:
            return known["found"]
    found = make()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"asked": asked, "found": found}, indent=2))
    return found


def usual_scores(
    model: xatmorep.Model, climatology: xr.Dataset, tests: Sequence[xr.Dataset], path: Path
) -> dict[str, Any]:
    """Standard deviation of anomalies, and scores of the climatology; kept in a file.

    Parameters
    ----------
    model : Model
        Any that reads and predicts these fields: what is hidden doesn't depend on its weights.
    climatology : Dataset
        Data of which the climatology is the mean.
    tests : sequence of Dataset
        Data to score.
    path : Path
        The file.

    Returns
    -------
    dict
        ``"deviation"``, by field a list with the value of each level; and ``"scores"``, by metric.
    """

    def make() -> dict[str, Any]:
        parts = [
            xatmorep.evaluate(
                model,
                test,
                climatology=climatology,
                baselines=["climatology"],
                rate=RATE,
                resamples=1,
            )
            for test in tests
        ]
        std = parts[0]["anomaly_std"].sel(field=[*FIELDS])
        deviation = dict(zip(FIELDS, std.values.tolist(), strict=True))
        return {"deviation": deviation, "scores": _means(parts, deviation, "climatology")}

    found: dict[str, Any] = kept(path, _fingerprint([climatology, *tests]), make)
    return found


def score(
    model: xatmorep.Model,
    deviation: Mapping[str, Sequence[float]],
    tests: Sequence[xr.Dataset],
    folder: Path,
) -> dict[str, float]:
    """Scores of a model by metric, kept in the folder of its run.

    They are means over tests, fields and levels, in units of the standard deviation of anomalies;
    the ratio of spread and skill has no units.
    """

    def make() -> dict[str, float]:
        parts = [
            xatmorep.evaluate(model, test, baselines=[], rate=RATE, resamples=1) for test in tests
        ]
        return _means(parts, deviation, "model")

    asked = {"model": model.digest, "deviation": deviation, **_fingerprint(tests)}
    found: dict[str, float] = kept(folder / "scores.json", asked, make)
    return found


def _fingerprint(datasets: Sequence[xr.Dataset]) -> dict[str, Any]:
    """What tells other data and another question."""
    return {
        "rate": RATE,
        "starts": [str(ds["time"].values[0]) for ds in datasets],
        "times": [ds.sizes["time"] for ds in datasets],
        "sums": [float(ds[FIELDS[0]].astype("float64").sum()) for ds in datasets],
    }


def _means(
    parts: Sequence[xr.Dataset], deviation: Mapping[str, Sequence[float]], forecaster: str
) -> dict[str, float]:
    """Means over tests, fields and levels."""
    found = {}
    for metric in METRICS:
        values = [
            part["score"].sel(forecaster=forecaster, metric=metric, field=[*FIELDS]).values
            / (1.0 if metric == PLAIN else np.array([deviation[name] for name in FIELDS]))
            for part in parts
        ]
        found[metric] = float(np.mean(values))
    return found


def write_table(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Rows as a CSV file; a key that a row lacks is an empty cell."""
    names = list({name: None for row in rows for name in row})
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=names)
        writer.writeheader()
        writer.writerows(rows)


def markdown(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table as it stands in a page of documentation."""

    def lines() -> Iterator[str]:
        yield "| " + " | ".join(head) + " |"
        yield "|---" * len(head) + "|"
        for row in rows:
            yield "| " + " | ".join(row) + " |"

    return "\n".join(lines())


def versions() -> str:
    """Versions that the numbers depend on."""
    import torch

    return f"xatmorep {xatmorep.__version__}, torch {torch.__version__}, numpy {np.__version__}"
