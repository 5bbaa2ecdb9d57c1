"""The demonstration: everything that the accessor does, on the ERA5 sample, in a few minutes."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING

import xarray as xr

from xatmorep import plot
from xatmorep.data.catalog import open_dataset
from xatmorep.errors import require
from xatmorep.evaluation.card import score_table
from xatmorep.evaluation.scores import evaluate
from xatmorep.model.checkpoint import load
from xatmorep.output import new_path, write
from xatmorep.tasks.attention import attention
from xatmorep.tasks.embed import embed
from xatmorep.tasks.engine import DEFAULT_MODEL
from xatmorep.tasks.predict import predict

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["demo"]

RATE = 0.5
TRAINING = slice("2026-03-25", "2026-03-29")
HELD_OUT = slice("2026-03-30", "2026-03-31")
WHOLE_NEIGHBORHOODS = slice(90, -89)
"""Three neighborhoods of 60 rows; the row of the south pole would shift the last one inward."""

BASELINES = ("climatology", "persistence", "interpolation", "anomaly_interpolation")
"""Those that take seconds."""

CYCLONE = {"time": "2026-03-26T19", "latitude": -21, "longitude": 114}
"""Centre of severe tropical cyclone Narelle near Exmouth, as read from the sample."""


def demo(out: str | os.PathLike[str]) -> str:
    """Embed the ERA5 sample, predict hidden tokens, compute attention, draw maps, score.

    Parameters
    ----------
    out : str or path
        New folder for the results; it appears when everything is done.

    Returns
    -------
    str
        A table of what was made, and the scores on days that the model wasn't trained on.

    Raises
    ------
    ConfigError
        If `out` exists.
    MissingExtraError
        If matplotlib or the metric libraries aren't installed.
    """
    require("matplotlib", extra="plot")
    require("scores", extra="metrics")
    ds = open_dataset("era5-sample")
    held_out = ds.sel(time=HELD_OUT, latitude=WHOLE_NEIGHBORHOODS)
    model = load(DEFAULT_MODEL)
    with new_path(out) as folder:
        folder.mkdir()
        with _step("embedding all tokens"):
            embedding = embed(ds, model=model).compute()
            write(embedding, folder / "embedding.zarr")
        with _step("predicting hidden tokens of the held-out days"):
            predicted = predict(held_out, model=model, rate=RATE).compute()
            write(predicted, folder / "prediction.zarr")
        with _step("computing attention at one place"):
            weights = attention(ds, CYCLONE, model=model).compute()
            write(weights, folder / "attention.zarr")
        with _step("scoring against baselines"):
            scores = evaluate(
                model,
                held_out,
                climatology=ds.sel(time=TRAINING),
                rate=RATE,
                baselines=BASELINES,
            )
            write(scores, folder / "scores.nc")
        with _step("drawing maps"):
            _draw_predictions(held_out, predicted, folder)
            _save(plot.embedding(embedding["mean_sea_level_pressure"]), folder / "embedding.png")
            _draw_attention(weights, folder)
            _save(plot.scores(scores), folder / "scores.png")
            _save(plot.rank_histogram(scores), folder / "ranks.png")
            _save(plot.spectrum(scores), folder / "spectrum.png")
        made = _sizes(folder)
    return "\n".join([_made_table(made, Path(out)), "", score_table(scores)])


def _draw_predictions(ds: xr.Dataset, predicted: xr.Dataset, folder: Path) -> None:
    """What was hidden and predicted of each field, at the first time."""
    for name in [str(name) for name in predicted if not str(name).endswith("_hidden")]:
        arrays = (ds[name], predicted[name], predicted[f"{name}_hidden"])
        figure = plot.prediction(*(array.isel(time=0) for array in arrays))
        _save(figure, folder / f"prediction_{name}.png")


def _draw_attention(weights: xr.Dataset, folder: Path) -> None:
    """Where the pressure at one place looks, in its own field and in the winds."""
    for target in ("mean_sea_level_pressure", "10m_v_component_of_wind"):
        pair = f"mean_sea_level_pressure_to_{target}"
        _save(plot.attention(weights[pair]), folder / f"attention_to_{target}.png")


def _save(drawn: Figure | Axes, path: Path) -> None:
    """Write a picture and let go of it."""
    from matplotlib import pyplot as plt
    from matplotlib.figure import Figure

    figure = drawn if isinstance(drawn, Figure) else drawn.get_figure(root=True)
    assert figure is not None
    figure.savefig(path, dpi=120)
    plt.close(figure)


@contextmanager
def _step(what: str) -> Iterator[None]:
    """Say on standard error what is done, and how long it took."""
    print(f"{what} ... ", end="", file=sys.stderr, flush=True)
    start = perf_counter()
    yield
    print(f"{perf_counter() - start:.0f} s", file=sys.stderr, flush=True)


def _sizes(folder: Path) -> dict[str, int]:
    """Bytes of each result in a folder."""
    return {
        path.name: sum(file.stat().st_size for file in [path, *path.rglob("*")] if file.is_file())
        for path in sorted(folder.iterdir())
    }


def _made_table(made: dict[str, int], out: Path) -> str:
    width = max(len(name) for name in made)
    lines = [f"{name.ljust(width)}  {size / 1e6:6.1f} MB" for name, size in made.items()]
    return "\n".join([f"made in {out}:", *lines])
