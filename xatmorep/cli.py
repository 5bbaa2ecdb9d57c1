"""The command line: the same functions from a shell."""

from __future__ import annotations

import argparse
import importlib.metadata
import logging
import platform
import shlex
import sys
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import xarray as xr

import xatmorep
from xatmorep.accessor import DEFAULT_MODEL
from xatmorep.data.axes import locate_axes
from xatmorep.errors import ConfigError, XatmorepError, require
from xatmorep.output import check_new, check_result, new_path, write

__all__ = ["main"]

PACKAGES = (
    *("torch", "xarray", "xbatcher", "dask", "distributed", "intake", "zarr", "fsspec"),
    *("gcsfs", "cf_xarray", "numpy", "pandas", "pydantic", "safetensors", "scipy", "matplotlib"),
)
"""Packages whose versions a bug report should name."""

# It logs the traceback of an error that it raises as well; here that error becomes one line.
logging.getLogger("gcsfs").addHandler(logging.NullHandler())


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; results go to standard output, progress to standard error.

    Parameters
    ----------
    arguments : sequence of str, optional
        Words of the command line; those of the process if not given.

    Returns
    -------
    int
        0, or 1 after one line of error on standard error. Wrong usage ends the process with 2.

    Examples
    --------
    >>> main(["embed", "era5-smaple", "--out", "result.zarr"])
    1
    """
    options = _parser().parse_args(arguments)
    try:
        options.run(options)
    except (XatmorepError, OSError) as error:
        # Other exceptions are mistakes of ours: their traceback is wanted.
        print(f"xatmorep: {_one_line(error)}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("xatmorep: interrupted", file=sys.stderr)
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="xatmorep", description="Learned representations of the atmosphere for xarray."
    )
    parser.add_argument("--version", action="version", version=xatmorep.__version__)
    commands = parser.add_subparsers(required=True, metavar="command")

    def command(name: str, run: Callable[[Any], None], text: str) -> argparse.ArgumentParser:
        added = commands.add_parser(name, help=text, description=text)
        added.set_defaults(run=run)
        return added

    demo = command("demo", _demo, "embed, predict, attend and score on the ERA5 sample")
    demo.add_argument("--out", required=True, help="new folder for the results")

    command("models", _models, "list the models that come with the package")
    info = command("info", _info, "show a model and its card, or the published AtmoRep models")
    info.add_argument("model", help="name, folder or URL of a model; or atmorep")
    command("catalog", _catalog, "list the datasets of the catalog")
    command("show-versions", _show_versions, "list versions, for bug reports")

    embed = command("embed", _embed, "embed every token of a dataset")
    _add_data(embed)
    _add_model(embed)
    embed.add_argument("--fields", nargs="+", help="canonical names of the fields to embed")
    embed.add_argument("--layer", type=int, default=-1, help="0 embedding, 1..n encoder, -1 last")
    embed.add_argument("--pool", nargs="+", help="level, horizontal, time")
    embed.add_argument("--out", required=True, help="new .zarr or .nc")

    predict = command("predict", _predict, "hide random tokens of a dataset and predict them")
    _add_data(predict)
    _add_model(predict)
    _add_overlap(predict)
    predict.add_argument("--rate", type=float, default=0.5, help="share of tokens to hide")
    predict.add_argument("--seed", type=int, default=0, help="seed of the hidden tokens")
    predict.add_argument(
        "--where", choices=("hidden", "all"), default="hidden", help="where predictions are given"
    )
    predict.add_argument("--mean", action="store_true", help="the ensemble mean only")
    predict.add_argument("--out", required=True, help="new .zarr or .nc")

    forecast = command("forecast", _forecast, "predict what follows a time of a dataset")
    _add_data(forecast)
    _add_model(forecast)
    _add_overlap(forecast)
    forecast.add_argument("--lead-time", required=True, help="how far, with its unit: 3h")
    forecast.add_argument(
        "--init-time", nargs="+", help="times of the data to forecast from; else the last one"
    )
    forecast.add_argument("--mean", action="store_true", help="the ensemble mean only")
    forecast.add_argument("--out", required=True, help="new .zarr or .nc")

    attention = command("attention", _attention, "attention weights of the tokens at one place")
    _add_data(attention)
    _add_model(attention)
    attention.add_argument("--at-time", required=True, help="time of the place")
    attention.add_argument("--latitude", type=float, required=True, help="degrees north")
    attention.add_argument("--longitude", type=float, required=True, help="degrees east")
    attention.add_argument("--level", type=float, help="level, as in the data")
    attention.add_argument("--out", required=True, help="new .zarr or .nc")

    pretrain = command("pretrain", _pretrain, "pre-train a model, or go on with it")
    _add_data(pretrain)
    pretrain.add_argument("--config", required=True, help="YAML file")
    pretrain.add_argument("--validation", metavar="START/STOP", help="times to hold out")
    pretrain.add_argument("--device", help="torch device")
    pretrain.add_argument("--out", required=True, help="folder of the run, new or begun")

    evaluate = command("evaluate", _evaluate, "score a model against baselines")
    _add_data(evaluate)
    _add_model(evaluate)
    _add_overlap(evaluate)
    evaluate.add_argument(
        "--task", choices=("predict", "forecast"), default="predict", help="what is scored"
    )
    evaluate.add_argument(
        "--climatology",
        metavar="START/STOP",
        help="times whose mean is the climatology; without --climatology-data those of the data",
    )
    evaluate.add_argument(
        "--climatology-data", metavar="DATA", help="other data to take the climatology from"
    )
    evaluate.add_argument("--baselines", nargs="+", help="names; else all that can be had")
    evaluate.add_argument("--rate", type=float, help="share of tokens to hide, else 0.5")
    evaluate.add_argument("--lead-time", help="how far forecasts go, with its unit: 24h")
    evaluate.add_argument("--init-time", nargs="+", help="times to forecast from; else all")
    evaluate.add_argument("--init-step", help="time from one forecast to the next, instead: 24h")
    evaluate.add_argument("--block", help="length of the blocks that intervals draw, else 5D")
    evaluate.add_argument(
        "--seed", type=int, default=0, help="seed of the hidden tokens and the intervals"
    )
    evaluate.add_argument("--out", help="new .zarr or .nc for all scores")
    evaluate.add_argument(
        "--plot", metavar="PNG", help="new picture of the scores; two more are put beside it"
    )
    evaluate.add_argument(
        "--write-card", action="store_true", help="write the scores into the card of the model"
    )
    return parser


def _add_data(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("data", help="name in the catalog, path or URL")
    parser.add_argument("--time", metavar="START/STOP", help="times to use, both included")
    parser.add_argument(
        "--region",
        metavar="NORTH,WEST,SOUTH,EAST",
        help="degrees; write --region=-10,... if it begins with a minus",
    )


def _add_model(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--model", default=DEFAULT_MODEL, help="name, folder or URL")
    parser.add_argument("--device", help="torch device")
    parser.add_argument(
        "--batch-size", type=int, default=8, help="neighborhoods that the network sees at once"
    )


def _add_overlap(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--overlap",
        type=float,
        default=0.0,
        help="share of a neighborhood that the next one has in common with it: 0.5 is better",
    )


def _one_line(error: Exception) -> str:
    """Message of an error; its list of mistakes, if it has one, in the same line."""
    lines = [line.strip() for line in str(error).splitlines()]
    return "; ".join(lines).replace(":; ", ": ")


def _open(options: argparse.Namespace, span: str | None, data: str | None = None) -> xr.Dataset:
    """Open the data (or others) and cut them to a span of time and the region."""
    data = options.data if data is None else data
    entries = xatmorep.open_catalog().entries
    parameters: dict[str, Any] = {}
    # ARCO-ERA5 has 1.3 million hours, which are better cut before dask lists their chunks.
    if span and data in entries and "time" in entries[data].user_parameters:
        parameters["time"] = _span(span)
    ds = xatmorep.open_dataset(data, **parameters)
    return _select_region(_select_time(ds, span), options.region)


def _span(text: str) -> slice:
    start, separator, stop = text.partition("/")
    if not separator or not start or not stop:
        raise ConfigError(f"{text!r} is no span of time: write it as 2026-03-25/2026-03-29")
    return slice(start, stop)


def _axis(ds: xr.Dataset, axis: str) -> tuple[str, str]:
    """Names of the coordinate and the dimension of an axis."""
    for match in locate_axes(ds)[axis]:
        if match.dim is not None:
            return match.coord, match.dim
    raise ConfigError(f"the data have no dimension of {axis}, along which to select")


def _select_time(ds: xr.Dataset, span: str | None) -> xr.Dataset:
    if span is None:
        return ds
    labels = _span(span)
    coordinate, dim = _axis(ds, "time")
    times = ds[coordinate].to_index()
    try:
        selected = ds.isel({dim: times.slice_indexer(labels.start, labels.stop)})
    except (KeyError, TypeError, ValueError) as error:
        raise ConfigError(f"time {span} can't be selected: {error}") from error
    if not selected.sizes[dim]:
        ends = f"they reach from {times[0]} to {times[-1]}" if len(times) else "they have none"
        raise ConfigError(f"the data have no time in {span}: {ends}")
    return selected


def _select_region(ds: xr.Dataset, region: str | None) -> xr.Dataset:
    if region is None:
        return ds
    try:
        north, west, south, east = (float(part) for part in region.split(","))
    except ValueError as error:
        raise ConfigError(
            f"{region!r} is no region: write it as north,west,south,east, for example 60,-10,35,30"
        ) from error
    (latitude, row), (longitude, column) = _axis(ds, "latitude"), _axis(ds, "longitude")
    # Coordinates of grids such as 0.1 degree, or in float32, are not exactly the decimal number.
    near = 1e-4
    rows = (ds[latitude] <= north + near) & (ds[latitude] >= south - near)
    # A whole turn, such as -180 to 180, must not become nothing.
    width = east - west if east - west >= 360 else (east - west) % 360
    columns = (ds[longitude] - west + near) % 360 <= width + 2 * near
    if not rows.any() or not columns.any():
        raise ConfigError(f"the data have no point in the region {region} (north,west,south,east)")
    return ds.isel({row: rows.values, column: columns.values})


def _demo(options: argparse.Namespace) -> None:
    from xatmorep.demo import demo

    print(demo(options.out))


def _models(options: argparse.Namespace) -> None:
    table = xatmorep.models()
    print(table.drop(columns="fields").to_string(index=False))


def _info(options: argparse.Namespace) -> None:
    if options.model == "atmorep":
        from xatmorep.model.atmorep.published import how_to_fetch

        print(how_to_fetch())
        return
    model = xatmorep.load(options.model)
    print(model)
    print(f"digest: {model.digest}")
    print(model.card.model_dump_json(indent=2))


def _catalog(options: argparse.Namespace) -> None:
    catalog = xatmorep.open_catalog()
    for name in sorted(catalog):
        print(f"{name}: {catalog.entries[name].metadata.get('description', '')}")


def _show_versions(options: argparse.Namespace) -> None:
    print(f"python: {platform.python_version()} on {platform.platform()}")
    print(f"xatmorep: {xatmorep.__version__}")
    for package in PACKAGES:
        try:
            print(f"{package}: {importlib.metadata.version(package)}")
        except importlib.metadata.PackageNotFoundError:
            print(f"{package}: not installed")


def _embed(options: argparse.Namespace) -> None:
    check_result(options.out)
    result = _open(options, options.time).atmorep.embed(
        model=options.model,
        fields=options.fields,
        layer=options.layer,
        pool=options.pool,
        device=options.device,
        batch_size=options.batch_size,
    )
    _write(result, options.out)


def _predict(options: argparse.Namespace) -> None:
    check_result(options.out)
    result = _open(options, options.time).atmorep.predict(
        model=options.model,
        rate=options.rate,
        seed=options.seed,
        where=options.where,
        members=not options.mean,
        device=options.device,
        overlap=options.overlap,
        batch_size=options.batch_size,
    )
    _write(result, options.out)


def _forecast(options: argparse.Namespace) -> None:
    check_result(options.out)
    result = _open(options, options.time).atmorep.forecast(
        options.lead_time,
        init_times=options.init_time,
        model=options.model,
        members=not options.mean,
        device=options.device,
        overlap=options.overlap,
        batch_size=options.batch_size,
    )
    _write(result, options.out)


def _attention(options: argparse.Namespace) -> None:
    check_result(options.out)
    place = {
        "time": options.at_time,
        "latitude": options.latitude,
        "longitude": options.longitude,
    } | ({} if options.level is None else {"level": options.level})
    ds = _open(options, options.time)
    _write(ds.atmorep.attention(place, model=options.model, device=options.device), options.out)


def _write(result: xr.Dataset, out: str) -> None:
    with _progress():
        write(result, out)
    print(out)


def _progress() -> AbstractContextManager[Any]:
    """Show on a terminal how far dask is."""
    from dask.diagnostics import ProgressBar

    return ProgressBar(dt=1.0, out=sys.stderr) if sys.stderr.isatty() else nullcontext()


def _pretrain(options: argparse.Namespace) -> None:
    model = xatmorep.pretrain(
        _open(options, options.time),
        options.config,
        options.out,
        validation=None if options.validation is None else _span(options.validation),
        device=options.device,
    )
    print(model)


def _evaluate(options: argparse.Namespace) -> None:
    from xatmorep.evaluation.card import score_table, with_scores
    from xatmorep.model.registry import locate

    if options.out:
        check_result(options.out)
    pictures = _pictures(options.plot)
    model = xatmorep.load(options.model)
    span, data = options.climatology, options.climatology_data
    scores = xatmorep.evaluate(
        model,
        _open(options, options.time),
        task=options.task,
        climatology=_open(options, span, data) if span or data else None,
        baselines=options.baselines,
        rate=options.rate,
        lead_time=options.lead_time,
        init_times=options.init_time,
        init_step=options.init_step,
        block=options.block,
        seed=options.seed,
        device=options.device,
        overlap=options.overlap,
        batch_size=options.batch_size,
        progress=sys.stderr.isatty(),
    )
    if options.out:
        write(scores, options.out)
    if options.write_card:
        model.card = with_scores(model.card, scores, command=_repeat(options))
        model.save(locate(options.model))
    print(score_table(scores))
    _draw(scores, pictures)


def _pictures(plot: str | None) -> dict[str, Path]:
    """Where pictures of scores go; refused at once if there is something or matplotlib isn't."""
    if plot is None:
        return {}
    require("matplotlib", extra="plot")
    path = Path(plot)
    names = {"scores": "", "rank_histogram": "_ranks", "spectrum": "_spectrum"}
    paths = {name: path.with_stem(f"{path.stem}{ending}") for name, ending in names.items()}
    for target in paths.values():
        if target.suffix != ".png":
            raise ConfigError(f"{target} must end with .png")
        check_new(target)
    return paths


