"""Tokens: what the network reads, with its labels."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import xarray as xr

from xatmorep.tasks.engine import DEFAULT_MODEL, Application, ModelLike, Options
from xatmorep.tasks.labels import Part, on_tokens, to_dataset
from xatmorep.tasks.slab import Answers, Key, Output, Task
from xatmorep.tokens.batch import TokenBatch
from xatmorep.tokens.info import TOKEN_INFO
from xatmorep.tokens.spec import InputSpec

if TYPE_CHECKING:
    import torch

    from xatmorep.model.inputs import NetworkInput
    from xatmorep.model.multiformer import Multiformer

__all__ = ["tokenize"]

INSIDE = ("token_time", "token_latitude", "token_longitude")


@dataclass(frozen=True)
class Tokens(Task):
    """Values and info of every token; the network isn't asked."""

    def outputs(self, spec: InputSpec) -> dict[Key, Output]:
        """Points of each token, and its info."""
        outputs = {}
        for field in spec.fields:
            inside = dict(zip(INSIDE, field.token_shape, strict=True))
            outputs[field.name, "values"] = Output("tokens", lead={}, trail=inside)
            outputs[field.name, "info"] = Output("tokens", lead={}, trail={"info": len(TOKEN_INFO)})
        return outputs

    def evaluate(
        self,
        network: Multiformer,
        batch: TokenBatch,
        inputs: NetworkInput,
        hidden: Mapping[str, torch.Tensor],
    ) -> Answers:
        """Values and info of the batch, missing values included."""
        import torch

        answers: Answers = {}
        for name in (field.name for field in batch.spec.fields):
            answers[name, "values"] = torch.from_numpy(batch.tokens[name]), None
            answers[name, "info"] = torch.from_numpy(batch.info[name]), None
        return answers


def tokenize(
    ds: xr.Dataset,
    *,
    model: ModelLike = DEFAULT_MODEL,
    variables: Mapping[str, str] | None = None,
) -> xr.Dataset:
    """Cut a dataset into the normalized tokens that a model reads.

    Parameters
    ----------
    ds : xarray.Dataset
        Any dataset with the fields that the model needs.
    model : str, path or Model
        Name of a shipped model, address of a saved one, or a model.
    variables : mapping of str to str, optional
        Canonical name of a field to name of the variable, where it isn't recognized.

    Returns
    -------
    xarray.Dataset
        For each field (not for contexts), under the name that it has in `ds`, the normalized
        values (..., time, [level], latitude, longitude, token_time, token_latitude,
        token_longitude), NaN where the data have none, and a variable ``<name>_info`` (..., time,
        [level], latitude, longitude, info) with year, day of year, hour, level, latitude,
        longitude and resolution of each token. Lazy if `ds` is backed by dask.

    Raises
    ------
    ConventionError
        If the dataset lacks what the model needs, or has another grid or time step.

    Examples
    --------
    >>> import xatmorep
    >>> ds = xatmorep.open_dataset("era5-sample").isel(time=slice(0, 5))
    >>> xatmorep.tokenize(ds)["2m_temperature"].dims[-3:]
    ('token_time', 'token_latitude', 'token_longitude')
    """
    application = Application.of(ds, model, variables, Options(device="cpu"))
    parts = []
    for (name, kind), array in application.run(Tokens()).items():
        labelled, bounds = on_tokens(application, name, array)
        if kind == "info":
            # Of type object: zarr has no specification for texts of fixed length.
            labelled = labelled.assign_coords(info=np.array(TOKEN_INFO, dtype=object))
            labelled.attrs = {"long_name": f"token info of {name.replace('_', ' ')}"}
        else:
            labelled.attrs = {"long_name": f"normalized {name.replace('_', ' ')}", "units": "1"}
        variable = application.view.variables[name]
        part_name = variable if kind == "values" else f"{variable}_info"
        parts.append(Part(name, part_name, labelled, bounds))
    return to_dataset(application, parts, task="tokens")
