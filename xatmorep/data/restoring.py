"""A result in canonical form, back in the form of the dataset it came from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
import xarray as xr

from xatmorep.data.axes import AXES
from xatmorep.data.grid import Axis, Restored, cast, take

__all__ = ["restore"]


def restore(
    array: xr.DataArray,
    variable: xr.DataArray,
    axes: Mapping[str, Axis],
    squeezed: Sequence[str],
) -> xr.DataArray:
    """Names, order and coordinates of `variable` for a result in canonical form.

    Parameters
    ----------
    array : DataArray
        Canonical dimensions, or some of them, and any others.
    variable : DataArray
        The dataset's variable that the result belongs to.
    axes : mapping of str to Axis
        Canonical name -> axis of the dataset; without level for a field at the surface.
    squeezed : sequence of str
        Dimensions of size one that the canonical form left out.
    """
    if "level" in array.dims and "level" not in axes:
        array = array.isel(level=0, drop=True)
    restored = {n: axis.restore(_index(array, n)) for n, axis in axes.items() if n in array.coords}
    data = _placed(array.variable, axes, restored)
    lost = [dim for dim in squeezed if dim not in data.dims]
    data = data.set_dims({**dict.fromkeys(lost, 1), **data.sizes})
    coords = {
        str(name): _placed(coordinate.variable, axes, restored)
        for name, coordinate in array.coords.items()
        if name not in AXES
    }
    for name in set(coords) & set(variable.coords):
        coords[name].attrs = dict(variable[name].attrs)
    for name, found in restored.items():
        axis, coordinate = axes[name], _lean(found)
        bounds = coords.pop(f"{name}_bounds", None)
        if bounds is not None:
            coordinate.attrs["bounds"] = f"{axis.dim}_bounds"
            coords[f"{axis.dim}_bounds"] = _restore_bounds(bounds, axis, found)
        elif found.places is None:
            # The dataset's own bounds are those of another grid.
            coordinate.attrs.pop("bounds", None)
        is_scalar = axis.dim not in data.dims
        coords[axis.match.coord] = coordinate.isel({axis.dim: 0}) if is_scalar else coordinate
    places = {axes[name].dim: found.places for name, found in restored.items()}
    coords |= _other_coords(variable, data, coords, places)
    return xr.DataArray(data, coords, name=variable.name, attrs=array.attrs)


def _index(array: xr.DataArray, name: str) -> pd.Index:
    coordinate = array[name].variable
    return array.indexes[name] if coordinate.dims else coordinate.set_dims(name).to_index()


def _placed(
    variable: xr.Variable, axes: Mapping[str, Axis], restored: Mapping[str, Restored]
) -> xr.Variable:
    """A variable in the order of the dataset and with its dimensions."""
    for name, found in restored.items():
        if name in variable.dims:
            variable = take(variable, name, found.sorting)
    names = {name: axis.dim for name, axis in axes.items()}
    dims = [names.get(str(dim), str(dim)) for dim in variable.dims]
    variable = xr.Variable(dims, variable, dict(variable.attrs), dict(variable.encoding))
    scalars = [axis.dim for axis in axes.values() if axis.match.dim is None]
    return variable.isel({dim: 0 for dim in scalars if variable.sizes.get(dim) == 1})


def _lean(restored: Restored) -> xr.Variable:
    """The coordinate without what its store knew about chunks and codecs.

    A result may go to a store of another format and shape. How dates are written is kept where
    the dates are the dataset's own.
    """
    coordinate = restored.coordinate.copy(deep=False)
    kept = () if restored.places is None else ("calendar", "units")
    encoding = coordinate.encoding
    coordinate.encoding = {key: encoding[key] for key in kept if key in encoding}
    return coordinate


def _restore_bounds(bounds: xr.Variable, axis: Axis, restored: Restored) -> xr.Variable:
    """Bounds in the units, range, dtype and direction of their coordinate."""
    coordinate = restored.coordinate.values
    values = bounds.values
    if axis.match.axis == "level":
        values = values / axis.scale
    if axis.match.axis == "longitude":
        # The center decides: both bounds go round the circle with it.
        turns = np.round((values.mean(axis=-1) - coordinate) / 360.0) * 360.0
        values = values - turns.reshape(*values.shape[:-1], 1)
    if axis.match.axis in ("latitude", "longitude"):
        values = np.sort(values, axis=-1)
        steps = np.diff(coordinate)
        if np.sum(steps < 0) > np.sum(steps > 0):
            values = values[..., ::-1]
    return xr.Variable(bounds.dims, cast(values, restored.coordinate.dtype), bounds.attrs)


def _other_coords(
    variable: xr.DataArray,
    data: xr.Variable,
    have: Mapping[str, xr.Variable],
    places: Mapping[str, np.ndarray | None],
) -> dict[str, xr.Variable]:
    """The dataset's further coordinates of which the result holds the places."""
    others = {}
    for name, coordinate in variable.coords.items():
        # A scalar of the dataset gives way to a dimension of the result, such as its members.
        hidden = name in have or (name in data.dims and name not in coordinate.dims)
        if hidden or not all(
            _covers(str(dim), variable, data, have, places) for dim in coordinate.dims
        ):
            continue
        chosen = {dim: places[dim] for dim in map(str, coordinate.dims) if dim in places}
        others[str(name)] = _lean(Restored(coordinate.variable[chosen], None, np.array([])))
    return others


def _covers(
    dim: str,
    variable: xr.DataArray,
    data: xr.Variable,
    have: Mapping[str, xr.Variable],
    places: Mapping[str, np.ndarray | None],
) -> bool:
    """Whether the result's entries along a dimension are known to be the dataset's."""
    if dim not in data.dims:
        return False
    if dim in places:
        return places[dim] is not None
    if data.sizes[dim] != variable.sizes[dim]:
        return False
    return dim not in have or variable.indexes[dim].equals(have[dim].to_index())
