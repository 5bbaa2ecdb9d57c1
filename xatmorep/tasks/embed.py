"""Embeddings: what the encoder knows about each token."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import xarray as xr

from xatmorep.errors import ConfigError
from xatmorep.strict import closest
from xatmorep.tasks.engine import DEFAULT_MODEL, Application, ModelLike, Options
from xatmorep.tasks.labels import Part, on_tokens, to_dataset
from xatmorep.tasks.slab import Answers, Key, Output, Task
from xatmorep.tokens.batch import TokenBatch
from xatmorep.tokens.spec import InputSpec

if TYPE_CHECKING:
    import torch

    from xatmorep.model.config import ModelConfig
    from xatmorep.model.inputs import NetworkInput
    from xatmorep.model.multiformer import Multiformer

__all__ = ["embed"]

POOLED = {"level": ("level",), "horizontal": ("latitude", "longitude"), "time": ("time",)}
"""Dimensions that each kind of pooling averages over."""


@dataclass(frozen=True)
class Embed(Task):
    """Features of every token after one encoder layer; nothing is hidden."""

    widths: Mapping[str, int]
    layer: int

    def outputs(self, spec: InputSpec) -> dict[Key, Output]:
        """One feature vector for each token."""
        return {
            (name, "features"): Output("tokens", lead={}, trail={"feature": width})
            for name, width in self.widths.items()
        }

    def evaluate(
        self,
        network: Multiformer,
        batch: TokenBatch,
        inputs: NetworkInput,
        hidden: Mapping[str, torch.Tensor],
    ) -> Answers:
        """Features of one layer."""
        layers = network.encode(inputs)
        answers: Answers = {}
        for name in self.widths:
            grid = inputs.blank[name].shape[1:]
            answers[name, "features"] = layers[name][self.layer].unflatten(1, grid), None
        return answers


def embed(
    ds: xr.Dataset,
    *,
    model: ModelLike = DEFAULT_MODEL,
    fields: str | Sequence[str] | None = None,
    layer: int = -1,
    pool: str | Sequence[str] | None = None,
    variables: Mapping[str, str] | None = None,
    device: str | None = None,
    batch_size: int = 8,
    dtype: str = "float32",
) -> xr.Dataset:
    """Embed every token of a dataset.

    Parameters
    ----------
    ds : xarray.Dataset
        Any dataset with the fields that the model needs.
    model : str, path or Model
        Name of a shipped model, address of a saved one, or a model.
    fields : str or sequence of str, optional
        Canonical names of the fields whose embeddings are wanted; all if not given. The network
        reads all fields in any case. Contexts have none: those of neighborhoods side by side
        overlap.
    layer : int
        0 is the embedding network, 1 to n are the encoder layers, -1 is the last.
    pool : str or sequence of str, optional
        Dimensions to average over: ``"level"``, ``"horizontal"`` (weighted by area), ``"time"``.
    variables : mapping of str to str, optional
        Canonical name of a field to name of the variable, where it isn't recognized.
    device : str, optional
        Torch device; CUDA where there is one, else the CPU.
    batch_size : int
        Neighborhoods that the network sees at once.
    dtype : {"float32", "float64", "bfloat16", "float16"}
        Type in which the network computes.

    Returns
    -------
    xarray.Dataset
        For each field a float32 variable (..., time, [level], latitude, longitude, feature) on
        the grid of tokens, under the name that it has in `ds`. Coordinates are token centers;
        their bounds give the extent of each token. Lazy if `ds` is backed by dask.

    Raises
    ------
    ConventionError
        If the dataset lacks what the model needs, or has another grid or time step.
    ConfigError
        If an argument is impossible.

    Examples
    --------
    >>> import xatmorep
    >>> ds = xatmorep.open_dataset("era5-sample").isel(time=slice(0, 5))
    >>> embedding = xatmorep.embed(ds, fields=["2m_temperature"])
    >>> embedding["2m_temperature"].dims
    ('time', 'latitude', 'longitude', 'feature')
    """
    application = Application.of(ds, model, variables, Options(device, batch_size, dtype))
    config = application.model.config
    chosen = _chosen(config, fields)
    if not -config.encoder.layers - 1 <= layer <= config.encoder.layers:
        raise ConfigError(
            f"layer {layer} doesn't exist: 0 is the embedding network, 1 to "
            f"{config.encoder.layers} are the encoder layers, -1 is the last"
        )
    dims = _pooled_dims(pool)
    task = Embed({name: config.networks[name].width for name in chosen}, layer)
    parts = []
    for (name, _), features in application.run(task).items():
        labelled, bounds = on_tokens(application, name, features)
        labelled = _pool(labelled, bounds, dims)
        # A feature is not the quantity itself: it has neither its standard name nor its units.
        labelled.attrs = {"long_name": f"embedding of {name.replace('_', ' ')}", "units": "1"}
        parts.append(Part(name, application.view.variables[name], labelled, bounds))
    return to_dataset(application, parts, task="embed", layer=layer, pool=" ".join(dims) or "none")


def _chosen(config: ModelConfig, fields: str | Sequence[str] | None) -> list[str]:
    known = [field.name for field in config.inputs.fields]
    fields = [fields] if isinstance(fields, str) else fields
    contexts = {context.name: context.field for context in config.inputs.contexts}
    for name in fields or ():
        if name in contexts:
            raise ConfigError(
                f"{name!r} is a context of {contexts[name]!r}: those of neighborhoods side by side "
                "overlap, so there is no grid for their embeddings; embed fields"
            )
        if name not in known:
            raise ConfigError(f"the model has no field {name!r}{closest(name, known)}")
    return known if fields is None else list(fields)


def _pooled_dims(pool: str | Sequence[str] | None) -> tuple[str, ...]:
    kinds = [] if pool is None else [pool] if isinstance(pool, str) else list(pool)
    for kind in kinds:
        if kind not in POOLED:
            raise ConfigError(f"pool {kind!r} is unknown{closest(kind, POOLED)}")
    return tuple(dim for kind in kinds for dim in POOLED[kind])


def _pool(
    features: xr.DataArray, bounds: Mapping[str, xr.DataArray], dims: tuple[str, ...]
) -> xr.DataArray:
    """Average over some dimensions, weighted by area where it is horizontal."""
    if not dims:
        return features
    if "latitude" not in dims:
        return features.mean(dims)
    # Area between two parallels and two meridians, up to a constant.
    sines = xr.apply_ufunc(np.sin, np.deg2rad(bounds["latitude"]))
    height = abs(sines.diff("bounds")).isel(bounds=0)
    width = abs(bounds["longitude"].diff("bounds")).isel(bounds=0)
    return features.weighted(height * width).mean(dims)
