"""Labels of results: coordinates of tokens, names and attributes of the input, one Dataset."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import xarray as xr

from xatmorep._version import __version__
from xatmorep.tasks.engine import Application
from xatmorep.tokens.tiling import token_coordinates

__all__ = ["Part", "on_tokens", "to_dataset"]


class Part(NamedTuple):
    """One variable of a result, still in canonical form.

    Attributes
    ----------
    field : str
        Canonical name of the field.
    name : str
        Name of the variable in the result.
    array : xarray.DataArray
        Values and coordinates in canonical form, with the attributes of the variable.
    bounds : dict of str to xarray.DataArray
        Bounds (axis, bounds) of the axes of which `array` has token centers.
    """

    field: str
    name: str
    array: xr.DataArray
    bounds: Mapping[str, xr.DataArray] = {}


def on_tokens(
    application: Application, field: str, array: xr.DataArray
) -> tuple[xr.DataArray, dict[str, xr.DataArray]]:
    """An array on the grid of tokens with its coordinates (token centers), and their bounds."""
    spec, labels = application.model.config.inputs, application.view.fields[field].coords
    coordinates = token_coordinates(application.tiling, spec, field, labels)
    centers = {axis: coordinates[axis] for axis in ("time", "level", "latitude", "longitude")}
    bounds = {axis: coordinates[f"{axis}_bounds"] for axis in ("time", "latitude", "longitude")}
    return array.assign_coords(centers), bounds


def to_dataset(
    application: Application, parts: Iterable[Part], *, task: str, **parameters: Any
) -> xr.Dataset:
    """Variables in the form of the input, joined into one Dataset.

    Where the coordinates of two fields differ along a dimension (other token grid, width or
    levels), that of the later field carries its name: ``time_total_precipitation``.

    Parameters
    ----------
    application : Application
        The model on the dataset.
    parts : iterable of Part
        The variables.
    task : str
        Name of the task, for the attributes.
    **parameters
        Arguments of the task, for the attributes.
    """
    result = xr.Dataset()
    pairs = [(part, _restored(application, part)) for part in parts]
    dims = {dim for _, restored in pairs for dim in restored.dims}
    for part, restored in pairs:
        # A scalar of the dataset gives way to a dimension of another variable: `member`.
        scalars = [name for name, coord in restored.coords.items() if not coord.dims]
        restored = restored.drop_vars([name for name in scalars if name in dims])
        variable = application.view.variables[part.field]
        differing = [
            str(dim)
            for dim in restored[part.name].dims
            if dim in result.dims and not _same(result, restored, dim)
        ]
        restored = _renamed(restored, differing, variable)
        result = result.assign_coords(restored.coords)
        result[part.name] = restored[part.name]
    result.attrs = attributes(application, task, **parameters)
    return application.finish(result)


def _restored(application: Application, part: Part) -> xr.Dataset:
    """One variable in the form of the input, with its bounds beside it."""
    view = application.view
    restored = view.restore(part.field, part.array).rename(part.name).to_dataset()
    for axis, bounds in part.bounds.items():
        if axis not in part.array.dims:
            continue
        # xarray lets no DataArray have a coordinate with a dimension that it lacks itself, so
        # bounds are restored together with an array of their own shape.
        carrier = bounds.assign_coords({f"{axis}_bounds": bounds.variable})
        carried = view.restore(part.field, carrier)
        name = view.axes[axis]
        restored = restored.assign_coords({f"{name}_bounds": carried[f"{name}_bounds"].variable})
        restored[name].attrs["bounds"] = f"{name}_bounds"
        if axis == "time":
            # Middles and bounds of tokens needn't be whole hours, in which the data may count.
            restored[name].encoding["units"] = "seconds since 1970-01-01"
    return restored


def attributes(application: Application, task: str, **parameters: Any) -> dict[str, str]:
    """Where a result comes from: model, digest, task, parameters and version."""
    model = application.model
    attrs = {
        "model": model.name,
        "model_digest": application.reference.digest,
        "task": task,
        "parameters": ", ".join(f"{key}={value}" for key, value in parameters.items()),
        "xatmorep_version": __version__,
        "source": f"xatmorep {__version__}, {task} by the model {model.name}",
    }
    if model.card.demonstration:
        attrs["comment"] = "made by a demonstration model: not for use where skill matters"
    return attrs


def _same(result: xr.Dataset, restored: xr.Dataset, dim: Any) -> bool:
    """Whether two datasets have the same coordinate along a dimension."""
    if result.sizes[dim] != restored.sizes[dim]:
        return False
    if dim not in result.coords or dim not in restored.coords:
        return dim not in result.coords and dim not in restored.coords
    return result[dim].variable.equals(restored[dim].variable)


def _renamed(restored: xr.Dataset, dims: list[str], variable: str) -> xr.Dataset:
    """Dimensions, with their coordinates and bounds, under the field's own name."""
    names = {dim: f"{dim}_{variable}" for dim in dims}
    names |= {f"{dim}_bounds": f"{dim}_bounds_{variable}" for dim in dims}
    renamed = restored.rename({old: new for old, new in names.items() if _has(restored, old)})
    for dim in dims:
        if f"{dim}_bounds" in restored.coords:
            renamed[names[dim]].attrs["bounds"] = names[f"{dim}_bounds"]
    return renamed


def _has(ds: xr.Dataset, name: str) -> bool:
    return name in ds.dims or name in ds.variables