def _draw(scores: xr.Dataset, pictures: dict[str, Path]) -> None:
    for name, path in pictures.items():
        # There is nothing to compare without a baseline, and no spectrum of a region.
        if {"scores": "ratio"}.get(name, name) in scores:
            figure = getattr(xatmorep.plot, name)(scores)
            with new_path(path) as temporary:
                figure.savefig(temporary, dpi=120)
            print(path)


def _repeat(options: argparse.Namespace) -> str:
    """The command that gives the same scores again."""
    words = ["xatmorep", "evaluate", options.data, "--model", options.model]
    words += [f"--region={options.region}"] if options.region else []
    predicts = options.task == "predict"
    given = {
        "time": options.time,
        "task": None if predicts else options.task,
        "climatology": options.climatology,
        "climatology-data": options.climatology_data,
        "rate": f"{options.rate or 0.5:g}" if predicts else None,
        "lead-time": options.lead_time,
        "init-step": options.init_step,
        "block": options.block,
        "overlap": f"{options.overlap:g}" if options.overlap else None,
        "seed": str(options.seed),
    }
    for name, value in given.items():
        words += [f"--{name}", value] if value else []
    for name, values in {"baselines": options.baselines, "init-time": options.init_time}.items():
        words += [f"--{name}", *values] if values else []
    return shlex.join(words)
