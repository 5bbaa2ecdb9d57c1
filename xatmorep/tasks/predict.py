"""Predictions: hidden tokens as an ensemble, in physical units on the grid of the data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
import xarray as xr

from xatmorep.errors import ConfigError
from xatmorep.strict import closest
from xatmorep.tasks.engine import DEFAULT_MODEL, Application, ModelLike, Options
from xatmorep.tasks.labels import Part, to_dataset
from xatmorep.tasks.lattice import random_points
from xatmorep.tasks.slab import Answers, Key, Output, Slab
from xatmorep.tokens.batch import TokenBatch
from xatmorep.tokens.spec import InputSpec

if TYPE_CHECKING:
    import torch

    from xatmorep.model.inputs import NetworkInput
    from xatmorep.model.multiformer import Multiformer

__all__ = ["Predict", "as_given", "predict"]

Where = Literal["hidden", "all"]

STRATEGIES = ("random",)
"""Masking strategies by name."""

DEFAULT_RATE = 0.5


@dataclass(frozen=True)
class Predict:
    """Ensemble predictions of hidden tokens (or of all), and which tokens were hidden.

    Attributes
    ----------
    predicted : tuple of str
        Fields with a tail.
    members : int
        Size of the ensemble.
    where : {"hidden", "all"}
        Which tokens are given.
    rate : float or None
        Share of random tokens to hide; None if the caller says which points are hidden.
    seed : int
        Seed of the draw.
    """

    predicted: tuple[str, ...]
    members: int
    where: Where
    rate: float | None
    seed: int

    def outputs(self, spec: InputSpec) -> dict[Key, Output]:
        """The ensemble and the mask of each predicted field."""
        ensemble = Output("points", lead={"member": self.members}, trail={}, normalized=True)
        mask = Output("points", lead={}, trail={})
        return {
            (name, part): output
            for name in self.predicted
            for part, output in (("prediction", ensemble), ("hidden", mask))
        }

    def points(self, slab: Slab, n_samples: int) -> dict[str, np.ndarray]:
        """Points of random cells, or none if the caller says what is hidden."""
        if self.rate is None:
            return {}
        grid = (len(slab.latitude), len(slab.longitude), n_samples)
        return {
            field.name: random_points(
                field, slab.frames(field.name), *grid, rate=self.rate, seed=self.seed
            )
            for field in slab.spec.fields
        }

    def evaluate(
        self,
        network: Multiformer,
        batch: TokenBatch,
        inputs: NetworkInput,
        hidden: Mapping[str, torch.Tensor],
    ) -> Answers:
        """Ensemble (batch, member, level, T, A, O, t, a, o) and mask as ones."""
        import torch

        spec = network.config.inputs
        select = None if self.where == "all" else {name: hidden[name] for name in self.predicted}
        answers: Answers = {}
        for name, rows in network(inputs, select).items():
            mask = hidden[name]
            counted = mask if self.where == "hidden" else torch.ones_like(mask)
            tokens = rows.new_zeros((*mask.shape, self.members, rows.shape[-1]))
            tokens[counted] = rows
            shape = spec.field(name).token_shape
            answers[name, "prediction"] = tokens.unflatten(-1, shape).movedim(5, 1), counted
            answers[name, "hidden"] = mask.new_ones((*mask.shape, *shape)), mask
        return answers


def predict(
    ds: xr.Dataset,
    *,
    model: ModelLike = DEFAULT_MODEL,
    mask: xr.DataArray | xr.Dataset | str | None = None,
    rate: float | None = None,
    members: bool = True,
    where: Where = "hidden",
    seed: int = 0,
    variables: Mapping[str, str] | None = None,
    overlap: float = 0.0,
    device: str | None = None,
    batch_size: int = 8,
    dtype: str = "float32",
) -> xr.Dataset:
    """Hide tokens of a dataset and predict them from the others.

    Parameters
    ----------
    ds : xarray.Dataset
        Any dataset with the fields that the model needs.
    model : str, path or Model
        Name of a shipped model, address of a saved one, or a model.
    mask : xarray.DataArray, xarray.Dataset or {"random"}, optional
        What is hidden. A boolean array on the grid of `ds` (dimensions that it lacks are hidden
        alike): a token is hidden if any of its points is True. A Dataset has one such array for
        each field that hides something, under the name that the field has in `ds`. ``"random"``,
        as without a mask: random cells as large as a token, drawn for each field and level.
    rate : float, optional
        Share of the cells that is hidden at random; 0.5 if neither it nor a mask is given.
    members : bool
        Whether to give all members of the ensemble, or their mean only.
    where : {"hidden", "all"}
        Where predictions are given: at the hidden tokens, or everywhere (a reconstruction).
    seed : int
        Seed of the random tokens; the same tokens whatever the chunks and batches.
    variables : mapping of str to str, optional
        Canonical name of a field to name of the variable, where it isn't recognized.
    overlap : float
        Share of a neighborhood that the next one has in common with it along each dimension, in
        whole tokens; at least 0 and less than 1. Where neighborhoods overlap their predictions
        are averaged, each with more weight where it is in the middle, for there the model sees
        most around a token. Errors get smaller, and 0.5 takes up to eight times as long.
    device : str, optional
        Torch device; CUDA where there is one, else the CPU.
    batch_size : int
        Neighborhoods that the network sees at once.
    dtype : {"float32", "float64", "bfloat16", "float16"}
        Type in which the network computes.

    Returns
    -------
    xarray.Dataset
        For each predicted field, under the name and in the units that it has in `ds`, a float32
        variable (..., member, time, [level], latitude, longitude), NaN where nothing is predicted,
        and a boolean variable ``<name>_hidden`` without member. Lazy if `ds` is backed by dask.

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
    >>> prediction = xatmorep.predict(ds, rate=0.3, seed=1)
    >>> prediction["2m_temperature"].dims
    ('member', 'time', 'latitude', 'longitude')
    >>> prediction["2m_temperature_hidden"].dtype
    dtype('bool')
    """
    if where not in ("hidden", "all"):
        raise ConfigError(f"where must be 'hidden' or 'all', not {where!r}")
    given = isinstance(mask, xr.DataArray | xr.Dataset)
    if isinstance(mask, str) and mask not in STRATEGIES:
        raise ConfigError(f"mask {mask!r} is no masking strategy{closest(mask, STRATEGIES)}")
    if given and rate is not None:
        raise ConfigError("give mask or rate, not both: the mask says which points are hidden")
    share = None if given else DEFAULT_RATE if rate is None else rate
    if share is not None and not 0 < share < 1:
        raise ConfigError(f"rate must lie between 0 and 1, not {rate}")
    application = Application.of(ds, model, variables, Options(device, batch_size, dtype, overlap))
    config = application.model.config
    task = Predict(config.predicted, config.tail.members, where, share, seed)
    points = None if mask is None or isinstance(mask, str) else _masks(application, mask)
    results = application.run(task, points)
    parts = []
    for name in task.predicted:
        values = as_given(application, name, results[name, "prediction"], members=members)
        hidden = results[name, "hidden"].notnull()
        hidden.attrs = {"long_name": f"whether {name.replace('_', ' ')} was hidden from the model"}
        variable = application.view.variables[name]
        parts += [Part(name, variable, values), Part(name, f"{variable}_hidden", hidden)]
    described = "given" if given else f"random, rate {share}"
    return to_dataset(
        application,
        parts,
        task="predict",
        mask=described,
        members=members,
        where=where,
        seed=seed,
        overlap=overlap,
    )


def as_given(
    application: Application, name: str, ensemble: xr.DataArray, *, members: bool
) -> xr.DataArray:
    """An ensemble (..., member, ...) of a field, or its mean, in the units of the dataset."""
    ensemble = ensemble.assign_coords(member=np.arange(ensemble.sizes["member"]))
    values = application.view.restore_units(name, ensemble)
    if not members:
        values = values.mean("member")
    values.attrs = application.view.attrs(name)
    return values


def _masks(application: Application, mask: xr.DataArray | xr.Dataset) -> dict[str, xr.DataArray]:
    """Masks on the data's grid, in canonical form for each field."""
    variables = application.view.variables
    if isinstance(mask, xr.DataArray):
        masks = dict.fromkeys(application.view.fields, mask)
    else:
        names = {variables[name]: name for name in application.view.fields}
        for name in map(str, mask.data_vars):
            if name not in names:
                raise ConfigError(f"mask has {name!r}, which is no field{closest(name, names)}")
        masks = {names[str(name)]: array for name, array in mask.data_vars.items()}
    for array in masks.values():
        if array.dtype != bool:
            raise ConfigError(
                f"mask has type {array.dtype}: it must be boolean, True where a point is hidden"
            )
    return {name: application.view.align(name, array).chunk() for name, array in masks.items()}
