"""One variable of a dataset in canonical form, without reading it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import xarray as xr
from xarray.backends import BackendArray
from xarray.core import indexing

from xatmorep.data.grid import Place, take
from xatmorep.data.units import Conversion

__all__ = ["arrange", "is_unread"]


def arrange(
    variable: xr.Variable,
    places: Mapping[str, Place],
    conversion: Conversion | None = None,
    *,
    deferred: bool = False,
) -> xr.Variable:
    """A variable with canonical dimensions.

    Dimensions of `variable` that no place names are reduced to their first entry. What dask or a
    file would read stays unread.

    Parameters
    ----------
    variable : Variable
        As in the dataset.
    places : mapping of str to Place
        Canonical dimensions, in order.
    conversion : Conversion, optional
        From the units of the dataset, into float32; without it values stay as they are.
    deferred : bool
        Whether an array in memory is to be converted only where it is indexed, as one in a file
        always is, instead of as a whole now.
    """
    named = {place.dim for place in places.values()}
    variable = variable.isel({dim: 0 for dim in variable.dims if dim not in named})
    if is_unread(variable) or (deferred and variable.chunks is None):
        lazy = indexing.LazilyIndexedArray(_Unread(variable, places, conversion))
        return xr.Variable(tuple(places), lazy)
    names = {}
    for canonical, place in places.items():
        if place.dim is not None:
            variable = take(variable, place.dim, place.order)
            names[place.dim] = canonical
    variable = xr.Variable([names[dim] for dim in map(str, variable.dims)], variable)
    variable = variable.set_dims({name: place.size for name, place in places.items()})
    return _converted(variable, conversion)


def is_unread(variable: xr.Variable) -> bool:
    """Whether a variable is in a file, and would be read as a whole by arithmetic."""
    # A private property of xarray, which has no public way to tell a file from an array.
    return variable.chunks is None and not variable._in_memory


def _converted(values: Any, conversion: Conversion | None) -> Any:
    if conversion is None:
        return values
    if conversion.is_identity:
        return values.astype("float32", copy=False)
    # In float64: an offset of 273.15 would cost digits of a float32.
    return conversion.apply(values.astype("float64")).astype("float32")


class _Unread(BackendArray):
    """A variable that is read, and converted, only where it is indexed.

    xarray keeps a file's variable unread through indexing, but not through arithmetic: this does
    the arithmetic after the reading.
    """

    def __init__(
        self, variable: xr.Variable, places: Mapping[str, Place], conversion: Conversion | None
    ) -> None:
        self.variable = variable
        self.places = dict(places)
        self.conversion = conversion
        self.shape = tuple(place.size for place in places.values())
        self.dtype = variable.dtype if conversion is None else np.dtype("float32")

    def __getitem__(self, key: indexing.ExplicitIndexer) -> np.ndarray:
        result: np.ndarray = indexing.explicit_indexing_adapter(
            key, self.shape, indexing.IndexingSupport.OUTER, self._read
        )
        return result

    def _read(self, key: tuple[Any, ...]) -> np.ndarray:
        wanted = [
            np.atleast_1d(np.arange(size)[part]) for size, part in zip(self.shape, key, strict=True)
        ]
        # Files are read in ascending order, each entry once; `inverse` puts it in place.
        reads: dict[str, slice | np.ndarray] = {}
        inverses = []
        for place, entries in zip(self.places.values(), wanted, strict=True):
            if place.dim is None:
                inverses.append(np.zeros(len(entries), dtype=int))
                continue
            stored = entries if place.order is None else place.order[entries]
            ascending, inverse = np.unique(stored, return_inverse=True)
            reads[place.dim] = _slice_if_dense(ascending)
            inverses.append(inverse)
        part = self.variable.isel(reads)
        values = np.transpose(part.values, [part.dims.index(dim) for dim in reads])
        lacking = [axis for axis, place in enumerate(self.places.values()) if place.dim is None]
        values = np.expand_dims(values, lacking)[np.ix_(*inverses)]
        scalars = tuple(0 if isinstance(part, int | np.integer) else slice(None) for part in key)
        return np.asarray(_converted(values[scalars], self.conversion))


def _slice_if_dense(ascending: np.ndarray) -> slice | np.ndarray:
    if len(ascending) and int(ascending[-1]) - int(ascending[0]) == len(ascending) - 1:
        return slice(int(ascending[0]), int(ascending[-1]) + 1)
    return ascending
