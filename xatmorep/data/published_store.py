"""Normalization coefficients as AtmoRep published them in 2024: part of a zarr store."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from xatmorep.data.published_source import Source, Span, wanted_months
from xatmorep.errors import CheckpointError

if TYPE_CHECKING:
    import zarr

    from xatmorep.data.published import PublishedField

__all__ = ["StoreLayout"]


class StoreLayout:
    """One zarr store with all fields, whose attributes say their order.

    Parameters
    ----------
    url : str
        Path or fsspec URL of the store.

    Raises
    ------
    CheckpointError
        If it can't be opened.
    """

    def __init__(self, url: str) -> None:
        import zarr

        self.url = url
        try:
            self.group = zarr.open_group(url, mode="r")
        except (OSError, ValueError) as error:
            raise CheckpointError(f"the zarr store {url} can't be opened: {error}") from error

    def source(self, field: PublishedField, span: Span | None) -> Source:
        """What there is of a field, as `xatmorep.data.published_source.Layout` says."""
        name = "norm" if field.levels else "norm_sfc"
        array = self._array(f"normalization/{'global_' * (field.scope == 'global')}{name}")
        names = self._attribute("fields" if field.levels else "fields_sfc")
        levels = self._attribute("levels") if field.levels else []
        coords = self._coords() if field.scope == "local" else {}
        sizes = [len(names), *([len(levels)] if field.levels else [])]
        expected = (2, *sizes, *(axis.size for axis in coords.values()))
        if array.shape[1:] != expected or array.dtype.kind != "f":
            raise CheckpointError(
                f"{array.path} in {self.url} has the shape {array.shape} and the type "
                f"{array.dtype}: it must be floating-point (months, "
                f"{', '.join(map(str, expected))}) to go with the store's attributes"
            )
        name_at = self._position(names, field.published_name, "field")
        places: list[tuple[int, ...]] = [(name_at,)]
        if field.levels:
            places = [(name_at, self._position(levels, level, "level")) for level in field.levels]
        first = 12 * self._first_year()
        months = wanted_months(field.published_name, first + np.arange(array.shape[0]), span)
        slots = slice(int(months[0] - first), int(months[-1] - first) + 1)

        def read(shape: tuple[int, ...]) -> np.ndarray:
            result = np.empty(shape, np.float32)
            for number, place in enumerate(places):
                part = self._read(array, (slots, slice(None), *place))
                result[:, :, number] = np.moveaxis(part, 1, 0)
            return result

        return Source(months, coords, len(places), read)

    def _read(self, array: zarr.Array[Any], selection: tuple[Any, ...]) -> np.ndarray:
        try:
            return np.asarray(array[selection])
        except (OSError, ValueError, RuntimeError) as error:
            raise CheckpointError(f"{array.path} in {self.url} can't be read: {error}") from error

    def _array(self, path: str) -> zarr.Array[Any]:
        import zarr

        found = self.group.get(path)
        if not isinstance(found, zarr.Array):
            raise CheckpointError(f"the zarr store {self.url} has no array {path!r}")
        return found

    def _attribute(self, name: str) -> list[Any]:
        found = self.group.attrs.get(name)
        if not isinstance(found, list):
            raise CheckpointError(
                f"the zarr store {self.url} has no attribute {name!r} with a list; it has "
                f"{sorted(self.group.attrs)}"
            )
        return found

    def _position(self, known: list[Any], wanted: object, what: str) -> int:
        if wanted not in known:
            raise CheckpointError(
                f"the zarr store {self.url} has no {what} {wanted!r}; it has {known}"
            )
        return known.index(wanted)

    def _coords(self) -> dict[str, np.ndarray]:
        """Latitude from the colatitude of the store, and longitude."""
        colatitude, longitude = (
            np.asarray(self._array(name)[...]).astype(np.float64) for name in ("lats", "lons")
        )
        if not ((colatitude >= 0) & (colatitude <= 180)).all():
            raise CheckpointError(
                f"lats in {self.url} must be degrees from the north pole, 0 to 180; they are from "
                f"{colatitude.min():g} to {colatitude.max():g}"
            )
        return {"latitude": 90.0 - colatitude, "longitude": longitude}

    def _first_year(self) -> int:
        time = self._array("time")
        first = xr.Dataset({"time": ("time", np.asarray(time[:1]), dict(time.attrs))})
        try:
            return int(xr.decode_cf(first)["time"].dt.year.values[0])
        except (AttributeError, TypeError, ValueError, IndexError) as error:
            raise CheckpointError(f"time in {self.url} holds no dates: {error}") from error
