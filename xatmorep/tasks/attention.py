"""Attention: where the encoder looks when it thinks about one place."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import dask.array as da
import numpy as np
import xarray as xr

from xatmorep.errors import ConfigError
from xatmorep.tasks.engine import DEFAULT_MODEL, Application, ModelLike, Options
from xatmorep.tasks.labels import Part, to_dataset
from xatmorep.tasks.places import nearest, nearest_level
from xatmorep.tasks.slab import Place, Slab, cut, network_input, normalize, visible
from xatmorep.tokens.tiling import AxisTiling, Box, Tiling, token_coordinates

if TYPE_CHECKING:
    from xatmorep.model.checkpoint import Model
    from xatmorep.model.config import ModelConfig

__all__ = ["attention"]

Query = Mapping[str, Any]
"""Coordinates of a place: time, latitude, longitude, and level where a field has several."""


@dataclass(frozen=True)
class _Located:
    """A query on the grid: its time, the neighborhood it is seen in, its token of each field."""

    time: int
    box: Box
    tokens: dict[str, int]


def attention(
    ds: xr.Dataset,
    query: Query | Sequence[Query],
    *,
    model: ModelLike = DEFAULT_MODEL,
    layer: int | None = -1,
    head: int | None = None,
    variables: Mapping[str, str] | None = None,
    device: str | None = None,
    batch_size: int = 8,
    dtype: str = "float32",
) -> xr.Dataset:
    """Give the attention weights of the tokens at one place, or at several.

    Parameters
    ----------
    ds : xarray.Dataset
        Any dataset with the fields that the model needs.
    query : mapping or sequence of mappings
        Coordinates as in `ds`: ``time``, ``latitude``, ``longitude`` and, if a field has several
        levels, ``level``. The nearest grid point counts.
    model : str, path or Model
        Name of a shipped model, address of a saved one, or a model.
    layer : int or None
        Encoder layer, 1 to n; -1 is the last; None gives all.
    head : int or None
        Head of the self-attention, from 0; None gives all. Heads of the cross-attention are all
        given in any case.
    variables : mapping of str to str, optional
        Canonical name of a field to name of the variable, where it isn't recognized.
    device : str, optional
        Torch device; CUDA where there is one, else the CPU.
    batch_size : int
        Has no effect here; queries are answered one by one.
    dtype : {"float32", "float64", "bfloat16", "float16"}
        Type in which the network computes.

    Returns
    -------
    xarray.Dataset
        For each field a float32 variable ``<field>_to_<field>`` (query, ..., layer, head, time,
        [level], latitude, longitude), and for each pair of coupled fields ``<from>_to_<to>``, the
        same with ``coupling_head`` for ``head``, on the tokens of ``<to>`` in the neighborhood of
        the query. Over these the weights of one query, layer and head sum to one. With queries in
        several neighborhoods, tokens outside of a query's own are NaN. Attention to contexts is
        left out. Lazy if `ds` is backed by dask.

    Raises
    ------
    ConventionError
        If the dataset lacks what the model needs, or has another grid or time step.
    ConfigError
        If a query lies outside of the data or lacks a coordinate, or an argument is impossible.

    Examples
    --------
    >>> import xatmorep
    >>> ds = xatmorep.open_dataset("era5-sample").isel(time=slice(0, 5))
    >>> place = {"time": "2026-03-25T07", "latitude": -18, "longitude": 119}
    >>> weights = xatmorep.attention(ds, place)["2m_temperature_to_mean_sea_level_pressure"]
    >>> weights.dims
    ('query', 'layer', 'coupling_head', 'time', 'latitude', 'longitude')
    """
    application = Application.of(ds, model, variables, Options(device, batch_size, dtype))
    application.refuse_dims(("query", "layer", "head", "coupling_head"))
    config = application.model.config
    layers = _selected("layer", layer, range(1, config.encoder.layers + 1))
    heads = _selected("head", head, range(config.encoder.heads))
    queries = [query] if isinstance(query, Mapping) else list(query)
    if not queries:
        raise ConfigError("no query was given")
    located = [_locate(application, place) for place in queries]
    answers = [_answer(application, place) for place in located]
    parts = []
    for origin, target in answers[0]:
        pair = [answer[origin, target] for answer in answers]
        weights = xr.concat(pair, "query", join="outer", coords="minimal", compat="override")
        # An outer join sorts coordinates upwards.
        weights = weights.sortby("latitude", ascending=False).sel(layer=layers)
        if origin == target:
            weights = weights.sel(head=heads)
        weights = weights.assign_coords(_query_coordinates(application, queries, located))
        names = application.view.variables
        weights.attrs = {
            "long_name": f"attention of {names[origin]} to {names[target]}",
            "units": "1",
        }
        parts.append(Part(target, f"{names[origin]}_to_{names[target]}", weights))
    return to_dataset(application, parts, task="attention", layer=layer, head=head)


def _selected(name: str, wanted: int | None, known: range) -> list[int]:
    """Layers or heads that were asked for; negative numbers count from the last."""
    if wanted is None:
        return list(known)
    number = known.stop + wanted if wanted < 0 else wanted
    if number not in known:
        raise ConfigError(f"{name} {wanted} doesn't exist: there are {known[0]} to {known[-1]}")
    return [number]


def _locate(application: Application, query: Query) -> _Located:
    """Neighborhood of a query, and the token of each field that holds it."""
    view, tiling, spec = application.view, application.tiling, application.model.config.inputs
    missing = {"time", "latitude", "longitude"} - set(query)
    unknown = set(query) - {"time", "latitude", "longitude", "level"}
    if missing or unknown:
        raise ConfigError(
            f"a query has time, latitude, longitude and perhaps level: {dict(query)} "
            + (f"lacks {sorted(missing)}" if missing else f"has unknown {sorted(unknown)}")
        )
    points = {axis: nearest(view, axis, query[axis]) for axis in ("time", "latitude", "longitude")}
    axes = {"time": tiling.time, "latitude": tiling.latitude, "longitude": tiling.longitude}
    # Of two neighborhoods that hold a point the first one sees it, as for embeddings.
    numbers = {axis: min(points[axis] // axes[axis].box, len(axes[axis]) - 1) for axis in axes}
    slices = {axis: axes[axis].points(number) for axis, number in numbers.items()}
    tokens = {}
    for field in spec.fields:
        place = [
            (points[axis] - slices[axis].start) // size
            for axis, size in zip(axes, field.token_shape, strict=True)
        ]
        level = 0
        if field.n_levels > 1:
            if "level" not in query:
                raise ConfigError(
                    f"{field.name} has several levels: the query needs one, level={field.levels[0]}"
                )
            level = nearest_level(view, field.name, query["level"])
        grid = (field.n_levels, *spec.token_grid(field.name))
        tokens[field.name] = int(np.ravel_multi_index((level, *place), grid))
    return _Located(points["time"], Box(**numbers, slices=slices), tokens)


def _answer(application: Application, located: _Located) -> dict[tuple[str, str], xr.DataArray]:
    """Weights (layer, head, time, level, latitude, longitude) of one query for each pair."""
    config, view = application.model.config, application.view
    index = located.box.time
    result = application.delayed(
        _attend, application.slab(index), located, application.arrays(index), application.statics
    )
    inside = Tiling(*(AxisTiling.cut(size, size) for size in config.inputs.neighborhood.shape))
    answers = {}
    for origin, target in _pairs(config):
        own = origin == target
        head = "head" if own else "coupling_head"
        heads = config.encoder.heads if own else config.encoder.coupling_heads
        grid = (config.inputs.field(target).n_levels, *config.inputs.token_grid(target))
        shape = (application.n_samples, config.encoder.layers, heads, math.prod(grid))
        weights = da.from_delayed(
            result[origin, target], shape, meta=np.empty((0,) * 4, "float32")
        ).reshape(*application.sample_shape, *shape[1:3], *grid)
        labels = view.fields[target].isel(located.box.slices).coords
        coords = token_coordinates(inside, config.inputs, target, labels)
        array = xr.DataArray(
            weights,
            dims=(*view.extra_dims, "layer", head, "level", "time", "latitude", "longitude"),
            coords={
                **{axis: coords[axis] for axis in ("time", "level", "latitude", "longitude")},
                **{dim: labels[dim] for dim in view.extra_dims if dim in labels},
                "layer": np.arange(1, config.encoder.layers + 1),
                head: np.arange(heads),
            },
        )
        answers[origin, target] = array.transpose(..., "time", "level", "latitude", "longitude")
    return answers


def _pairs(config: ModelConfig) -> list[tuple[str, str]]:
    """Each field with itself and with the fields, not contexts, that it is coupled to."""
    fields = {field.name for field in config.inputs.fields}
    return [
        (origin, target)
        for origin, network in config.networks.items()
        for target in (origin, *network.coupled)
        if {origin, target} <= fields
    ]


def _attend(
    model: Model,
    slab: Slab,
    located: _Located,
    arrays: Mapping[str, np.ndarray],
    statics: Mapping[str, np.ndarray],
) -> dict[tuple[str, str], np.ndarray]:
    """Body of a dask task: weights of one query for every sample."""
    import torch

    network = model.network
    n_samples = next(iter(arrays.values())).shape[0]
    arrays, statics = normalize(model.normalizer, slab, arrays, statics)
    places = [Place(sample, located.box) for sample in range(n_samples)]
    batch = cut(slab, places, arrays, statics, visible(slab, arrays, {}))
    inputs, _ = network_input(network, batch, {}, {})
    device = next(network.parameters()).device
    rows = {
        name: torch.full((n_samples,), token, device=device)
        for name, token in located.tokens.items()
    }
    with torch.inference_mode():
        weights = network.attention(inputs, rows)
    return {pair: tensor.float().cpu().numpy() for pair, tensor in weights.items()}


def _query_coordinates(
    application: Application, queries: Sequence[Query], located: Sequence[_Located]
) -> dict[str, xr.DataArray]:
    """What was asked, as coordinates of the dimension ``query``."""
    axes = [
        axis
        for axis in ("time", "latitude", "longitude", "level")
        if all(axis in query for query in queries)
    ]
    coords = {}
    for axis in axes:
        values = np.asarray([query[axis] for query in queries])
        if axis == "time":
            times = next(iter(application.view.fields.values()))["time"].values
            values = times[[place.time for place in located]]
        coords[f"query_{axis}"] = xr.DataArray(values, dims="query")
    return coords
